//! What the store counts for metrics and quotas. Not here: how metrics are named and served.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread or many raise, and that is read at leisure.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Stats {
    /// Versions written.
    pub puts: Counter,
    /// Delete operations.
    pub deletes: Counter,
    /// Transactions with more than one operation, as etcd counts them.
    pub txns: Counter,
    /// Range operations.
    pub ranges: Counter,
    /// Changes handed to the watchers.
    pub events: Counter,
    /// Bytes of keys and values written.
    pub put_bytes: Counter,
    /// Revisions removed by compactions.
    pub compacted_keys: Counter,
    /// Compactions finished.
    pub compactions: Counter,
}
