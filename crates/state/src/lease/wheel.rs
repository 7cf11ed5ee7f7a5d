//! A hierarchical timer wheel: entries come up once their time has come, never before. Not here: what an
//! entry means; it may come up for nothing, and is put in again by whoever took it out.

use std::array;

/// Milliseconds of one tick.
const TICK_MS: u64 = 100;
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
/// 256^4 ticks are more than thirteen years; what lies farther goes round the top level.
const LEVELS: usize = 4;
const FARTHEST: u64 = (1 << (BITS * LEVELS as u32)) - 1;

/// A lease in the wheel, by id and number.
pub(super) type Entry = (i64, u64);

struct Timed {
    tick: u64,
    entry: Entry,
}

/// The wheel. Putting in and taking out cost the same however many entries there are.
pub(super) struct Wheel {
    /// All entries of ticks up to here came up.
    current: u64,
    levels: [[Vec<Timed>; SLOTS]; LEVELS],
    /// Room for a slot that is being emptied.
    spare: Vec<Timed>,
}

impl Wheel {
    /// An empty wheel at this time.
    pub(super) fn new(now_ms: u64) -> Box<Self> {
        Box::new(Self {
            current: now_ms / TICK_MS,
            levels: array::from_fn(|_| array::from_fn(|_| Vec::new())),
            spare: Vec::new(),
        })
    }

    /// Puts an entry in that comes up at `at_ms` or within a tick after it.
    pub(super) fn insert(&mut self, at_ms: u64, entry: Entry) {
        let tick = at_ms.div_ceil(TICK_MS).max(self.current + 1);
        self.place(Timed { tick, entry });
    }

    fn place(&mut self, timed: Timed) {
        let ahead = (timed.tick - self.current).min(FARTHEST);
        let tick = self.current + ahead;
        let level = (ahead.max(1).ilog2() / BITS) as usize;
        let slot = (tick >> (BITS * level as u32)) as usize % SLOTS;
        self.levels[level][slot].push(timed);
    }

    /// Moves on to this time and hands over what came up.
    pub(super) fn advance(&mut self, now_ms: u64, mut due: impl FnMut(Entry)) {
        let target = now_ms / TICK_MS;
        while self.current < target {
            self.current += 1;
            for level in (1..LEVELS).rev() {
                if self.current.is_multiple_of(1 << (BITS * level as u32)) {
                    self.cascade(level);
                }
            }
            let slot = self.current as usize % SLOTS;
            for timed in self.levels[0][slot].drain(..) {
                due(timed.entry);
            }
        }
    }

    /// Spreads the slot of a level that has come near over the levels below.
    fn cascade(&mut self, level: usize) {
        let slot = (self.current >> (BITS * level as u32)) as usize % SLOTS;
        let mut moving = std::mem::take(&mut self.spare);
        std::mem::swap(&mut moving, &mut self.levels[level][slot]);
        for timed in moving.drain(..) {
            self.place(timed);
        }
        // A slot that was once crowded does not keep its room for ever.
        if moving.capacity() <= 4096 {
            self.spare = moving;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::Dice;

    #[test]
    fn comes_up_in_time_and_never_early() {
        let mut dice = Dice::new(3);
        let start = 1_234_567_890;
        let mut wheel = Wheel::new(start);
        let mut waiting = Vec::new();
        let mut now = start;
        for number in 0..20_000_u64 {
            let span = match dice.below(4) {
                0 => dice.below(1000),
                1 => dice.below(100_000),
                2 => dice.below(20_000_000),
                _ => dice.below(20_000_000_000),
            };
            wheel.insert(now + span, (7, number));
            waiting.push(now + span);
            if dice.below(10) == 0 {
                now += dice.below(100_000);
                check(&mut wheel, now, &mut waiting);
            }
        }
        now += 20_100_000_000;
        check(&mut wheel, now, &mut waiting);
        assert!(waiting.iter().all(|&at| at == u64::MAX), "every entry came up");
    }

    fn check(wheel: &mut Wheel, now: u64, waiting: &mut [u64]) {
        wheel.advance(now, |(_, number)| {
            let at = std::mem::replace(&mut waiting[number as usize], u64::MAX);
            assert!(at <= now, "{at} came up at {now}");
        });
        // One tick may be missing to the next whole one.
        assert!(waiting.iter().all(|&at| at > now.saturating_sub(2 * TICK_MS)));
    }

    #[test]
    fn what_lies_too_far_stays_at_the_top() {
        let mut wheel = Wheel::new(0);
        wheel.insert(FARTHEST * TICK_MS * 3, (1, 1));
        wheel.advance(1 << 27, |_| panic!("it is years ahead"));
        wheel.cascade(LEVELS - 1);
        assert_eq!(wheel.levels[LEVELS - 1].iter().map(Vec::len).sum::<usize>(), 1);
    }
}
