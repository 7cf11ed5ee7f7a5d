//! The metrics: every family that etcd's dashboards and tests know, under its name. Counting is a relaxed
//! atomic on the thread that has something to count; what others know best is asked for when a page is made
//! ([`Metrics::add_source`]). Not here: who counts what, and the HTTP page around the text.

mod areas;
mod grpc;
mod ops;
mod process;
mod text;
mod value;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use areas::{Disk, Elsewhere, Lease, Mvcc, Network, Server};
pub use grpc::Grpc;
pub use ops::{Op, Ops};
pub use text::{Counters, Gauges, Info};
pub use value::{Counter, Gauge, Histogram};

use crate::config::{Config, ETCD_VERSION, release};
use crate::services::methods::Method;
use etch_rpc::Code;

type Source = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All that is counted, by area.
pub struct Metrics {
    /// The member.
    pub server: Server,
    /// Keys, revisions, watches, compaction.
    pub mvcc: Mvcc,
    /// Leases.
    pub lease: Lease,
    /// The log, the database, snapshots.
    pub disk: Disk,
    /// Clients, peers, and who reads this page.
    pub network: Network,
    /// Calls.
    pub grpc: Grpc,
    /// Requests by what they ask.
    pub ops: Ops,
    /// What is always 0.
    pub elsewhere: Elsewhere,
    sources: Mutex<Vec<Source>>,
}

impl Metrics {
    /// Metrics with nothing counted, as the flags ask for them.
    pub fn new(config: &Config) -> Metrics {
        let metrics = Metrics {
            server: Server::new(),
            mvcc: Mvcc::new(),
            lease: Lease::new(),
            disk: Disk::new(),
            network: Network::new(),
            grpc: Grpc::new(config.metrics == "extensive"),
            ops: Ops::new(),
            elsewhere: Elsewhere::new(),
            sources: Mutex::new(Vec::new()),
        };
        metrics.server.version.set(ETCD_VERSION);
        metrics.server.go_version.set(format!("none ({})", release()));
        metrics.mvcc.compact_revision.set(-1);
        for (gate, open) in config.feature_gates.all() {
            metrics.server.features.set([gate.name, gate.stage], open.into());
        }
        for code in ["200", "500", "503"] {
            metrics.network.scrapes.add([code], 0);
        }
        metrics
    }

    /// `refresh` is called before each page: it sets what is counted elsewhere.
    pub fn add_source(&self, refresh: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(refresh));
    }

    /// Appends the page in the text format 0.0.4.
    pub fn render(&self, out: &mut String) {
        for refresh in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            refresh(self);
        }
        let mut page = text::Page::default();
        self.server.write(&mut page);
        self.mvcc.write(&mut page);
        self.lease.write(&mut page);
        self.disk.write(&mut page);
        self.network.write(&mut page);
        self.grpc.write(&mut page);
        self.ops.write(&mut page);
        self.elsewhere.write(&mut page);
        process::write(&mut page);
        page.finish(out);
    }

    /// A gRPC call has come in.
    pub fn started(&self, method: Method) {
        self.grpc.started(method);
    }

    /// A gRPC call has ended, so many milliseconds after it came in.
    pub fn handled(&self, method: Method, code: Code, took_ms: u64) {
        self.grpc.handled(method, code, Duration::from_millis(took_ms));
    }

    /// A batch of entries was written to the log and flushed.
    pub fn wal_synced(&self, writing: Duration, flushing: Duration, bytes: usize) {
        self.disk.wal_write.observe(writing);
        self.disk.wal_fsync.observe(flushing);
        self.disk.wal_bytes.add(bytes.try_into().unwrap_or(i64::MAX));
    }

    /// The database has committed.
    pub fn backend_committed(&self, took: Duration) {
        self.disk.backend_commit.observe(took);
        // Pages are merged and split on their way to the file, in no time of their own.
        self.disk.backend_rebalance.observe(Duration::ZERO);
        self.disk.backend_spill.observe(Duration::ZERO);
        self.disk.backend_write.observe(took);
    }

    /// A snapshot file was saved.
    pub fn snapshot_saved(&self, encoding: Duration, writing: Duration) {
        self.disk.snap_marshal.observe(encoding);
        self.disk.snap_fsync.observe(writing);
        self.disk.snap_save.observe(encoding + writing);
    }

    /// A step of a compaction was made, in the index or in the database.
    pub fn compaction_step(&self, in_index: bool, took: Duration) {
        let steps = if in_index {
            &self.mvcc.index_compaction_pause
        } else {
            &self.mvcc.db_compaction_pause
        };
        steps.observe(took);
    }

    /// A compaction is complete, so long after its first step.
    pub fn compacted(&self, took: Duration, unix_s: u64) {
        self.mvcc.db_compaction_total.observe(took);
        self.mvcc.db_compaction_last.set_size(unix_s);
    }
}

/// Open files and the most that there may be, as `/debug/vars` shows them.
pub(crate) fn open_files() -> (u64, u64) {
    process::open_files()
}

#[cfg(test)]
mod tests;
