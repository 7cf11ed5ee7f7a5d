//! A member: its disk, which outlives everything, and its process, which does not. Here: how a process starts
//! and ends, in all the ways in which it may end. Not here: what its threads do (`threads`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use etch_api::internal::RequestKind;
use etch_api::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use etch_api::wire::HeaderTemplate;
use etch_disk::backend::Bolt;
use etch_disk::fs::Disk;
use etch_disk::fs::mem::{Crash, MemDisk};
use etch_disk::snap::Snapshotter;
use etch_disk::wal::{self, Wal};
use etch_node::{Commit, Config, LogWrite, Node, Output, Recovered, Recovery};
use etch_state::members::Member as Row;
use etch_state::watch::{Doorbell, Wake};
use prost::Message as _;

use super::flip::Flip;
use super::record::Handed;
use super::{Event, World};
use crate::params::MS;

/// Whom the node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An operation of a client's.
    Operation(usize),
    /// The member itself, which makes its name known before it serves.
    Publish,
    /// The keeper of the world, who clears alarms.
    Keeper,
}

/// What the node's thread is told.
#[derive(Debug)]
pub enum Command {
    Propose(RequestKind, Bytes, Caller),
    ProposePhysical(Bytes, Caller),
    Read(Caller),
    LogWritten(u64),
    Committed(u64, i64),
    CommitAll(Caller),
}

/// What a failing call to storage means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doom {
    /// The power has failed.
    Power(u64),
    /// The process was killed within the call.
    Kill,
    /// The disk said no, once.
    Error,
}

/// A member.
pub struct Member {
    pub row: Row,
    pub disk: MemDisk,
    /// Which life of the process this is, or was.
    pub epoch: u64,
    pub process: Option<Process>,
    pub paused_until: u64,
    /// By how much the member's clock is ahead of the world's.
    pub clock_ahead_ms: u64,
    pub doom: Option<Doom>,
    /// The disk is full at present.
    pub is_full: bool,
    pub disk_slow_until: u64,
    /// A bit that was flipped while the member was down.
    pub flipped: Option<Flip>,
    pub handed: Handed,
}

/// What a WAL's flush will make durable.
#[derive(Debug, Default)]
pub struct Taken {
    pub sequence: u64,
    pub snapshot: Option<u64>,
}

/// A process, with what its threads own.
pub struct Process {
    pub node: Node<Caller>,
    pub out: Output<Caller>,
    pub inbox: Vec<Command>,
    /// When the node's thread runs next.
    pub turn_at: Option<u64>,
    pub began: u64,
    pub serving: bool,
    pub applied: u64,
    pub wal: Wal,
    pub writes: VecDeque<LogWrite>,
    pub taken: Option<Taken>,
    pub log_busy: bool,
    pub backend: Arc<Bolt>,
    pub commit: Option<Commit>,
    pub snapshots: Snapshotter,
    pub header: HeaderTemplate,
    pub doorbell: Arc<Doorbell>,
    pub rung: Arc<Rung>,
    pub renewals: Arc<Renewals>,
}

/// The bell of the thread that the streams are on.
#[derive(Default)]
pub struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Rung {
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// Renewals of leases that wait until the lease is revoked, and may be tried again.
#[derive(Default)]
pub struct Renewals(Mutex<Vec<usize>>);

impl Renewals {
    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn waiter(self: &Arc<Self>, operation: usize) -> Arc<dyn Wake> {
        Arc::new(Waiter(Arc::clone(self), operation))
    }
}

struct Waiter(Arc<Renewals>, usize);

impl Wake for Waiter {
    fn wake(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.1);
    }
}

/// What a refusal says where a call to storage failed, and where the disk is full.
const CALL_FAILED: &str = "other error";
const NO_ROOM: &str = "no storage space";

const WAL_DIR: &str = "/data/member/wal";
const SNAP_DIR: &str = "/data/member/snap";

impl World {
    pub(super) fn add_members(&mut self) {
        for number in 0..self.params.members {
            let url = format!("http://10.0.0.{number}:2380");
            self.members.push(Member {
                row: Row::new(&format!("m{number}"), &[url], "world", None),
                disk: MemDisk::new(),
                epoch: 1,
                process: None,
                paused_until: 0,
                clock_ahead_ms: 0,
                doom: None,
                is_full: false,
                disk_slow_until: 0,
                flipped: None,
                handed: Handed::default(),
            });
            let delay = self.rng.below(20 * MS);
            self.after(delay, Event::Start { member: number, epoch: 1 });
        }
    }

    fn recovery(&self, member: usize) -> Recovery {
        let others = self.members.iter().enumerate().filter(|(n, _)| *n != member);
        Recovery {
            wal_dir: WAL_DIR.into(),
            snap_dir: SNAP_DIR.into(),
            new_member: self.members[member].row.clone(),
            others: others.map(|(_, m)| m.row.clone()).collect(),
            claimed: None,
            may_create: true,
            force_new_cluster: false,
            wal: self.params.wal,
            backend: self.params.backend.clone(),
            state: self.params.state.clone(),
        }
    }

    /// A process starts: it recovers what is on the disk, or ends at once.
    pub(super) fn start(&mut self, member: usize, epoch: u64) {
        let m = &self.members[member];
        if m.epoch != epoch || m.process.is_some() {
            return;
        }
        self.stats.count("starts");
        self.history.starts.push((m.row.id, self.now));
        let door: Arc<dyn Disk> = Arc::new(m.disk.clone());
        match self.recovery(member).open(&door) {
            Ok(recovered) => self.run_process(member, recovered, door),
            Err(error) => self.refused_start(member, &error.to_string()),
        }
    }

    fn refused_start(&mut self, member: usize, why: &str) {
        self.note(|| format!("member {member} does not start: {why}"));
        let m = &mut self.members[member];
        // Each fault excuses the refusal that speaks of it, and none else.
        if m.doom.is_some() && why.contains(CALL_FAILED) && self.storage_failed(member) {
            return;
        }
        let m = &mut self.members[member];
        if let Some(flip) = m.flipped.take_if(|flip| flip.explains(&m.disk, why)) {
            self.stats.count("starts refused for a flipped bit");
            m.disk.set_fault(None);
            if let Err(error) = flip.undo(&m.disk) {
                return self.violation(format!("member {member}: a file is gone: {error}"));
            }
        } else if m.is_full && why.contains(NO_ROOM) {
            self.stats.count("starts refused for a full disk");
        } else {
            return self.violation(format!("member {member} refuses to start: {why}"));
        }
        self.plan_start(member);
    }

    pub(super) fn plan_start(&mut self, member: usize) {
        let delay = self.rng.between(10, 1000) * MS;
        self.members[member].epoch += 1;
        let epoch = self.members[member].epoch;
        self.after(delay, Event::Start { member, epoch });
    }

    fn run_process(&mut self, member: usize, recovered: Recovered, door: Arc<dyn Disk>) {
        let Recovered { identity, member: parts, wal, backend, torn, .. } = recovered;
        if torn.is_some() {
            self.stats.count("torn tails cut");
        }
        self.note(|| format!("member {member} starts; torn: {torn:?}"));
        let (applied, snapshot_index) = (parts.state.index(), parts.snapshot_index);
        let revision = parts.state.store().revision();
        if let Err(why) = self.check_files(member, door.as_ref(), applied, snapshot_index) {
            return self.violation(format!("member {member} after a restart: {why}"));
        }
        let seed = self.rng.number();
        let config = Config { id: identity.member, seed, ..self.params.node.clone() };
        let node = Node::new(config, parts, self.now / MS);
        let rung = Arc::new(Rung::default());
        let process = Process {
            node,
            out: Output::default(),
            inbox: Vec::new(),
            turn_at: None,
            began: self.now,
            serving: false,
            applied,
            wal,
            writes: VecDeque::new(),
            taken: None,
            log_busy: false,
            backend,
            commit: None,
            snapshots: Snapshotter::new(door, SNAP_DIR.as_ref()),
            header: HeaderTemplate::new(identity.cluster, identity.member),
            doorbell: Doorbell::new(Arc::clone(&rung) as Arc<dyn Wake>),
            rung,
            renewals: Arc::default(),
        };
        debug_assert!(revision >= 1);
        self.members[member].process = Some(process);
        self.publish(member);
        self.wake_node(member);
    }

    /// The member's files, looked at from outside: the log must hold what was committed, and the B+tree must
    /// hold nothing else.
    fn check_files(
        &mut self,
        member: usize,
        disk: &dyn Disk,
        applied: u64,
        snapshot_index: u64,
    ) -> Result<(), String> {
        if applied > self.record.last() {
            return Err(format!(
                "the B+tree holds entries up to {applied}, which nobody has committed"
            ));
        }
        let text = |e: wal::WalError| e.to_string();
        let newest = wal::valid_snapshots(disk, WAL_DIR.as_ref()).map_err(text)?.pop();
        let at = newest.unwrap_or_else(|| etch_api::pb::walpb::Snapshot::of(0, 0, None));
        let found = wal::read(disk, WAL_DIR.as_ref(), &at).map_err(text)?;
        let m = &mut self.members[member];
        m.handed.replace(snapshot_index + 1, &found.entries);
        // What a lone member has applied, it has promised. Of several each may have forgotten what a
        // majority still has.
        let to = if self.params.members == 1 { self.record.last() } else { applied };
        self.record.check(&m.handed, snapshot_index + 1, to)
    }

    /// The member makes its name known; once that is applied, it serves.
    pub(super) fn publish(&mut self, member: usize) {
        let m = &mut self.members[member];
        let Some(process) = &mut m.process else { return };
        let attributes = Attributes {
            name: m.row.name.clone(),
            client_urls: vec!["http://10.0.0.1:2379".into()],
        };
        let request = ClusterMemberAttrSetRequest {
            member_id: m.row.id,
            member_attributes: Some(attributes),
        };
        let body = Bytes::from(request.encode_to_vec());
        process.inbox.push(Command::Propose(
            RequestKind::ClusterMemberAttrSet,
            body,
            Caller::Publish,
        ));
    }

    /// A call to storage has failed: the process is over, one way or another. True if that was planned.
    pub(super) fn storage_failed(&mut self, member: usize) -> bool {
        let m = &mut self.members[member];
        let doom = m.doom.take();
        self.note(|| format!("member {member}: a call to storage fails, {doom:?}"));
        let m = &mut self.members[member];
        match doom {
            Some(Doom::Power(seed)) => self.power_lost(member, Crash::Seed(seed)),
            Some(Doom::Kill) => self.kill(member),
            // After an error nobody knows what the kernel still holds: the machine is started anew.
            Some(Doom::Error) => {
                let seed = self.rng.number();
                self.power_lost(member, Crash::Seed(seed));
            }
            None if m.is_full => self.kill(member),
            None => {
                self.violation(format!("member {member}: a call to storage failed by itself"));
                return false;
            }
        }
        true
    }

    /// The process is gone; what it wrote is in the kernel.
    pub(super) fn kill(&mut self, member: usize) {
        self.end_process(member);
        self.members[member].disk.set_fault(None);
        self.plan_start(member);
    }

    /// The machine is gone, and with it what was not flushed.
    pub(super) fn power_lost(&mut self, member: usize, how: Crash) {
        self.end_process(member);
        let m = &mut self.members[member];
        m.disk = m.disk.crash(how);
        m.is_full = false;
        self.plan_start(member);
    }

    fn end_process(&mut self, member: usize) {
        let m = &mut self.members[member];
        m.epoch += 1;
        m.doom = None;
        m.paused_until = 0;
        let was = m.process.take();
        self.cut_streams(member);
        self.cut_operations(member);
        if was.is_some() {
            self.stats.count("processes ended by a fault");
        }
    }

    /// The end of the world: everything goes in order.
    pub(super) fn end_members(&mut self) {
        for member in 0..self.members.len() {
            self.cut_streams(member);
            self.cut_operations(member);
            self.members[member].process = None;
        }
    }
}

impl Member {
    /// The process's own clock, which begins at 1 as the server's does.
    pub fn now_ms(&self, now: u64) -> u64 {
        let began = self.process.as_ref().map_or(now, |p| p.began);
        (now - began) / MS + 1 + self.clock_ahead_ms
    }
}
