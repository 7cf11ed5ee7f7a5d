//! The B+tree's own thread: one commit at a time, and the raft snapshot that goes with it. Not here: when to
//! commit (`etch_node`), and the file (`etch_disk::backend`).

use std::io;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use etch_disk::backend::{Backend, Bolt};
use etch_disk::fs::Disk;
use etch_disk::snap;
use etch_node::{Commit, SaveSnapshot};

use super::inbox::{Command, Inbox};
use crate::logging::Logger;
use crate::metrics::Metrics;
use crate::{log_error, log_info};

/// Raft snapshots kept on disk, as in etcd.
const SNAPSHOTS: usize = 5;

/// What the thread works with.
pub struct BackendThread {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The B+tree.
    pub backend: Arc<Bolt>,
    /// Where raft snapshots go.
    pub snap_dir: PathBuf,
    /// What to commit.
    pub commits: Receiver<Commit>,
    /// Where "committed" is said.
    pub inbox: Arc<Inbox>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The log.
    pub log: Logger,
}

impl BackendThread {
    /// Runs until the node is gone.
    pub fn run(self) {
        while let Ok(commit) = self.commits.recv() {
            let (index, revision) = (commit.index, commit.revision);
            if let Err(error) = self.commit(commit) {
                // The WAL still holds everything: a restart with room on the disk loses nothing.
                log_error!(self.log, "failed to commit the backend", "error" => error.to_string());
                process::exit(1);
            }
            self.inbox.push(Command::Committed { index, revision });
        }
    }

    fn commit(&self, mut commit: Commit) -> io::Result<()> {
        let began = Instant::now();
        self.backend.commit(&mut commit.batch)?;
        self.metrics.backend_committed(began.elapsed());
        match &commit.snapshot {
            Some(snapshot) => self.save(snapshot),
            None => Ok(()),
        }
    }

    fn save(&self, snapshot: &SaveSnapshot) -> io::Result<()> {
        let began = Instant::now();
        let data = snap::encode_v2(&snapshot.members, snapshot.version);
        let SaveSnapshot { index, term, conf_state, .. } = snapshot;
        snap::save(self.disk.as_ref(), &self.snap_dir, *index, *term, conf_state, data)?;
        self.metrics.snapshot_saved(began.elapsed());
        log_info!(self.log, "saved snapshot", "snapshot-index" => *index);
        snap::purge(self.disk.as_ref(), &self.snap_dir, SNAPSHOTS).map(drop)
    }
}
