//! Counters, gauges and histograms: relaxed atomics that any thread may touch. Not here: their names.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// For who counts elsewhere and is asked when the page is made.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// So much more, or less.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value is this.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// The value is this; what does not fit is the largest that does.
    pub fn set_size(&self, n: u64) {
        self.set(n.try_into().unwrap_or(i64::MAX));
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// How often values fell between which bounds. Values come as whole numbers of a small unit; `scale` turns
/// them into the unit of the page.
#[derive(Debug)]
pub struct Histogram {
    bounds: Box<[u64]>,
    /// One more than bounds: the last is for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    scale: f64,
}

/// Bounds of a histogram in its page's unit: the first, and each twice the one before.
const fn doubling<const N: usize>(first: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2.0;
        at += 1;
    }
    bounds
}

impl Histogram {
    fn new(bounds: &[f64], scale: f64) -> Histogram {
        let bounds: Box<[u64]> =
            bounds.iter().map(|bound| (bound / scale).round() as u64).collect();
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0), scale }
    }

    /// Times, shown in seconds: from 1 ms to 8.192 s.
    pub fn millis() -> Histogram {
        Histogram::new(&doubling::<14>(0.001), 1e-9)
    }

    /// Times, shown in seconds: from 0.1 ms to 52.4 s.
    pub fn fine() -> Histogram {
        Histogram::new(&doubling::<20>(0.0001), 1e-9)
    }

    /// Times, shown in seconds: `N` bounds from 10 ms on.
    pub fn centis<const N: usize>() -> Histogram {
        Histogram::new(&doubling::<N>(0.01), 1e-9)
    }

    /// Times, shown in seconds: `N` bounds from 100 ms on.
    pub fn decis<const N: usize>() -> Histogram {
        Histogram::new(&doubling::<N>(0.1), 1e-9)
    }

    /// Times, shown in milliseconds: `N` bounds from `first` on.
    pub fn in_millis<const N: usize>(first: f64) -> Histogram {
        Histogram::new(&doubling::<N>(first), 1e-6)
    }

    /// Plain numbers: `N` bounds from 1 on.
    pub fn plain<const N: usize>() -> Histogram {
        Histogram::new(&doubling::<N>(1.0), 1.0)
    }

    /// Times of calls, shown in seconds, with the bounds that Prometheus gives where none are asked for.
    pub fn calls() -> Histogram {
        let bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Histogram::new(&bounds, 1e-9)
    }

    /// Counts a time.
    pub fn observe(&self, took: Duration) {
        self.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a value in its small unit (nanoseconds for times).
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `n` values at once, each of them `value`.
    pub fn record_many(&self, value: u64, n: u64) {
        let at = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.buckets[at].fetch_add(n, Relaxed);
        self.sum.fetch_add(value.saturating_mul(n), Relaxed);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Appends the lines of this histogram; `labels` are `a="b"` with commas between, or nothing.
    pub(super) fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            let _ = write!(out, "{name}_bucket{{{labels}{comma}le=\"");
            match self.bounds.get(at) {
                // Through the decimal places of the small unit, so that 0.1 is not 0.09999999999999999.
                Some(bound) => push_number(out, rounded(*bound as f64 * self.scale)),
                None => out.push_str("+Inf"),
            }
            let _ = writeln!(out, "\"}} {}", Number(count as f64));
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = self.sum.load(Relaxed) as f64 * self.scale;
        let _ = writeln!(out, "{name}_sum{braces} {}", Number(rounded(sum)));
        let _ = writeln!(out, "{name}_count{braces} {}", Number(count as f64));
    }
}

/// The shortest number near `x` to the ninth decimal place.
fn rounded(x: f64) -> f64 {
    if x.abs() < 1e6 { (x * 1e9).round() / 1e9 } else { x }
}

/// A number as Go's `strconv.FormatFloat(x, 'g', -1, 64)` prints it.
pub(super) struct Number(pub f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let x = self.0;
        if x.is_nan() {
            return f.write_str("NaN");
        }
        if x.is_infinite() {
            return f.write_str(if x > 0.0 { "+Inf" } else { "-Inf" });
        }
        let text = format!("{x:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..6).contains(&exponent) || x == 0.0 {
            return write!(f, "{x}");
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{mantissa}e{sign}{:02}", exponent.abs())
    }
}

fn push_number(out: &mut String, x: f64) {
    let _ = write!(out, "{}", Number(x));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_go() {
        for (x, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.0001, "0.0001"),
            (5.8e-05, "5.8e-05"),
            (999_999.0, "999999"),
            (1_048_576.0, "1.048576e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (1.8446744073709552e19, "1.8446744073709552e+19"),
            (0.002889661, "0.002889661"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(Number(x).to_string(), text);
        }
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let histogram = Histogram::millis();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_micros(1_001));
        histogram.observe(Duration::from_secs(9));
        let mut out = String::new();
        histogram.write(&mut out, "x", "a=\"b\"");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 17);
        assert_eq!(lines[0], "x_bucket{a=\"b\",le=\"0.001\"} 1");
        assert_eq!(lines[1], "x_bucket{a=\"b\",le=\"0.002\"} 2");
        assert_eq!(lines[13], "x_bucket{a=\"b\",le=\"8.192\"} 2");
        assert_eq!(lines[14], "x_bucket{a=\"b\",le=\"+Inf\"} 3");
        assert_eq!(lines[15], "x_sum{a=\"b\"} 9.002001");
        assert_eq!(lines[16], "x_count{a=\"b\"} 3");
    }

    #[test]
    fn bounds_are_those_of_etcd() {
        for (histogram, bounds) in [
            (
                Histogram::fine(),
                "0.0001 0.0002 0.0004 0.0008 0.0016 0.0032 0.0064 0.0128 0.0256 0.0512 0.1024 0.2048 0.4096 0.8192 1.6384 3.2768 6.5536 13.1072 26.2144 52.4288 +Inf",
            ),
            (
                Histogram::decis::<13>(),
                "0.1 0.2 0.4 0.8 1.6 3.2 6.4 12.8 25.6 51.2 102.4 204.8 409.6 +Inf",
            ),
            (
                Histogram::in_millis::<14>(0.5),
                "0.5 1 2 4 8 16 32 64 128 256 512 1024 2048 4096 +Inf",
            ),
            (
                Histogram::plain::<24>(),
                "1 2 4 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536 131072 262144 524288 1.048576e+06 2.097152e+06 4.194304e+06 8.388608e+06 +Inf",
            ),
            (Histogram::calls(), "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf"),
        ] {
            let mut out = String::new();
            histogram.write(&mut out, "x", "");
            let shown: Vec<&str> = out
                .lines()
                .filter_map(|line| line.strip_prefix("x_bucket{le=\"")?.split('"').next())
                .collect();
            assert_eq!(shown.join(" "), bounds);
        }
    }
}
