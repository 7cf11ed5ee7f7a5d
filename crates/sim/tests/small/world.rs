//! One member over a disk in memory, driven as the server's threads drive it, one step at a time; and the
//! model of what its clients were told. Not here: which steps, and which crashes.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{Header, RequestKind};
use etch_api::pb::etcdserverpb::{AlarmType, RangeRequest, RangeResponse};
use etch_api::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use etch_api::pb::raftpb;
use etch_disk::backend::{self, Backend, Bolt};
use etch_disk::fs::Disk;
use etch_disk::fs::mem::MemDisk;
use etch_disk::snap::{self, MemberRecord, Snapshotter};
use etch_disk::wal::{self, Wal};
use etch_node::{Commit, Config, Node, Output, Recovered, Recovery, SaveSnapshot};
use etch_state::lease::LessorConfig;
use etch_state::members::Member;
use etch_state::{Reply, State, StateConfig};
use prost::Message as _;

use crate::crash::Watched;
use crate::model::{Model, Request, Seen};

/// A segment of the log: a few large requests fill it.
pub const SEGMENT: u64 = 8192;
/// Entries between two raft snapshots.
const SNAPSHOT_COUNT: u64 = 12;
/// Raft snapshots kept.
const SNAPSHOTS: usize = 2;

/// Whatever waits for an answer in these tests.
type Caller = usize;

/// A member, its files, and what it said.
pub struct World {
    pub disk: Watched,
    pub node: Node<Caller>,
    pub wal: Wal,
    pub backend: Arc<Bolt>,
    snapshots: Snapshotter,
    out: Output<Caller>,
    now_ms: u64,
    /// A write that the log's file has and the device may not have yet.
    unflushed: Option<u64>,
    /// What is right after each request so far, from the start on.
    pub models: Vec<Model>,
    /// How many requests were answered.
    pub answered: usize,
    /// The newest revision that could be read.
    floor: i64,
    /// What power failures would have left, with what was known then.
    crashed: Vec<(Rc<Known>, MemDisk)>,
}

/// What the clients of a member know.
pub struct Known {
    /// What is right after each request that may have been carried out, oldest first. The first is what was
    /// acknowledged.
    pub models: Vec<Model>,
    /// The revision that could be read.
    pub revision: i64,
}

impl Known {
    /// Everything is known.
    pub fn all(model: &Model) -> Known {
        Known { models: vec![model.clone()], revision: model.revision }
    }
}

pub fn wal_dir() -> PathBuf {
    PathBuf::from("/data/member/wal")
}

pub fn snap_dir() -> PathBuf {
    PathBuf::from("/data/member/snap")
}

pub fn recovery() -> Recovery {
    Recovery {
        wal_dir: wal_dir(),
        snap_dir: snap_dir(),
        new_member: Member::new("one", &["http://127.0.0.1:2380".into()], "token", None),
        others: Vec::new(),
        claimed: None,
        may_create: true,
        force_new_cluster: false,
        wal: wal::Options { segment_bytes: SEGMENT, fill: 1024 },
        backend: backend::Options { page_size: 1024, grow: 16 << 10 },
        state: StateConfig {
            quota_bytes: 0,
            leases: LessorConfig::default(),
            persist_checkpoints: false,
        },
    }
}

fn config(id: u64) -> Config {
    Config {
        id,
        heartbeat_ms: 100,
        election_ms: 1000,
        pre_vote: true,
        snapshot_count: SNAPSHOT_COUNT,
        catchup_entries: 5,
        max_request_bytes: 1 << 20,
        request_timeout_ms: 7000,
        compaction_batch: 2,
        compaction_pause_ms: 10,
        // Only when a test wants one, or a raft snapshot is due.
        commit_interval_ms: 3_600_000,
        commit_changes: 10_000,
        seed: 7,
    }
}

impl World {
    /// Opens whatever the disk holds, and lets the member become leader. An error says why it would not, or
    /// what is not as the clients know it.
    pub fn open(disk: Watched, known: &Known) -> Result<World, String> {
        let door: Arc<dyn Disk> = Arc::new(disk.clone());
        let Recovered { identity, member, wal, backend, .. } =
            recovery().open(&door).map_err(|e| e.to_string())?;
        // Later starts give out later ids.
        let start_ms = 1_000_000 + disk.disk.calls() * 1000;
        let mut world = World {
            node: Node::new(config(identity.member), member, start_ms),
            snapshots: Snapshotter::new(door, &snap_dir()),
            disk,
            wal,
            backend,
            out: Output::default(),
            now_ms: 1,
            unflushed: None,
            models: known.models.clone(),
            answered: 0,
            floor: known.revision,
            crashed: Vec::new(),
        };
        for _ in 0..20 {
            world.step();
            if world.node.view().is_lone_leader() {
                return world.compare(known);
            }
        }
        Err("the member does not become leader".into())
    }

    /// Finds out which of the requests of unknown outcome were carried out: from here on it is known.
    fn compare(mut self, known: &Known) -> Result<World, String> {
        self.collect();
        let revision = self.node.state().store().revision();
        if revision < known.revision {
            return Err(format!("the revision fell from {} to {revision}", known.revision));
        }
        let seen = self.seen();
        let found = known.models.iter().position(|m| m.seen() == seen);
        let Some(found) = found else {
            let last = known.models.len() - 1;
            return Err(format!(
                "neither what was acknowledged nor anything up to what was asked:\n  found: {seen:?}\n  \
                 acknowledged: {:?}\n  asked: {:?}",
                known.models[0].seen(),
                known.models[last].seen()
            ));
        };
        self.models = vec![known.models[found].clone()];
        Ok(self)
    }

    /// What the clients know now.
    pub fn known(&self) -> Known {
        let revision = self.floor.max(self.node.state().store().revision());
        Known { models: self.models[self.answered..].to_vec(), revision }
    }

    /// Takes in what power failures since the last call would have left. Nobody is answered between two calls.
    fn collect(&mut self) {
        let crashes = self.disk.crashes();
        if !crashes.is_empty() {
            let known = Rc::new(self.known());
            self.crashed.extend(crashes.into_iter().map(|disk| (Rc::clone(&known), disk)));
        }
    }

    /// What power failures would have left up to now, with what was known at each.
    pub fn crashes(&mut self) -> Vec<(Rc<Known>, MemDisk)> {
        self.collect();
        std::mem::take(&mut self.crashed)
    }

    /// The process ends; the member starts again on what is left.
    pub fn restart(mut self, left: MemDisk) -> Result<World, String> {
        let known = self.known();
        let crashed = self.crashes();
        let disk = Watched::new(left);
        if let Some(ways) = self.disk.ways() {
            disk.start(ways);
        }
        drop(self);
        let mut world = World::open(disk, &known)?;
        world.crashed.splice(..0, crashed);
        Ok(world)
    }

    /// A member that has told the cluster its name and holds a few keys and one lease. Its B+tree's file is
    /// mostly free pages, with live ones at the end, as it is after a compaction.
    pub fn new() -> World {
        let disk = Watched::new(MemDisk::new());
        let mut world = World::open(disk, &Known::all(&Model::default())).expect("a new directory");
        let id = world.node.state().members().iter().next().map(|m| m.id).expect("one member");
        let attributes = ClusterMemberAttrSetRequest {
            member_id: id,
            member_attributes: Some(Attributes {
                name: "one".into(),
                client_urls: vec!["http://127.0.0.1:2379".into()],
            }),
        };
        let body = attributes.encode_to_vec();
        world.node.propose(&Header::default(), RequestKind::ClusterMemberAttrSet, &body, None);
        world.put("always", b"here".to_vec());
        for key in ["a", "b", "c"] {
            world.put(key, key.as_bytes().to_vec());
        }
        world.put("a", b"again".to_vec());
        world.ask(Request::Grant(5));
        world.ask(Request::Put { key: "leased", value: b"x".to_vec(), lease: 5 });
        world.commit();
        world.fragment();
        world.save_snapshot();
        world.commit();
        let last = world.models.len() - 1;
        world.models.drain(..last);
        world.answered = 0;
        world
    }

    fn fragment(&mut self) {
        for n in 0..14 {
            self.put("b", vec![n; 6000]);
            self.commit();
        }
        self.ask(Request::Compact(self.model().revision));
        self.put("b", b"short".to_vec());
        for _ in 0..20 {
            self.step();
        }
        self.commit();
        self.put("c", vec![9; 1000]);
    }

    pub fn model(&self) -> &Model {
        self.models.last().expect("never empty")
    }

    /// Proposes a request.
    pub fn propose(&mut self, request: Request) {
        let (kind, body) = request.encode();
        let mut next = self.model().clone();
        next.apply(&request);
        self.models.push(next);
        let caller = self.models.len() - 1;
        self.node.propose(&Header::default(), kind, &body, Some(caller));
    }

    /// Proposes a request, and waits for its answer.
    pub fn ask(&mut self, request: Request) {
        self.propose(request);
        self.rest();
    }

    pub fn put(&mut self, key: &'static str, value: Vec<u8>) {
        self.ask(Request::Put { key, value, lease: 0 });
    }

    /// Everything applied goes into the B+tree.
    pub fn commit(&mut self) {
        if !self.node.is_settled() {
            self.node.hurry_commit();
        }
        self.rest();
        self.rest();
    }

    /// Goes on until everybody is answered.
    pub fn rest(&mut self) {
        for _ in 0..3 {
            self.step();
        }
        assert_eq!(self.answered, self.models.len() - 1, "somebody waits in vain");
    }

    /// A turn, and all that the world owes after it.
    pub fn step(&mut self) {
        self.turn();
        self.flush();
        self.write_tree();
    }

    /// One turn of the node; what it says is held against the model.
    pub fn turn(&mut self) {
        self.collect();
        self.now_ms += 10;
        self.node.advance(self.now_ms);
        self.node.turn(&mut self.out);
        for (caller, answer) in std::mem::take(&mut self.out.replies) {
            self.answered += 1;
            assert_eq!(caller, self.answered, "answers come in order");
            self.check_answer(caller, &answer);
        }
    }

    fn check_answer(&self, caller: usize, answer: &Result<Reply, Error>) {
        if let Ok(reply) = answer {
            assert_eq!(reply.revision, self.models[caller].revision, "an answer's revision");
        }
        // A refused request changes nothing, a granted one that changes nothing (a delete of no key) is rare:
        // what must hold is that the member and the model agree, which the comparison of both says.
    }

    /// Appends what was handed out without making it durable.
    pub fn write_log(&mut self) {
        for write in self.out.log.drain(..) {
            self.wal.append(&write.batch).expect("there is room");
            if let Some((index, term, conf_state)) = &write.snapshot {
                self.wal.save_snapshot(*index, *term, conf_state).expect("there is room");
                let oldest = self.snapshots.oldest_index().expect("there").unwrap_or(*index);
                self.wal.release_to(oldest.min(*index));
                self.wal.purge(1).expect("there is room");
            }
            self.unflushed = Some(write.sequence);
        }
        self.wal.flush().expect("there is room");
    }

    /// Makes the log durable.
    pub fn flush(&mut self) {
        self.write_log();
        if let Some(sequence) = self.unflushed.take() {
            self.wal.sync().expect("the disk flushes");
            self.node.log_written(sequence);
        }
    }

    /// Does the commit of the B+tree that was handed out.
    pub fn write_tree(&mut self) {
        let Some(mut commit) = self.out.commit.take() else { return };
        self.backend.commit(&mut commit.batch).expect("there is room");
        if let Some(snapshot) = &commit.snapshot {
            self.save(snapshot);
        }
        self.node.committed(commit.index, commit.revision);
    }

    fn save(&self, snapshot: &SaveSnapshot) {
        let record = |m: &Member| MemberRecord {
            id: m.id,
            peer_urls: m.peer_urls.clone(),
            is_learner: m.is_learner,
            name: m.name.clone(),
            client_urls: m.client_urls.clone(),
        };
        let members: Vec<_> = snapshot.members.iter().map(record).collect();
        let version = snapshot.version.map(|v| v.to_string());
        let data = snap::encode_v2(&members, &snapshot.removed, version.as_deref());
        let conf_state = snapshot.conf_state.clone();
        let file = raftpb::Snapshot::of(snapshot.index, snapshot.term, conf_state, data);
        self.snapshots.save(&file).expect("there is room");
        self.snapshots.purge(SNAPSHOTS).expect("there is room");
    }

    /// Shrinks the B+tree's file as far as it goes, and says how many pages were moved.
    pub fn defragment(&mut self) -> u64 {
        self.commit();
        let mut moved = 0;
        loop {
            let step = self.backend.shrink(2).expect("there is room");
            moved += step.moved;
            if !step.more {
                return moved;
            }
        }
    }

    /// Asks for what changes nothing until a raft snapshot is due, and lets it be saved.
    pub fn save_snapshot(&mut self) {
        let view = self.node.view();
        let due = view.snapshot_index() + SNAPSHOT_COUNT + 1;
        for _ in view.applied()..due {
            self.propose(Request::Revoke(99));
        }
        self.rest();
        self.rest();
    }

    /// What a client of this member can see.
    pub fn seen(&self) -> Seen {
        seen(self.node.state())
    }

    /// The commit of the B+tree that was handed out, for who does it elsewhere.
    pub fn take_commit(&mut self) -> Option<Commit> {
        self.out.commit.take()
    }
}

/// What a client can see of a state.
pub fn seen(state: &State) -> Seen {
    let store = state.store();
    let lessor = state.lessor();
    let all = Bytes::from_static(b"\0");
    let range = RangeRequest { key: all.clone(), range_end: all, ..RangeRequest::default() };
    let keys = store.range(&range).expect("a plain range").into_bytes().expect("it is read");
    let mut ids = lessor.leases(0);
    ids.sort_unstable();
    let lease = |id| {
        let ttl = lessor.granted_ttl(id).unwrap_or_default();
        (id, ttl, lessor.keys(id).unwrap_or_default())
    };
    let alarms = state.shared_alarms().read().expect("no thread panicked");
    Seen {
        revision: store.revision(),
        compacted: store.compact_revision(),
        hash: store.hash_kv(0).expect("it can be hashed").hash,
        keys: RangeResponse::decode(keys).expect("our own").kvs,
        leases: ids.into_iter().map(lease).collect(),
        alarm: alarms.is_up(AlarmType::Nospace),
    }
}
