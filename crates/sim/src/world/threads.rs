//! What the threads of a process do, as the server's do it: the node's, the WAL's, the B+tree's, and the one that
//! makes segments ready. Each step takes its time, and whatever lies between two steps may be the last that
//! the process did. Not here: requests (`door`) and streams.

use std::sync::Arc;

use etch_api::Error;
use etch_api::internal::Header;
use etch_api::pb::raftpb;
use etch_disk::backend::Backend as _;
use etch_disk::snap::{self, MemberRecord};
use etch_node::{Message, MessageType, Note, SaveSnapshot};
use etch_state::Reply;

use super::member::{Caller, Command, Taken};
use super::network::Place;
use super::{Event, World};
use crate::params::MS;

/// A flush of the log covers about this much.
const FLUSH_BYTES: usize = 4 << 20;
/// Steps of a turn that take so long, in one of so many cases.
const SLOW_TURN: (u64, u64) = (20 * MS, 2);

impl World {
    /// The node's thread is to run as soon as it can.
    pub(super) fn wake_node(&mut self, member: usize) {
        let mut delay = self.rng.delay(self.params.delays.wake);
        if self.rng.chance(SLOW_TURN.1) {
            delay += self.rng.below(SLOW_TURN.0);
        }
        self.turn_at(member, self.now + delay);
    }

    fn turn_at(&mut self, member: usize, at: u64) {
        let m = &mut self.members[member];
        let epoch = m.epoch;
        let Some(process) = &mut m.process else { return };
        if process.turn_at.is_none_or(|planned| planned > at) {
            process.turn_at = Some(at);
            self.at(at, Event::Turn { member, epoch });
        }
    }

    pub(super) fn tell(&mut self, member: usize, command: Command) {
        if let Some(process) = &mut self.members[member].process {
            process.inbox.push(command);
            self.wake_node(member);
        }
    }

    /// One turn of the node's thread.
    pub(super) fn turn(&mut self, member: usize) {
        let m = &mut self.members[member];
        let now_ms = m.now_ms(self.now);
        let Some(process) = &mut m.process else { return };
        // A turn that was planned for later and came earlier.
        if process.turn_at.is_none_or(|at| at > self.now) {
            return;
        }
        process.turn_at = None;
        let node = &mut process.node;
        node.advance(now_ms);
        for command in process.inbox.drain(..) {
            let nobody = Header::default();
            match command {
                Command::Propose(kind, body, caller) => {
                    node.propose(&nobody, kind, &body, Some(caller));
                }
                Command::ProposePhysical(body, caller) => {
                    node.propose_physical_compaction(&nobody, &body, caller);
                }
                Command::Read(caller) => node.read(caller),
                Command::LogWritten(sequence) => node.log_written(sequence),
                Command::Committed(index, revision) => node.committed(index, revision),
                Command::CommitAll(caller) => node.commit_all(caller),
            }
        }
        node.turn(&mut process.out);
        let wake = node.wake_at().saturating_sub(now_ms).max(1) * MS;
        self.hand_out(member);
        self.turn_at(member, self.now + wake);
    }

    fn hand_out(&mut self, member: usize) {
        self.note_applied(member);
        let m = &mut self.members[member];
        let epoch = m.epoch;
        let Some(process) = &mut m.process else { return };
        let out = std::mem::take(&mut process.out);
        let node_changed = out.applied.iter().map(|(.., count)| count).sum();
        self.stats.add("requests applied", node_changed);
        for write in out.log {
            m.handed.append(&write.batch.entries);
            process.writes.push_back(write);
        }
        if let Some(commit) = out.commit {
            process.commit = Some(commit);
            let delay = self.disk_delay(member, self.params.delays.commit);
            self.after(delay, Event::Commit { member, epoch });
        }
        self.wake_log(member);
        for message in out.messages {
            self.send_raft(member, message);
        }
        for (caller, outcome) in out.replies {
            self.node_answers(member, caller, outcome);
        }
        for note in &out.notes {
            if let Note::Leader(leader, term) = note {
                let leader = self.members.iter().position(|m| m.row.id == *leader);
                self.note(|| match leader {
                    Some(leader) => format!("member {member} follows {leader} in term {term}"),
                    None => format!("member {member} has no leader in term {term}"),
                });
            }
            self.stats.count(match note {
                Note::Leader(..) => "changes of leader",
                Note::SnapshotSaved(_) => "raft snapshots",
                Note::CompactionStep(_) => "steps of compactions",
                Note::Compacted(_) => "compactions finished",
                Note::QuotaExceeded => "quotas exceeded",
                Note::CompactionHashLost(_) => "compactions without a hash",
                Note::ClusterVersion(_) | Note::ConfChange(..) | Note::Removed => "other notes",
            });
        }
        self.ring_streams(member);
        self.retry_renewals(member);
    }

    /// What was applied goes into the record, where every other member's must agree with it.
    fn note_applied(&mut self, member: usize) {
        let m = &mut self.members[member];
        let Some(process) = &mut m.process else { return };
        let (from, to) = (process.applied + 1, process.node.view().applied());
        process.applied = to;
        for index in from..=to {
            let noted = match m.handed.get(index) {
                Some(entry) => self.record.applied(index, entry, self.now),
                None => Err(format!("entry {index} is applied and was never in the log")),
            };
            if let Err(why) = noted {
                return self.violation(format!("member {member}: {why}"));
            }
        }
    }

    fn node_answers(&mut self, member: usize, caller: Caller, outcome: Result<Reply, Error>) {
        match caller {
            Caller::Operation(operation) => self.node_answered(member, operation, outcome),
            Caller::Publish if outcome.is_err() => {
                self.publish(member);
                self.wake_node(member);
            }
            Caller::Publish => {
                if let Some(process) = &mut self.members[member].process {
                    process.serving = true;
                }
                self.observe(member);
            }
            Caller::Keeper => {}
        }
    }

    fn wake_log(&mut self, member: usize) {
        let delay = self.rng.delay(self.params.delays.wake);
        let delay = delay + self.disk_delay(member, self.params.delays.write);
        let m = &mut self.members[member];
        let epoch = m.epoch;
        let Some(process) = &mut m.process else { return };
        if !process.log_busy && !process.writes.is_empty() {
            process.log_busy = true;
            self.after(delay, Event::LogWrite { member, epoch });
        }
    }

    /// The WAL's thread takes what waits, up to a flush, and writes it.
    pub(super) fn log_write(&mut self, member: usize) {
        let delay = self.disk_delay(member, self.params.delays.sync);
        let m = &mut self.members[member];
        let epoch = m.epoch;
        let Some(process) = &mut m.process else { return };
        let mut taken = Taken::default();
        let (mut bytes, mut result) = (0, Ok(()));
        while bytes < FLUSH_BYTES && result.is_ok() {
            let Some(write) = process.writes.pop_front() else { break };
            taken.sequence = write.sequence;
            bytes += write.batch.entries.iter().map(|e| e.data().len()).sum::<usize>();
            result = process.wal.append(&write.batch);
            if let (Ok(()), Some((index, term, conf_state))) = (&result, &write.snapshot) {
                result = process.wal.save_snapshot(*index, *term, conf_state);
                taken.snapshot = Some(*index);
            }
        }
        process.taken = Some(taken);
        if result.and_then(|()| process.wal.flush()).is_err() {
            self.storage_failed(member);
            return;
        }
        self.after(delay, Event::LogSync { member, epoch });
    }

    /// The WAL's thread flushes, says so, and removes what nobody needs any more.
    pub(super) fn log_sync(&mut self, member: usize) {
        let max_wals = self.params.max_wals;
        let m = &mut self.members[member];
        let Some(process) = &mut m.process else { return };
        let taken = process.taken.take().unwrap_or_default();
        if process.wal.sync().is_err() {
            self.storage_failed(member);
            return;
        }
        process.log_busy = false;
        process.inbox.push(Command::LogWritten(taken.sequence));
        let released = taken.snapshot.map_or(Ok(()), |index| {
            let oldest = process.snapshots.oldest_index().ok().flatten().unwrap_or(index);
            process.wal.release_to(oldest.min(index));
            process.wal.purge(max_wals).map(drop)
        });
        if released.is_err() {
            self.storage_failed(member);
            return;
        }
        self.stats.count("flushes of the log");
        self.wake_node(member);
        self.wake_log(member);
    }

    /// The B+tree's thread commits.
    pub(super) fn commit(&mut self, member: usize) {
        let delay = self.disk_delay(member, self.params.delays.sync);
        let m = &mut self.members[member];
        let epoch = m.epoch;
        let Some(process) = &mut m.process else { return };
        let Some(commit) = &mut process.commit else { return };
        if process.backend.commit(&mut commit.batch).is_err() {
            self.storage_failed(member);
            return;
        }
        self.stats.count("commits of the B+tree");
        if commit.snapshot.is_some() {
            self.after(delay, Event::SaveSnapshot { member, epoch });
        } else {
            self.committed(member);
        }
    }

    /// The B+tree's thread saves the raft snapshot that goes with the commit.
    pub(super) fn save_snapshot(&mut self, member: usize) {
        let Some(process) = &mut self.members[member].process else { return };
        let saved = process.commit.as_ref().and_then(|c| c.snapshot.as_ref()).map(raft_snapshot);
        let result = saved.map_or(Ok(()), |file| {
            process.snapshots.save(&file)?;
            process.snapshots.purge(snap::KEEP).map(drop)
        });
        match result {
            Ok(()) => self.committed(member),
            Err(_) => drop(self.storage_failed(member)),
        }
    }

    fn committed(&mut self, member: usize) {
        let Some(process) = &mut self.members[member].process else { return };
        if let Some(commit) = process.commit.take() {
            self.tell(member, Command::Committed(commit.index, commit.revision));
        }
    }

    /// One step of a defragmentation, beside commits.
    pub(super) fn shrink(&mut self, member: usize, operation: usize) {
        let pages = self.rng.pick(&[1, 4, 256]);
        let delay = self.disk_delay(member, self.params.delays.commit);
        let m = &mut self.members[member];
        let epoch = m.epoch;
        let Some(process) = &mut m.process else { return };
        let backend = Arc::clone(&process.backend);
        match backend.shrink(pages) {
            Ok(shrunk) if shrunk.more => {
                self.after(delay, Event::Shrink { member, epoch, operation });
            }
            Ok(_) => self.defragmented(member, operation, Ok(())),
            Err(_) if m.doom.is_some() => drop(self.storage_failed(member)),
            Err(error) => self.defragmented(member, operation, Err(error.to_string())),
        }
    }

    /// How long a disk takes for something.
    fn disk_delay(&mut self, member: usize, mean: u64) -> u64 {
        let delay = self.rng.delay(mean);
        let slow = self.members[member].disk_slow_until > self.now;
        let spike = !self.healed && self.rng.chance(self.params.delays.disk_spikes);
        if slow || spike { delay * 100 } else { delay }
    }

    fn send_raft(&mut self, member: usize, message: Message) {
        let Some(to) = self.members.iter().position(|m| m.row.id == message.to) else { return };
        self.stats.count("messages between members");
        let mut copies = self.network.send(Place::Member(member), Place::Member(to));
        // Raft takes everything twice but a proposal that a follower hands on: of it there would be two
        // entries. A transport must not repeat that, as etcd's does not.
        if message.get_msg_type() == MessageType::MsgPropose {
            copies.truncate(1);
        }
        for delay in copies {
            self.after(delay, Event::Raft { member: to, message: Box::new(message.clone()) });
        }
    }

    pub(super) fn raft_arrives(&mut self, member: usize, message: Message) {
        let m = &mut self.members[member];
        if m.paused_until > self.now {
            let at = m.paused_until;
            return self.at(at, Event::Raft { member, message: Box::new(message) });
        }
        if let Some(process) = &mut m.process {
            process.node.step(message);
            self.wake_node(member);
        }
    }
}

fn raft_snapshot(saved: &SaveSnapshot) -> raftpb::Snapshot {
    let record = |member: &etch_state::members::Member| MemberRecord {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: member.client_urls.clone(),
    };
    let members: Vec<MemberRecord> = saved.members.iter().map(record).collect();
    let version = saved.version.map(|v| v.to_string());
    let data = snap::encode_v2(&members, &saved.removed, version.as_deref());
    raftpb::Snapshot::of(saved.index, saved.term, saved.conf_state.clone(), data)
}
