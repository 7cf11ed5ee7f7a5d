//! A set of page numbers: one bit each, and a count for every 4,096 of them, so that looking for a set
//! bit passes over empty stretches. Not here: what the pages are.

const WORDS: usize = 64;
const BLOCK: u64 = 64 * WORDS as u64;

/// A set of numbers below its length.
pub(super) struct Bits {
    words: Vec<u64>,
    /// How many bits are set in each block of [`BLOCK`].
    counts: Vec<u16>,
    len: u64,
    ones: u64,
}

impl Bits {
    /// An empty set of numbers below `len`.
    pub fn new(len: u64) -> Self {
        let mut bits = Self { words: Vec::new(), counts: Vec::new(), len: 0, ones: 0 };
        bits.resize(len);
        bits
    }

    /// Numbers from `len` on are out; those that are in below it stay.
    pub fn resize(&mut self, len: u64) {
        for at in len..self.len {
            self.clear(at);
        }
        let blocks = len.div_ceil(BLOCK) as usize;
        self.words.resize(blocks * WORDS, 0);
        self.counts.resize(blocks, 0);
        self.len = len;
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// How many are in.
    pub fn ones(&self) -> u64 {
        self.ones
    }

    #[inline]
    pub fn get(&self, at: u64) -> bool {
        at < self.len && self.words[(at / 64) as usize] >> (at % 64) & 1 == 1
    }

    #[inline]
    pub fn set(&mut self, at: u64) {
        let (word, bit) = (&mut self.words[(at / 64) as usize], 1 << (at % 64));
        if *word & bit == 0 {
            *word |= bit;
            self.counts[(at / BLOCK) as usize] += 1;
            self.ones += 1;
        }
    }

    #[inline]
    pub fn clear(&mut self, at: u64) {
        let (word, bit) = (&mut self.words[(at / 64) as usize], 1 << (at % 64));
        if *word & bit != 0 {
            *word &= !bit;
            self.counts[(at / BLOCK) as usize] -= 1;
            self.ones -= 1;
        }
    }

    /// The first number at or after `from` that is in.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let mut at = from;
        while at < self.len {
            if at.is_multiple_of(BLOCK) && self.counts[(at / BLOCK) as usize] == 0 {
                at += BLOCK;
                continue;
            }
            let word = self.words[(at / 64) as usize] >> (at % 64);
            if word != 0 {
                return Some(at + u64::from(word.trailing_zeros()));
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// The first number at or after `from` that is not in, the length at the most.
    pub fn next_clear(&self, from: u64) -> u64 {
        let mut at = from;
        while at < self.len {
            let word = !self.words[(at / 64) as usize] >> (at % 64);
            if word != 0 {
                return (at + u64::from(word.trailing_zeros())).min(self.len);
            }
            at = (at / 64 + 1) * 64;
        }
        self.len
    }

    /// The last number below `before` that is in.
    pub fn last_set(&self, before: u64) -> Option<u64> {
        let mut end = before.min(self.len);
        while end > 0 {
            let last = end - 1;
            if end.is_multiple_of(BLOCK) && self.counts[(last / BLOCK) as usize] == 0 {
                end -= BLOCK;
                continue;
            }
            let word = self.words[(last / 64) as usize] << (63 - last % 64);
            if word != 0 {
                return Some(last - u64::from(word.leading_zeros()));
            }
            end = last / 64 * 64;
        }
        None
    }

    /// One past the last number that is not in: all from there to the length are.
    pub fn tail(&self) -> u64 {
        let mut end = self.len;
        while end > 0 && self.get(end - 1) {
            end -= 1;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_plain_list() {
        let mut bits = Bits::new(20_000);
        let mut plain = vec![false; 20_000];
        let mut seed = 1u64;
        for _ in 0..4_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) % 20_000;
            let on = seed >> 63 == 1;
            // The middle stays empty, for the blocks to be passed over.
            if !(5_000..15_000).contains(&at) {
                plain[at as usize] = on;
                if on { bits.set(at) } else { bits.clear(at) }
            }
        }
        assert_eq!(bits.ones(), plain.iter().filter(|b| **b).count() as u64);
        for from in (0..20_000).step_by(7) {
            let rest = &plain[from..];
            let next = rest.iter().position(|b| *b).map(|i| (from + i) as u64);
            let clear = rest.iter().position(|b| !*b).map_or(20_000, |i| (from + i) as u64);
            let last = plain[..from].iter().rposition(|b| *b).map(|i| i as u64);
            assert_eq!(bits.next_set(from as u64), next);
            assert_eq!(bits.next_clear(from as u64), clear);
            assert_eq!(bits.last_set(from as u64), last);
        }
        bits.resize(5_000);
        assert_eq!(bits.ones(), plain[..5_000].iter().filter(|b| **b).count() as u64);
        (4_000..5_000).for_each(|at| bits.set(at));
        bits.clear(3_999);
        assert_eq!((bits.tail(), bits.len()), (4_000, 5_000));
    }
}
