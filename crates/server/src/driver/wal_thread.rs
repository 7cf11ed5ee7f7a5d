//! The WAL's own thread: takes every write that waits, encodes them one behind the other, flushes once, and
//! says how far the log is durable. Not here: the format (`etch_disk::wal`).

use std::process;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use etch_disk::snap::Snapshotter;
use etch_disk::wal::{Wal, WalError};
use etch_node::LogWrite;

use super::inbox::{Command, Inbox};
use crate::log_error;
use crate::logging::Logger;
use crate::metrics::Metrics;

/// A flush covers at most about this much: those who wait for the first write of it should not wait long.
const FLUSH_BYTES: usize = 4 << 20;

/// What the thread works with.
pub struct WalThread {
    /// The log.
    pub wal: Wal,
    /// Where raft snapshots are: the log goes back to the oldest.
    pub snapshots: Snapshotter,
    /// Segments kept (`--max-wals`); 0 keeps all.
    pub max_wals: usize,
    /// What to write.
    pub writes: Receiver<LogWrite>,
    /// Where "durable" is said.
    pub inbox: Arc<Inbox>,
    /// Asks for the next segment.
    pub prepare: Sender<()>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The log.
    pub log: Logger,
}

impl WalThread {
    /// Runs until the node is gone, and closes the log.
    pub fn run(mut self) {
        while let Ok(first) = self.writes.recv() {
            if let Err(error) = self.write(first) {
                // What is on disk is unknown now, and nothing more may be acknowledged.
                log_error!(self.log, "failed to write the WAL", "error" => error.to_string());
                process::exit(1);
            }
        }
        if let Err(error) = self.wal.close() {
            log_error!(self.log, "failed to close the WAL", "error" => error.to_string());
        }
    }

    fn write(&mut self, first: LogWrite) -> Result<(), WalError> {
        let mut durable = first.sequence;
        let mut bytes = 0;
        let mut snapshot = None;
        let mut next = Some(first);
        let writing = Instant::now();
        while let Some(write) = next {
            durable = write.sequence;
            bytes += write.batch.entries.iter().map(|e| e.data().len()).sum::<usize>();
            self.wal.append(&write.batch)?;
            if let Some((index, term, conf_state)) = &write.snapshot {
                self.wal.save_snapshot(*index, *term, conf_state)?;
                snapshot = Some(*index);
            }
            next = if bytes < FLUSH_BYTES { self.writes.try_recv().ok() } else { None };
        }
        let began = Instant::now();
        self.wal.sync()?;
        self.metrics.wal_synced(began - writing, began.elapsed(), bytes);
        self.inbox.push(Command::LogWritten(durable));
        if let Some(index) = snapshot {
            self.release(index)?;
        }
        // To wake a thread costs more than to look, and this is after every flush.
        if self.wal.wants_next() {
            // The other end is there as long as we are.
            let _ = self.prepare.send(());
        }
        Ok(())
    }

    /// Lets go of what lies before the snapshot, and removes the oldest files beyond the limit.
    fn release(&mut self, index: u64) -> Result<(), WalError> {
        let oldest = self.snapshots.oldest_index().ok().flatten().unwrap_or(index);
        self.wal.release_to(oldest.min(index));
        self.wal.purge(self.max_wals).map(drop)
    }
}
