//! Chance, drawn from one seed: as many independent streams as there are parts that draw, so that one part
//! that draws more or less leaves what the others draw as it is. Not here: what is drawn (`params`).

/// The step of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers: SplitMix64, which needs one word and passes the usual tests.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed) ^ mix(stream.wrapping_mul(STEP) ^ STEP.rotate_left(32)))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `n`; 0 if `n` is.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.number() % n }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// The same for numbers with a sign.
    pub fn around(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high.abs_diff(low) + 1) as i64
    }

    /// True in so many cases of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// One of these, by weight.
    pub fn weighted<T: Copy>(&mut self, of: &[(T, u64)]) -> T {
        let mut at = self.below(of.iter().map(|(_, weight)| weight).sum());
        for (what, weight) in of {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *what,
            }
        }
        of[0].0
    }

    /// A time around `mean`: mostly shorter, at times much longer, as queues make it.
    pub fn delay(&mut self, mean: u64) -> u64 {
        let long = 1 + u64::from(self.chance(20)) * self.below(20);
        mean / 2 + self.below(mean * long + 1)
    }
}

/// The finishing steps of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            [rng.number(), rng.number()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn weights_and_bounds_hold() {
        let mut rng = Rng::new(7, 0);
        let mut counts = [0; 2];
        for _ in 0..1000 {
            counts[rng.weighted(&[(0, 900), (1, 100)])] += 1;
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!((-3..=-1).contains(&rng.around(-3, -1)));
        }
        assert!(counts[0] > 800 && counts[1] > 40, "{counts:?}");
    }
}
