//! What is measured, and the window in which it is. Not here: the loads (`rows`), the table (`table`).

use std::time::Duration;

use crate::closed::Outcome;
use crate::server::{Server, Usage, own_cpu};

/// One of the figures of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Operations a second.
    Rate,
    /// Percentiles of the latency, microseconds.
    P50,
    /// See `P50`.
    P99,
    /// See `P50`.
    P999,
    /// What a small write and its flush take by themselves on the same disk, before and after the load: the median.
    Flush,
    /// `P50` less `Flush`.
    BeyondFlush,
    /// The server's processor time an operation, microseconds.
    Cpu,
    /// The loader's, likewise: what the load itself took of the machine.
    LoaderCpu,
    /// The highest resident memory of its own, MB.
    Anonymous,
    /// The highest resident memory of files, MB.
    File,
    /// Both together less the length of `db`, MB.
    BeyondStore,
    /// Bytes written to the disk an operation.
    Written,
    /// Flushes of the log, of a thousand operations.
    LogFlushes,
    /// Commits of `db` a second.
    Commits,
    /// From the start until it answers, milliseconds.
    Start,
    /// The 99.9th percentile while nothing else goes on, microseconds.
    Idle,
    /// The same while it compacts, as a multiple of `Idle`.
    Compacting,
    /// While it sends a snapshot.
    Snapshotting,
    /// While it defragments.
    Defragmenting,
}

impl Measure {
    /// Its name and unit in the table.
    pub fn label(self) -> &'static str {
        match self {
            Measure::Rate => "operations/s",
            Measure::P50 => "p50, us",
            Measure::P99 => "p99, us",
            Measure::P999 => "p99.9, us",
            Measure::Flush => "the disk's own flush, us",
            Measure::BeyondFlush => "p50 beyond the flush, us",
            Measure::Cpu => "server CPU, us/op",
            Measure::LoaderCpu => "loader CPU, us/op",
            Measure::Anonymous => "peak anonymous, MB",
            Measure::File => "peak file-backed, MB",
            Measure::BeyondStore => "memory beyond `db`, MB",
            Measure::Written => "written, B/op",
            Measure::LogFlushes => "log flushes/1000 ops",
            Measure::Commits => "db commits/s",
            Measure::Start => "start, ms",
            Measure::Idle => "p99.9 idle, us",
            Measure::Compacting => "p99.9 compacting, x idle",
            Measure::Snapshotting => "p99.9 snapshot, x idle",
            Measure::Defragmenting => "p99.9 defrag, x idle",
        }
    }
}

/// The figures of one run of a row.
pub type Sample = Vec<(Measure, f64)>;

/// From when on a server's use of the machine counts.
pub struct Window {
    usage: Usage,
    loader: Duration,
}

impl Window {
    /// Begins to count.
    pub fn open(server: &Server) -> Result<Window, String> {
        server.peak();
        Ok(Window { usage: server.usage()?, loader: own_cpu()? })
    }

    /// What `operations` have cost, which took `time`.
    pub fn close(self, server: &Server, operations: u64, time: Duration) -> Result<Sample, String> {
        let used = server.usage()?.since(self.usage);
        let loader = own_cpu()?.saturating_sub(self.loader);
        let peak = server.peak();
        let each = |d: Duration| d.as_secs_f64() * 1e6 / operations as f64;
        Ok(vec![
            (Measure::Cpu, each(used.cpu)),
            (Measure::LoaderCpu, each(loader)),
            (Measure::Anonymous, peak.anonymous as f64 / 1e6),
            (Measure::File, peak.file as f64 / 1e6),
            (Measure::Written, used.written as f64 / operations as f64),
            (Measure::LogFlushes, used.log_flushes as f64 * 1e3 / operations as f64),
            (Measure::Commits, used.commits as f64 / time.as_secs_f64()),
        ])
    }
}

/// Rate and latencies of an outcome.
pub fn speed(outcome: &Outcome) -> Sample {
    let mut sample = vec![(Measure::Rate, outcome.rate())];
    sample.extend(latencies(|q| outcome.percentile(q)));
    sample
}

/// The three percentiles that every row has.
pub fn latencies(percentile: impl Fn(f64) -> f64) -> Sample {
    vec![
        (Measure::P50, percentile(50.0)),
        (Measure::P99, percentile(99.0)),
        (Measure::P999, percentile(99.9)),
    ]
}
