//! What was counted in a world, and the table over many. Not here: what is right.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of one world, or of many together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Worlds.
    pub worlds: u64,
    /// Virtual time, in nanoseconds.
    pub virtual_ns: u64,
    /// Things that happened.
    pub events: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Requests, by kind and outcome: answered, refused, unknown.
    pub operations: BTreeMap<&'static str, [u64; 3]>,
    /// Everything else, by name.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// One more of this.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// So many more of this.
    pub fn add(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Stats) {
        self.worlds += other.worlds;
        self.virtual_ns += other.virtual_ns;
        self.events += other.events;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, counts) in &other.operations {
            let ours = self.operations.entry(kind).or_default();
            ours.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
        }
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worlds                            {:>12}", self.worlds)?;
        writeln!(f, "virtual hours                     {:>12.1}", self.virtual_ns as f64 / 3.6e12)?;
        writeln!(f, "events                            {:>12}", self.events)?;
        writeln!(f, "\nfaults")?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {kind:<32}{count:>12}")?;
        }
        writeln!(f, "\nrequests                              answered     refused     unknown")?;
        for (kind, [ok, refused, unknown]) in &self.operations {
            writeln!(f, "  {kind:<32}{ok:>12}{refused:>12}{unknown:>12}")?;
        }
        writeln!(f, "\nbeside these")?;
        for (what, count) in &self.counts {
            writeln!(f, "  {what:<32}{count:>12}")?;
        }
        Ok(())
    }
}
