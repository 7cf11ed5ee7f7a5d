//! A member over a disk in memory whose turns a net thread takes: when it may, what it gets, and what is durable then.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use bytes::Bytes;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::PutRequest;
use etch_api::pb::walpb;
use etch_disk::backend;
use etch_disk::fs::Disk;
use etch_disk::fs::mem::{Crash, MemDisk};
use etch_disk::snap::Snapshotter;
use etch_disk::wal;
use etch_node::{Recovered, Recovery};
use etch_state::StateConfig;
use etch_state::lease::LessorConfig;
use etch_state::members::Member;
use prost::Message as _;

use super::*;
use crate::config::Config;
use crate::driver::wal_thread::LogWriter;

/// How long a net thread waits for a write.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node sleeps at the most while a test looks at it.
const LONG_MS: u64 = 60_000;

fn recovery() -> Recovery {
    Recovery {
        wal_dir: PathBuf::from("/data/member/wal"),
        snap_dir: PathBuf::from("/data/member/snap"),
        new_member: Member::new("one", &["http://127.0.0.1:2380".into()], "token", None),
        others: Vec::new(),
        claimed: None,
        may_create: true,
        force_new_cluster: false,
        wal: wal::Options { segment_bytes: 64 << 10, fill: 0 },
        backend: backend::Options::default(),
        state: StateConfig {
            quota_bytes: 0,
            leases: LessorConfig::default(),
            persist_checkpoints: false,
        },
    }
}

struct World {
    disk: MemDisk,
    helm: SharedHelm,
    inbox: Arc<Inbox>,
    clock: Clock,
    mailboxes: Vec<Arc<Mailbox>>,
    /// What the two threads behind the node would be told.
    _behind: (Receiver<LogWrite>, Receiver<Commit>),
}

impl World {
    /// A member that leads, with two net threads.
    fn new() -> World {
        let disk = MemDisk::new();
        let door: Arc<dyn Disk> = Arc::new(disk.clone());
        let Recovered { identity, member, wal, .. } = recovery().open(&door).unwrap();
        let config = etch_node::Config {
            id: identity.member,
            heartbeat_ms: 100,
            election_ms: 1000,
            pre_vote: true,
            snapshot_count: 10_000,
            catchup_entries: 5,
            max_request_bytes: 1 << 20,
            request_timeout_ms: 7000,
            compaction_batch: 10,
            compaction_pause_ms: 10,
            commit_interval_ms: LONG_MS,
            commit_changes: 10_000,
            seed: 7,
        };
        let metrics = Arc::new(Metrics::new(&Config::default()));
        let (log_writes, writes) = mpsc::channel();
        let (commit_sender, commits) = mpsc::channel();
        let mailboxes: Vec<Arc<Mailbox>> = (0..2).map(|_| Arc::default()).collect();
        let clock = Clock::start();
        let writer = SharedWriter::new(LogWriter {
            wal,
            snapshots: Snapshotter::new(door, &PathBuf::from("/data/member/snap")),
            max_wals: 5,
            metrics: Arc::clone(&metrics),
            log: Logger::discard(),
        });
        let helm = Helm {
            node: Node::new(config, member, 1_000_000),
            mailboxes: mailboxes.clone(),
            writer: writer.clone(),
            wal: log_writes,
            backend: commit_sender,
            metrics,
            clock,
            log: Logger::discard(),
            kept: Kept::default(),
        };
        let inbox = Arc::new(Inbox::default());
        let helm = SharedHelm::new(helm, Arc::clone(&inbox));
        let mut commands = Vec::new();
        for _ in 0..8 {
            while helm.turn(&mut commands) == Turned::Wrote {}
            // Before it leads, its writes are the WAL's thread's.
            while let Ok(write) = writes.try_recv() {
                let durable = writer.lock().write(write, || None);
                commands.push(Command::LogWritten(durable.sequence));
            }
        }
        let world = World { disk, helm, inbox, clock, mailboxes, _behind: (writes, commits) };
        assert!(world.with_helm(|helm| helm.node.view().is_lone_leader()));
        world
    }

    fn with_helm<T>(&self, look: impl FnOnce(&mut Helm) -> T) -> T {
        look(self.helm.helm.lock().unwrap().as_mut().unwrap())
    }

    /// Does something while the node's thread sleeps; says how many commands it woke up to.
    fn at_rest<T>(&self, what: impl FnOnce() -> T) -> (T, usize) {
        let (inbox, clock) = (&self.inbox, self.clock);
        thread::scope(|threads| {
            let node = threads.spawn(move || {
                let mut commands = Vec::new();
                inbox.take(&mut commands, clock.now_ms() + LONG_MS, clock);
                commands.len()
            });
            while !self.inbox.is_at_rest() {
                thread::yield_now();
            }
            let done = what();
            self.inbox.wake_by(0);
            (done, node.join().unwrap())
        })
    }
}

fn put(key: &'static str, caller: Caller) -> Command {
    let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
    Command::Propose(RequestKind::Put, Bytes::from(put.encode_to_vec()), caller)
}

fn revisions(outcomes: Vec<(usize, Outcome)>) -> Vec<(usize, i64)> {
    outcomes.into_iter().map(|(slot, outcome)| (slot, outcome.unwrap().revision)).collect()
}

#[test]
fn a_turn_at_rest_answers_what_is_durable() {
    let world = World::new();
    let mut commands = vec![
        put("a", Caller::Net { thread: 0, slot: 3 }),
        put("b", Caller::Net { thread: 1, slot: 8 }),
    ];
    let mut outcomes = Vec::new();
    let (taken, woke_to) =
        world.at_rest(|| world.helm.turn_at_rest(0, PATIENCE, &mut commands, &mut outcomes));
    assert!(taken && commands.is_empty());
    assert_eq!(woke_to, 0, "nothing was left to the node's thread");
    assert_eq!(revisions(outcomes), [(3, 2)]);
    let mut elsewhere = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(world.mailboxes[1].receive(&mut elsewhere));
    assert_eq!(revisions(elsewhere), [(8, 3)], "others hear by their mailboxes");

    // Whatever was not flushed is gone.
    let disk = world.disk.crash(Crash::LoseAll);
    let log = wal::read(&disk, &recovery().wal_dir, &walpb::Snapshot::of(0, 0, None)).unwrap();
    let entries: Vec<_> = log.entries.iter().rev().take(2).map(|entry| entry.data()).collect();
    assert!(holds(entries[1], b"a") && holds(entries[0], b"b"), "{entries:?}");
}

/// Whether an entry is a put of this key.
fn holds(entry: &[u8], key: &[u8; 1]) -> bool {
    entry.windows(6).any(|bytes| bytes == [b"\x0a\x01", &key[..], b"\x12\x01v"].concat())
}

#[test]
fn who_must_not_wait_leaves_the_turn_to_the_node() {
    let world = World::new();
    let (mut commands, mut outcomes) =
        (vec![put("a", Caller::Net { thread: 0, slot: 0 })], Vec::new());
    let mut refused = |world: &World, why: &str| {
        assert!(!world.helm.turn_at_rest(0, PATIENCE, &mut commands, &mut outcomes), "{why}");
        assert!(commands.len() == 1 && outcomes.is_empty(), "{why}");
    };
    refused(&world, "the node's thread is awake");
    world.at_rest(|| {
        world.with_helm(|helm| helm.kept.write = PATIENCE);
        refused(&world, "the disk is slow");
        world.with_helm(|helm| helm.kept.write = Duration::ZERO);
        let held = world.helm.helm.lock().unwrap();
        refused(&world, "another has the turn");
        drop(held);
    });
    let (_, woke_to) = world.at_rest(|| {
        world.inbox.push(put("b", Caller::Net { thread: 1, slot: 0 }));
        refused(&world, "the node's thread was called");
    });
    assert_eq!(woke_to, 1);
}

#[test]
fn writes_that_were_slow_are_quick_again() {
    let world = World::new();
    world.with_helm(|helm| helm.kept.write = Duration::from_secs(1));
    for slot in 0..200 {
        let mut commands = vec![put("a", Caller::Net { thread: 1, slot })];
        while world.helm.turn(&mut commands) == Turned::Wrote {}
    }
    let write = world.with_helm(|helm| helm.kept.write);
    assert!(write < Duration::from_secs(1) / 2, "{write:?}");
}

#[test]
fn a_turn_sets_the_node_an_earlier_alarm() {
    let world = World::new();
    let ((), _) = world.at_rest(|| {
        let asleep = world.clock.now_ms() + LONG_MS;
        world.inbox.wake_by(asleep + LONG_MS);
        assert!(world.inbox.is_at_rest(), "a later time changes nothing");
        let mut commands = vec![put("a", Caller::Net { thread: 0, slot: 0 })];
        assert!(world.helm.turn_at_rest(0, PATIENCE, &mut commands, &mut Vec::new()));
        assert!(!world.inbox.is_at_rest(), "the next tick comes before that");
    });
}

#[test]
#[should_panic(expected = "a turn of the node panicked")]
fn a_node_that_panicked_goes_no_further() {
    let world = World::new();
    let helm = &world.helm;
    let broken = thread::scope(|threads| {
        let turn = move || {
            let _held = helm.helm.lock();
            panic!("as a broken invariant does");
        };
        threads.spawn(turn).join()
    });
    assert!(broken.is_err());
    assert!(
        !world.at_rest(|| world.helm.turn_at_rest(0, PATIENCE, &mut Vec::new(), &mut Vec::new())).0
    );
    world.helm.turn(&mut Vec::new());
}
