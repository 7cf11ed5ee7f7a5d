//! The page of metrics in Prometheus' text format 0.0.4. Not here: the values.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::value::{Counter, Gauge, Histogram, Number};

/// A page in the making: families in the order of their names.
#[derive(Default)]
pub struct Page(BTreeMap<&'static str, String>);

/// Something with a value, or several.
pub(super) trait Metric {
    /// The type that the page names.
    const TYPE: &'static str;
    /// Appends the lines.
    fn write(&self, name: &str, out: &mut String);
    /// True if there is nothing to show.
    fn is_empty(&self) -> bool {
        false
    }
}

impl Page {
    /// Adds a family.
    pub(super) fn add<M: Metric>(&mut self, name: &'static str, help: &str, metric: &M) {
        if !metric.is_empty() {
            metric.write(name, self.family(name, M::TYPE, help));
        }
    }

    /// Adds a family of one value.
    pub(super) fn value(&mut self, name: &'static str, kind: &str, help: &str, value: f64) {
        let out = self.family(name, kind, help);
        let _ = writeln!(out, "{name} {}", Number(value));
    }

    /// Begins a family; its lines are to be appended.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) -> &mut String {
        let out = self.0.entry(name).or_default();
        out.clear();
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        out
    }

    /// The whole page.
    pub(super) fn finish(self, out: &mut String) {
        for family in self.0.into_values() {
            out.push_str(&family);
        }
    }
}

impl Metric for Counter {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, out: &mut String) {
        let _ = writeln!(out, "{name} {}", Number(self.get() as f64));
    }
}

impl Metric for Gauge {
    const TYPE: &'static str = "gauge";

    fn write(&self, name: &str, out: &mut String) {
        let _ = writeln!(out, "{name} {}", Number(self.get() as f64));
    }
}

impl Metric for Histogram {
    const TYPE: &'static str = "histogram";

    fn write(&self, name: &str, out: &mut String) {
        Histogram::write(self, out, name, "");
    }
}

/// A fact in a label, whose value is 1. Without the fact there is no family.
#[derive(Debug)]
pub struct Info {
    label: &'static str,
    fact: Mutex<Option<String>>,
}

impl Info {
    /// A fact still unknown.
    pub(super) fn new(label: &'static str) -> Info {
        Info { label, fact: Mutex::new(None) }
    }

    /// The fact is this.
    pub fn set(&self, fact: impl Into<String>) {
        *self.fact.lock().unwrap_or_else(PoisonError::into_inner) = Some(fact.into());
    }

    pub(super) fn get(&self) -> Option<String> {
        self.fact.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Metric for Info {
    const TYPE: &'static str = "gauge";

    fn write(&self, name: &str, out: &mut String) {
        if let Some(fact) = self.get() {
            let _ = writeln!(out, "{name}{{{}=\"{}\"}} 1", self.label, escaped(&fact));
        }
    }

    fn is_empty(&self) -> bool {
        self.get().is_none()
    }
}

/// Values by labels, for what is counted seldom. A series exists once it has been touched.
#[derive(Debug)]
pub struct Labelled<const N: usize, const COUNTER: bool> {
    labels: [&'static str; N],
    series: Mutex<BTreeMap<[String; N], i64>>,
}

/// Counters by labels.
pub type Counters<const N: usize> = Labelled<N, true>;
/// Gauges by labels.
pub type Gauges<const N: usize> = Labelled<N, false>;

/// Labels may come from clients: so many series of a family, and no more.
const SERIES_MAX: usize = 1_000;

impl<const N: usize, const COUNTER: bool> Labelled<N, COUNTER> {
    pub(super) fn new(labels: [&'static str; N]) -> Self {
        Labelled { labels, series: Mutex::new(BTreeMap::new()) }
    }

    /// So much more in the series of these labels' values.
    pub fn add(&self, values: [&str; N], n: i64) {
        self.update(values, |value| *value += n);
    }

    /// The series of these labels' values is at `n`.
    pub fn set(&self, values: [&str; N], n: i64) {
        self.update(values, |value| *value = n);
    }

    /// True if there is such a series.
    pub fn has(&self, values: [&str; N]) -> bool {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.contains_key(&values.map(str::to_owned))
    }

    fn update(&self, values: [&str; N], change: impl FnOnce(&mut i64)) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let key = values.map(str::to_owned);
        if series.len() < SERIES_MAX || series.contains_key(&key) {
            change(series.entry(key).or_default());
        }
    }
}

impl<const N: usize, const COUNTER: bool> Metric for Labelled<N, COUNTER> {
    const TYPE: &'static str = if COUNTER { "counter" } else { "gauge" };

    fn write(&self, name: &str, out: &mut String) {
        for (values, value) in self.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels: Vec<String> = (self.labels.iter().zip(values))
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = writeln!(out, "{name}{{{}}} {}", labels.join(","), Number(*value as f64));
        }
    }

    fn is_empty(&self) -> bool {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// A label's value: backslash, quote and end of line are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_and_labels_escaped() {
        let mut page = Page::default();
        let counters = Counters::new(["a", "b"]);
        page.add("z_total", "Z.", &counters);
        counters.add(["x\"y", "\\\n"], 2);
        let info = Info::new("version");
        info.set("1");
        page.add("z_total", "Z.", &counters);
        page.add("a_info", "A.", &info);
        let mut out = String::new();
        page.finish(&mut out);
        assert_eq!(
            out,
            "# HELP a_info A.\n# TYPE a_info gauge\na_info{version=\"1\"} 1\n\
             # HELP z_total Z.\n# TYPE z_total counter\nz_total{a=\"x\\\"y\",b=\"\\\\\\n\"} 2\n"
        );
    }

    #[test]
    fn labels_of_strangers_have_a_bound() {
        let counters = Counters::new(["a"]);
        for n in 0..2 * SERIES_MAX {
            counters.add([&n.to_string()], 1);
        }
        let mut out = String::new();
        counters.write("x", &mut out);
        assert_eq!(out.lines().count(), SERIES_MAX);
    }
}
