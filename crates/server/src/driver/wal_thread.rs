//! The WAL's own thread: takes every write that waits, encodes them one behind the other, flushes once, and
//! says how far the log is durable. A small write before which there is nothing is made by the node's thread
//! itself, with the same [`LogWriter`]. Not here: the format (`etch_disk::wal`).

use std::process;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// The log, and what is kept of it.
pub struct LogWriter {
    /// The log.
    pub wal: Wal,
    /// Where raft snapshots are: the log goes back to the oldest.
    pub snapshots: Snapshotter,
    /// Segments kept (`--max-wals`); 0 keeps all.
    pub max_wals: usize,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The log that people read.
    pub log: Logger,
}

impl LogWriter {
    /// Makes this write and those that follow it durable. What cannot be written ends the process: what is on disk
    /// is unknown then, and nothing more may be acknowledged. Gives the last write's number.
    pub fn write(&mut self, first: LogWrite, more: impl FnMut() -> Option<LogWrite>) -> Durable {
        match self.try_write(first, more) {
            Ok(durable) => durable,
            Err(error) => self.fail(&error),
        }
    }

    fn try_write(
        &mut self,
        first: LogWrite,
        mut more: impl FnMut() -> Option<LogWrite>,
    ) -> Result<Durable, WalError> {
        let mut durable = Durable { sequence: first.sequence, snapshot: None };
        let mut bytes = 0;
        let mut next = Some(first);
        let writing = Instant::now();
        while let Some(write) = next {
            durable.sequence = write.sequence;
            bytes += write.bytes();
            self.wal.append(&write.batch)?;
            if let Some((index, term, conf_state)) = &write.snapshot {
                self.wal.save_snapshot(*index, *term, conf_state)?;
                durable.snapshot = Some(*index);
            }
            next = if bytes < FLUSH_BYTES { more() } else { None };
        }
        let began = Instant::now();
        self.wal.sync()?;
        self.metrics.wal_synced(began - writing, began.elapsed(), bytes);
        Ok(durable)
    }

    /// Lets go of what lies before the snapshot, and removes the oldest files beyond the limit.
    fn release(&mut self, snapshot: u64) {
        let oldest = self.snapshots.oldest_index().ok().flatten().unwrap_or(snapshot);
        self.wal.release_to(oldest.min(snapshot));
        if let Err(error) = self.wal.purge(self.max_wals) {
            self.fail(&error);
        }
    }

    fn fail(&self, error: &WalError) -> ! {
        log_error!(self.log, "failed to write the WAL", "error" => error.to_string());
        process::exit(1);
    }
}

/// How far the log is durable.
pub struct Durable {
    /// The number of the last write.
    pub sequence: u64,
    /// A snapshot that was noted.
    snapshot: Option<u64>,
}

/// The writer, for the two threads that write: one at a time, and the node's only when the other has nothing to do.
#[derive(Clone)]
pub struct SharedWriter(Arc<Mutex<LogWriter>>);

impl SharedWriter {
    /// Shares a writer.
    pub fn new(writer: LogWriter) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    /// The writer, once nobody else writes.
    pub fn lock(&self) -> MutexGuard<'_, LogWriter> {
        // A log whose writer panicked is poisoned by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread works with.
pub struct WalThread {
    /// The log.
    pub writer: SharedWriter,
    /// What to write.
    pub writes: Receiver<LogWrite>,
    /// Where "durable" is said.
    pub inbox: Arc<Inbox>,
}

impl WalThread {
    /// Runs until the node is gone, and makes all durable.
    pub fn run(self) {
        while let Ok(first) = self.writes.recv() {
            let mut writer = self.writer.lock();
            let durable = writer.write(first, || self.writes.try_recv().ok());
            self.inbox.push(Command::LogWritten(durable.sequence));
            if let Some(index) = durable.snapshot {
                writer.release(index);
            }
        }
        let mut writer = self.writer.lock();
        if let Err(error) = writer.wal.sync() {
            log_error!(writer.log, "failed to close the WAL", "error" => error.to_string());
        }
    }
}
