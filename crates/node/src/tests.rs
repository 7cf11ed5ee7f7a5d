//! One member over a disk in memory, driven by hand: what it may say, and when; what a crash leaves.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{Header, RequestKind};
use etch_api::pb::etcdserverpb::{CompactionRequest, PutRequest};
use etch_api::pb::membershippb::DowngradeInfoSetRequest;
use etch_disk::backend::{self, Backend, Bolt};
use etch_disk::fs::Disk;
use etch_disk::fs::mem::{Crash, MemDisk};
use etch_disk::wal::{self, Wal};
use etch_state::lease::LessorConfig;
use etch_state::members::Member;
use etch_state::{Reply, StateConfig};
use prost::Message as _;

use crate::{Config, Node, Output, RecoverError, Recovered, Recovery};

mod leases;
mod majority;

type Answers = Vec<(u32, Result<Reply, Error>)>;

/// A member and its world.
struct World {
    disk: MemDisk,
    node: Node<u32>,
    wal: Wal,
    backend: Arc<Bolt>,
    now_ms: u64,
    out: Output<u32>,
    answers: Answers,
}

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

fn config(id: u64) -> Config {
    Config {
        id,
        heartbeat_ms: 100,
        election_ms: 1000,
        pre_vote: true,
        snapshot_count: 20,
        catchup_entries: 5,
        max_request_bytes: 4096,
        request_timeout_ms: 7000,
        compaction_batch: 10,
        compaction_pause_ms: 10,
        commit_interval_ms: 100,
        commit_changes: 10_000,
        seed: 7,
    }
}

impl World {
    /// Opens whatever the disk holds, and lets the member become leader.
    fn open(disk: MemDisk) -> World {
        let mut world = World::start(disk, &recovery());
        world.settle();
        assert!(world.node.view().is_lone_leader());
        world
    }

    /// Opens whatever the disk holds, and nothing more.
    fn start(disk: MemDisk, recovery: &Recovery) -> World {
        let door: Arc<dyn Disk> = Arc::new(disk.clone());
        let Recovered { identity, member, wal, backend, .. } =
            recovery.open(&door).expect("the directory is whole");
        let node = Node::new(config(identity.member), member, 1_000_000);
        let (out, answers) = (Output::default(), Vec::new());
        World { disk, node, wal, backend, now_ms: 1, out, answers }
    }

    fn turn(&mut self) {
        self.node.advance(self.now_ms);
        self.node.turn(&mut self.out);
        self.answers.append(&mut self.out.replies);
    }

    /// Makes the writes that were handed out durable.
    fn flush(&mut self) {
        for write in self.out.log.drain(..) {
            self.wal.append(&write.batch).expect("the disk has room");
            if let Some((index, term, conf_state)) = &write.snapshot {
                self.wal.save_snapshot(*index, *term, conf_state).expect("the disk has room");
            }
            self.wal.sync().expect("the disk flushes");
            self.node.log_written(write.sequence);
        }
    }

    fn commit(&mut self) {
        if let Some(mut commit) = self.out.commit.take() {
            self.backend.commit(&mut commit.batch).expect("the disk has room");
            self.node.committed(commit.index, commit.revision);
        }
    }

    /// Lets everything come to rest, a commit of the B+tree included.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.turn();
            self.flush();
            self.commit();
            self.now_ms += 100;
        }
    }

    fn put(&mut self, key: &str, caller: u32) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let put = PutRequest { key, value: "v".into(), ..PutRequest::default() };
        let body = put.encode_to_vec();
        self.node.propose(&Header::default(), RequestKind::Put, &body, Some(caller));
    }

    fn revision(&self) -> i64 {
        self.node.state().store().revision()
    }
}

/// invariant I1: the answer waits for the flush, and for nothing else.
#[test]
fn an_answer_waits_for_the_flush() {
    let mut world = World::open(MemDisk::new());
    world.put("a", 1);
    for _ in 0..3 {
        world.turn();
        assert!(world.answers.is_empty(), "answered before the log is durable");
    }
    assert_eq!(world.revision(), 1, "nor is it applied");
    world.flush();
    world.turn();
    assert!(matches!(&world.answers[..], [(1, Ok(reply))] if reply.revision == 2));
}

/// invariant I4: a commit of the B+tree waits until the WAL records that its index is committed.
#[test]
fn the_file_waits_for_the_log() {
    let mut world = World::open(MemDisk::new());
    world.put("a", 1);
    world.turn();
    world.flush();
    world.now_ms += 1000;
    world.turn();
    assert!(world.out.commit.is_none(), "the commit index is applied and not yet recorded");
    world.flush();
    world.turn();
    assert!(world.out.commit.is_some());
}

/// The B+tree is committed while writes keep coming: it does not wait for a pause.
#[test]
fn commits_go_on_under_load() {
    let mut world = World::open(MemDisk::new());
    let mut commits = 0;
    for n in 0..100 {
        world.put("a", n);
        world.now_ms += 10;
        world.turn();
        // The next write is in flight before the last one is applied, as under load.
        world.put("b", n);
        world.flush();
        world.turn();
        commits += u32::from(world.out.commit.is_some());
        world.commit();
    }
    assert!(commits >= 15, "{commits} commits in 1,000 ms");
}

/// However much waits, a write of the log is bounded by bytes, and few of them are under way.
#[test]
fn a_write_of_the_log_is_bounded() {
    let mut world = World::open(MemDisk::new());
    let long = "k".repeat(4000);
    for n in 0..5000 {
        world.put(&long, n);
    }
    while world.answers.len() < 5000 {
        world.turn();
        assert!((1..=2).contains(&world.out.log.len()), "{} writes at once", world.out.log.len());
        for write in &world.out.log {
            let bytes: usize = write.batch.entries.iter().map(|e| e.data().len()).sum();
            assert!(bytes <= (4 << 20) + 4096, "{bytes} bytes in one write");
        }
        world.flush();
        world.turn();
    }
    assert!(world.answers.iter().all(|(_, answer)| answer.is_ok()));
}

/// invariant I5: whatever a crash takes away, what was acknowledged is there, and the revision has not fallen.
#[test]
fn acknowledged_writes_survive_a_crash_at_any_step() {
    for steps in 0..40 {
        let mut world = World::open(MemDisk::new());
        let mut revision = 1;
        for step in 0..steps {
            world.put(&format!("key-{step}"), step);
            world.turn();
            match step % 3 {
                0 => {}
                1 => world.flush(),
                _ => {
                    world.flush();
                    world.now_ms += 60;
                    world.turn();
                    world.commit();
                }
            }
            world.turn();
        }
        for (_, answer) in &world.answers {
            revision = revision.max(answer.as_ref().expect("puts succeed").revision);
        }
        let acknowledged = world.answers.len();
        let crashed = world.disk.crash(if steps % 2 == 0 {
            Crash::LoseAll
        } else {
            Crash::Seed(u64::from(steps))
        });
        let after = World::open(crashed);
        assert!(after.revision() >= revision, "{steps}: {} < {revision}", after.revision());
        assert!(after.node.state().store().current_keys() >= acknowledged as u64);
    }
}

/// Upstream raft 105: what was acknowledged before a crash is not known to be committed after it. Nobody reads
/// before it is.
#[test]
fn r105_no_read_before_the_own_term_has_begun() {
    let mut world = World::open(MemDisk::new());
    world.settle();
    world.put("a", 1);
    world.turn();
    world.flush();
    world.turn();
    assert!(matches!(&world.answers[..], [(1, Ok(_))]), "the commit index is not recorded yet");
    let mut after = World::start(world.disk.crash(Crash::LoseAll), &recovery());
    after.node.read(7);
    for _ in 0..20 {
        after.turn();
        // A read that asked before there was a leader may be refused; it must not be let through.
        let let_through = after.answers.iter().any(|(_, answer)| answer.is_ok());
        let may_read = after.node.view().is_lone_leader() || let_through;
        assert!(!may_read || after.revision() == 2, "a stale read: {}", after.revision());
        after.flush();
    }
    assert!(after.node.view().is_lone_leader());
    after.answers.clear();
    after.node.read(8);
    after.turn();
    assert!(matches!(&after.answers[..], [(8, Ok(_))]));
}

#[test]
fn a_raft_snapshot_lets_the_log_begin_later() {
    let mut world = World::open(MemDisk::new());
    for n in 0..50 {
        world.put("a", n);
    }
    world.settle();
    assert!(world.node.view().snapshot_index() > 40);
    let again = World::open(world.disk.crash(Crash::LoseAll));
    assert_eq!(again.revision(), 51);
    assert_eq!(again.node.view().snapshot_index(), world.node.view().snapshot_index());
}

#[test]
fn a_physical_compaction_is_answered_once_it_is_committed() {
    let mut world = World::open(MemDisk::new());
    for n in 0..30 {
        world.put("a", n);
    }
    world.settle();
    world.answers.clear();
    let body = CompactionRequest { revision: 20, physical: true }.encode_to_vec();
    world.node.propose_physical_compaction(&Header::default(), &body, 99);
    world.turn();
    world.flush();
    world.turn();
    assert!(world.answers.is_empty(), "the compaction has not done its work");
    world.settle();
    assert!(matches!(&world.answers[..], [(99, Ok(_))]));
    world.node.propose_physical_compaction(&Header::default(), &body, 100);
    world.settle();
    assert_eq!(world.answers.last(), Some(&(100, Err(Error::Compacted))));
}

#[test]
fn what_is_too_large_or_comes_after_the_end_is_refused() {
    let mut world = World::open(MemDisk::new());
    world.put(&"k".repeat(5000), 1);
    world.settle();
    assert_eq!(world.answers, [(1, Err(Error::RequestTooLarge))]);
    world.put("a", 2);
    world.node.stop();
    world.put("b", 3);
    world.turn();
    assert_eq!(world.answers[1..], [(2, Err(Error::Stopped)), (3, Err(Error::Stopped))]);
}

#[test]
fn i14110_who_waits_too_long_is_told_so_and_the_write_still_counts() {
    let mut world = World::open(MemDisk::new());
    world.put("a", 1);
    world.turn();
    world.now_ms += 8000;
    world.turn();
    assert_eq!(world.answers, [(1, Err(Error::Timeout))]);
    world.settle();
    assert_eq!(world.revision(), 2);
}

#[test]
fn a_database_that_is_gone_or_of_another_is_refused_untouched() {
    let mut world = World::open(MemDisk::new());
    for n in 0..50 {
        world.put("a", n);
    }
    world.settle();
    let disk = world.disk.crash(Crash::KeepAll);
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut other = recovery();
    other.claimed = Some(("two".into(), vec!["http://127.0.0.1:9".into()]));
    let refused = other.open(&door).err().expect("somebody else's");
    assert!(
        matches!(&refused, RecoverError::Refused(why) if why.contains("other members")),
        "{refused}"
    );

    disk.remove(&PathBuf::from("/data/member/snap/db")).expect("it is there");
    let calls = disk.calls();
    let refused = recovery().open(&door).err().expect("the database is gone");
    assert!(refused.to_string().contains("failed to find database snapshot file"), "{refused}");
    assert_eq!(disk.calls(), calls, "something was touched");
}

/// A downgrade lowers the version of the cluster and of the files, and leaves a log that the older release reads: one
/// that begins after the entry with the lower version. Cancelled, all goes back up.
#[test]
fn a_downgrade_lowers_the_version_and_begins_the_log_anew() {
    let mut world = World::open(MemDisk::new());
    let set = |world: &mut World, enabled, ver: &str| {
        let body = DowngradeInfoSetRequest { enabled, ver: ver.into() }.encode_to_vec();
        world.node.propose(&Header::default(), RequestKind::DowngradeInfoSet, &body, None);
        world.now_ms += 10_000;
        world.settle();
    };
    let versions = |world: &World| {
        let agreed = world.node.state().members().version().map(|v| v.to_string());
        let root = world.backend.snapshot();
        let stored = root.get(backend::Bucket::Meta, b"storageVersion");
        (
            agreed,
            stored.expect("the file is whole").map(|v| String::from_utf8_lossy(v).into_owned()),
        )
    };
    let both = |version: &str| (Some(version.to_owned()), Some(version.to_owned()));
    world.now_ms += 10_000;
    world.settle();
    assert_eq!(versions(&world), both("3.7.0"));
    assert_eq!(world.node.view().snapshot_index(), 0);
    set(&mut world, true, "3.6.0");
    assert_eq!(versions(&world), both("3.6.0"));
    let lowered = world.node.view().snapshot_index();
    assert!(lowered > 0, "entries of the newer version are before the snapshot");
    set(&mut world, false, "");
    assert_eq!(versions(&world), both("3.7.0"));
    assert_eq!(world.node.view().snapshot_index(), lowered);
}

/// What is not committed to the B+tree is held in memory: many bytes do not wait for the time, nor for company.
#[test]
fn many_bytes_are_committed_at_once() {
    let mut world = World::open(MemDisk::new());
    let value = Bytes::from(vec![b'v'; 4000]);
    let put = PutRequest { key: "k".into(), value, ..PutRequest::default() }.encode_to_vec();
    // Nor for a snapshot. The time of the next commit counts from this one.
    world.node.config.snapshot_count = 10_000;
    world.put("a", 1);
    for _ in 0..3 {
        world.turn();
        world.flush();
    }
    world.commit();
    let mut bytes = 0;
    while world.out.commit.is_none() {
        for _ in 0..10 {
            world.node.propose(&Header::default(), RequestKind::Put, &put, None);
            bytes += put.len();
        }
        for _ in 0..3 {
            world.turn();
            world.flush();
        }
        assert!(bytes < 5 << 20, "{bytes} bytes wait");
    }
    assert!(bytes > 4 << 20, "a commit of {bytes} bytes");
}

/// While a commit is under way, too, a member that nobody follows keeps no entry that is applied.
#[test]
fn a_commit_under_way_keeps_no_entries() {
    let mut world = World::open(MemDisk::new());
    for caller in 0..20 {
        world.put("a", caller);
        world.node.hurry_commit();
        world.turn();
        world.flush();
        world.turn();
    }
    assert!(world.out.commit.is_some(), "the commit is under way");
    world.turn();
    assert_eq!(world.node.raft.store().bytes(), 0);
}
