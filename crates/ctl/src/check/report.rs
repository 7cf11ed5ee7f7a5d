//! The figures of many timed calls. Not here: the calls, and what figures are good.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a call went: its time, or its error.
pub type Timed = Result<Duration, String>;

/// Figures, as calls come in.
#[derive(Debug, Default)]
pub struct Report {
    count: u64,
    sum: f64,
    sum_of_squares: f64,
    slowest: f64,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Takes a call in.
    pub fn add(&mut self, timed: Timed) {
        match timed {
            Ok(time) => {
                let seconds = time.as_secs_f64();
                self.count += 1;
                self.sum += seconds;
                self.sum_of_squares += seconds * seconds;
                self.slowest = self.slowest.max(seconds);
            }
            Err(why) => *self.errors.entry(why).or_default() += 1,
        }
    }

    /// Good calls a second.
    pub fn rate(&self, total: Duration) -> f64 {
        self.count as f64 / total.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The slowest call, in seconds.
    pub fn slowest(&self) -> f64 {
        self.slowest
    }

    /// The standard deviation, in seconds.
    pub fn deviation(&self) -> f64 {
        let count = (self.count as f64).max(1.0);
        let mean = self.sum / count;
        // Rounding may make a nothing negative.
        (self.sum_of_squares / count - mean * mean).max(0.0).sqrt()
    }

    /// The lines that say which errors there were.
    pub fn failures(&self) -> String {
        if self.errors.is_empty() {
            return String::new();
        }
        let lines = self.errors.iter().map(|(why, n)| format!("FAIL: ERROR({why}) -> {n}\n"));
        format!("FAIL: too many errors\n{}", lines.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_book() {
        let mut report = Report::default();
        for millis in [100, 300] {
            report.add(Ok(Duration::from_millis(millis)));
        }
        report.add(Err("late".into()));
        assert!((report.deviation() - 0.1).abs() < 1e-9);
        assert!((report.slowest() - 0.3).abs() < 1e-9);
        assert!((report.rate(Duration::from_secs(4)) - 0.5).abs() < 1e-9);
        assert_eq!(report.failures(), "FAIL: too many errors\nFAIL: ERROR(late) -> 1\n");
        assert_eq!(Report::default().deviation(), 0.0);
    }
}
