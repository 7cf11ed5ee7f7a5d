//! The B+tree's own thread: one commit at a time, and the raft snapshot that goes with it. Not here: when to
//! commit (`etch_node`), and the file (`etch_disk::backend`).

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use etch_api::pb::raftpb;
use etch_disk::backend::{Backend, Bolt};
use etch_disk::snap::{self, MemberRecord, Snapshotter};
use etch_node::{Commit, SaveSnapshot};
use etch_state::members::Member;

use super::inbox::{Command, Inbox};
use crate::logging::Logger;
use crate::metrics::Metrics;
use crate::{log_error, log_info};

/// What the thread works with.
pub struct BackendThread {
    /// The B+tree.
    pub backend: Arc<Bolt>,
    /// Where raft snapshots go.
    pub snapshots: Snapshotter,
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
        let version = snapshot.version.map(|v| v.to_string());
        let members: Vec<MemberRecord> = snapshot.members.iter().map(record).collect();
        let data = snap::encode_v2(&members, &snapshot.removed, version.as_deref());
        let SaveSnapshot { index, term, conf_state, .. } = snapshot;
        let file = raftpb::Snapshot::of(*index, *term, conf_state.clone(), data);
        let encoded = Instant::now();
        self.snapshots.save(&file).map_err(io::Error::other)?;
        self.metrics.snapshot_saved(encoded - began, encoded.elapsed());
        log_info!(self.log, "saved snapshot", "snapshot-index" => *index);
        self.snapshots.purge(snap::KEEP).map(drop).map_err(io::Error::other)
    }
}

fn record(member: &Member) -> MemberRecord {
    MemberRecord {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: member.client_urls.clone(),
    }
}
