//! Draws from a seed: what a run does is a function of its seed, when it happens is up to the machine. Not here:
//! what is drawn.

/// A stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for a part of the run.
    pub fn part(&mut self) -> Self {
        Self(self.next())
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).max(0) as u64 + 1;
        low + (self.next() % width) as i64
    }

    /// As [`Rng::range`], of the numbers that are not negative.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }

    /// One of these, as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let mut at = self.next() % of.iter().map(|(weight, _)| weight).sum::<u64>();
        for (weight, choice) in of {
            match at.checked_sub(*weight) {
                None => return *choice,
                Some(rest) => at = rest,
            }
        }
        of[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_stream_and_weights_are_heeded() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..1000).map(|_| rng.weighted(&[(1, 'a'), (0, 'b'), (3, 'c')])).collect::<String>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let rare = draw(7).matches('a').count();
        assert!((150..350).contains(&rare) && !draw(7).contains('b'), "{rare}");
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| (-3..=5).contains(&rng.range(-3, 5))));
    }
}
