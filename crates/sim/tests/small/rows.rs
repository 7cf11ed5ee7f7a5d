//! What went wrong in etcd's storage once, as tests under the numbers of its issues: one member, one disk. Not
//! here: what takes several members.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use etch_disk::backend::{Backend, Batch, Bolt, Bucket};
use etch_disk::fs::mem::{Crash, Fault, MemDisk};
use etch_disk::fs::{Disk, Open};
use etch_disk::wal;
use etch_state::State;
use etch_state::mvcc::Revision;

use crate::check::{Tally, recovers};
use crate::crash::{Watched, Ways};
use crate::model::{Model, Request, Seen};
use crate::tail;
use crate::world::{Known, World, recovery, seen, snap_dir, wal_dir};

/// How a test ends: how many cases there were, or what went wrong in one.
type Outcome = Result<u64, String>;

/// Every crash that was kept recovers.
fn all_recover(world: &mut World, tally: &mut Tally) -> Result<(), String> {
    world.disk.crash();
    let crashes = world.crashes();
    crashes.iter().try_for_each(|(known, disk)| tally.case(disk, known))
}

/// The B+tree by itself, without the log, is of one moment: its index and its content belong together.
fn of_one_moment(disk: &MemDisk, moments: &BTreeMap<u64, Seen>) -> Result<(), String> {
    let recovery = recovery();
    let disk: Arc<dyn Disk> = Arc::new(disk.crash(Crash::KeepAll));
    let tree = Bolt::open(disk, &snap_dir().join("db"), recovery.backend);
    let tree = tree.map_err(|e| e.to_string())?;
    let state = State::open(tree, &recovery.state).map_err(|e| e.to_string())?;
    let expected = moments.get(&state.index());
    if expected == Some(&seen(&state)) {
        return Ok(());
    }
    Err(format!("index {}: {:?}, expected {expected:?}", state.index(), seen(&state)))
}

/// The applied index is saved with the data that it speaks of: the power goes at each call of a commit.
pub fn i13766_the_index_and_its_data_are_of_one_moment() -> Outcome {
    let mut tally = Tally::default();
    for call in 0.. {
        let mut world = tail::begin();
        let mut moments = BTreeMap::from([(world.node.state().index(), world.seen())]);
        for request in [
            Request::Put { key: "a", value: vec![1; 2000], lease: 5 },
            Request::Txn(["x", "y", "b"]),
            Request::Revoke(5),
            Request::Compact(world.model().revision),
        ] {
            world.ask(request);
            moments.insert(world.node.state().index(), world.seen());
        }
        world.node.hurry_commit();
        let mut commit = None;
        for _ in 0..4 {
            world.turn();
            world.flush();
            commit = commit.or(world.take_commit());
        }
        let mut commit = commit.ok_or("no commit is due")?;
        let disk = &world.disk.disk;
        let call = disk.calls() + call;
        disk.set_fault(Some(Fault { call, kind: ErrorKind::Other, forever: true }));
        let done = world.backend.commit(&mut commit.batch).is_ok();
        for seed in 0..16 {
            let left = disk.crash(Crash::Seed(seed));
            of_one_moment(&left, &moments)?;
            tally.case(&left, &world.known())?;
        }
        if done {
            break;
        }
    }
    Ok(tally.cases)
}

/// A lone member answers when its log is durable, and not before.
pub fn i14370_no_answer_before_the_log_is_durable() -> Outcome {
    let mut tally = Tally::default();
    for request in [
        Request::Put { key: "a", value: vec![1; 100], lease: 0 },
        Request::Delete("a"),
        Request::Txn(["x", "y", "b"]),
        Request::Grant(77),
        Request::Revoke(5),
        Request::Alarm(true),
    ] {
        let mut world = World::new();
        world.propose(request);
        for _ in 0..3 {
            world.turn();
            tally.case(&world.disk.disk.crash(Crash::LoseAll), &world.known())?;
        }
        world.write_log();
        world.turn();
        tally.case(&world.disk.disk.crash(Crash::LoseAll), &world.known())?;
        world.flush();
        world.turn();
        if world.answered != 1 {
            return Err("the log is durable, and nobody is answered".into());
        }
        tally.case(&world.disk.disk.crash(Crash::LoseAll), &world.known())?;
    }
    Ok(tally.cases)
}

/// Requests that change no key carry the index over a raft snapshot all the same.
pub fn i13937_only_entries_that_change_nothing() -> Outcome {
    let mut tally = Tally::default();
    for alarm in [false, true] {
        let mut world = tail::begin();
        if alarm {
            world.ask(Request::Alarm(true));
            world.ask(Request::Put { key: "a", value: vec![1], lease: 0 });
        }
        world.disk.start(Ways::Many);
        let before = world.node.view().snapshot_index();
        world.save_snapshot();
        world.save_snapshot();
        if world.node.view().snapshot_index() < before + 2 {
            return Err("no raft snapshot was saved".into());
        }
        all_recover(&mut world, &mut tally)?;
    }
    Ok(tally.cases)
}

/// The power goes, or the room, at each step of a defragmentation; files that one left behind are no obstacle.
pub fn i14685_defragmentation_is_cut_short() -> Outcome {
    let mut tally = Tally::default();
    let mut world = World::new();
    world.disk.start(Ways::Many);
    world.defragment();
    all_recover(&mut world, &mut tally)?;

    let base = World::new();
    for room in 0..40 {
        let disk = base.disk.disk.crash(Crash::KeepAll);
        let mut world = World::open(Watched::new(disk), &Known::all(base.model()))?;
        let disk = world.disk.disk.clone();
        disk.set_capacity(Some(disk.used() + room * 512));
        for _ in 0..100 {
            match world.backend.shrink(2) {
                Ok(done) if done.more => {}
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::StorageFull => break,
                Err(e) => return Err(e.to_string()),
            }
        }
        tally.case(&disk.crash(Crash::LoseAll), &world.known())?;
        disk.set_capacity(None);
        world.put("after", vec![1; 300]);
        world.commit();
        tally.case(&disk.crash(Crash::LoseAll), &world.known())?;
    }
    stale_files(&base, &mut tally)?;
    Ok(tally.cases)
}

/// What writes that were cut short leave behind, here or in etcd.
fn stale_files(base: &World, tally: &mut Tally) -> Result<(), String> {
    let disk = base.disk.disk.crash(Crash::KeepAll);
    for path in [
        snap_dir().join("db.tmp.1234"),
        snap_dir().join("db.new"),
        snap_dir().join("tmp567"),
        snap_dir().join("0000000000000009-0000000000000009.snap.tmp"),
        wal_dir().join("0.tmp"),
        wal_dir().join("1.tmp"),
    ] {
        if !disk.exists(&path) {
            let file = disk.open(&path, Open::Create).map_err(|e| e.to_string())?;
            file.write_at(b"half a file", 0).map_err(|e| e.to_string())?;
        }
    }
    for _ in 0..8 {
        tally.case(&disk, &base.known())?;
    }
    Ok(())
}

/// The very first start, with a crash at each flush of it, and at each flush of the start after that.
pub fn i11613_the_first_start_is_cut_short() -> Outcome {
    let mut tally = Tally::default();
    let start = |disk| {
        let disk = Watched::new(disk);
        disk.start(Ways::Many);
        let mut world = World::open(disk, &Known::all(&Model::default()))?;
        world.disk.crash();
        Ok::<_, String>(world.crashes())
    };
    for (_, left) in start(MemDisk::new())? {
        for (known, again) in start(left)? {
            tally.case(&again, &known)?;
        }
    }
    Ok(tally.cases)
}

/// The log's tail is cut at every byte, or any sector of it is zero.
pub fn i5230_a_torn_tail_is_repaired() -> Outcome {
    let mut tally = Tally::default();
    for workload in [3, 8, 13] {
        tail::cuts(workload, &mut tally)?;
    }
    Ok(tally.cases)
}

/// Blocks of the log that are not flushed come through in any order.
pub fn i6378_blocks_out_of_order() -> Outcome {
    let mut tally = Tally::default();
    for workload in [3, 7, 13] {
        tail::subsets(workload, &mut tally)?;
    }
    Ok(tally.cases)
}

/// A bit flips anywhere in the log: the member starts with all it had, or it says what is wrong.
pub fn i14102_a_flipped_bit_in_the_log() -> Outcome {
    let mut cases = 0;
    let mut world = tail::begin();
    for n in 0..4 {
        world.put("a", vec![n; 200]);
    }
    world.ask(Request::Txn(["x", "y", "b"]));
    let end = world.wal.tail_bytes();
    let disk = world.disk.disk.clone();
    let known = world.known();
    drop(world);
    let segments = wal::segments(&disk, &wal_dir()).map_err(|e| e.to_string())?;
    let last = &segments[segments.len() - 1].path;
    for at in 0..end {
        let bit = 1 << (at % 8);
        let flipped = flip(&disk, last, at, bit)?;
        cases += 1;
        refused_or_right(&flipped, &known).map_err(|e| format!("byte {at} of the log: {e}"))?;
    }
    Ok(cases)
}

fn flip(disk: &MemDisk, path: &std::path::Path, at: u64, bit: u8) -> Result<MemDisk, String> {
    let flipped = disk.crash(Crash::KeepAll);
    let file = flipped.open(path, Open::Write).map_err(|e| e.to_string())?;
    let mut byte = [0];
    file.read_at(&mut byte, at).map_err(|e| e.to_string())?;
    file.write_at(&[byte[0] ^ bit], at).map_err(|e| e.to_string())?;
    Ok(flipped)
}

/// Damage that no crash makes: a member may refuse to start, and must not serve anything wrong.
fn refused_or_right(disk: &MemDisk, known: &Known) -> Result<(), String> {
    let door: Arc<dyn Disk> = Arc::new(disk.crash(Crash::KeepAll));
    match recovery().open(&door) {
        Err(refused) if refused.to_string().contains("/data/member/") => Ok(()),
        Err(refused) => Err(format!("a refusal that does not say where: {refused}")),
        Ok(_) => recovers(disk, known, false),
    }
}

/// All that is not flushed is lost at once, again and again.
pub fn i14140_unflushed_data_is_lost_again_and_again() -> Outcome {
    let mut world = World::new();
    for round in 0..60u8 {
        world.put("a", vec![round; 40]);
        match round % 5 {
            0 => world.commit(),
            1 => world.save_snapshot(),
            2 => world.ask(Request::Compact(world.model().revision)),
            3 => drop(world.defragment()),
            _ => {}
        }
        for _ in 0..1 + round % 3 {
            world.propose(Request::Put { key: "b", value: vec![round; 700], lease: 0 });
        }
        world.turn();
        world.write_log();
        let how = if round % 2 == 0 { Crash::LoseAll } else { Crash::Seed(round.into()) };
        let left = world.disk.disk.crash(how);
        world = world.restart(left).map_err(|e| format!("round {round}: {e}"))?;
    }
    Ok(60)
}

/// A crash at each step of a compaction that takes the newest revisions away: the revision does not fall.
pub fn i17780_the_revision_does_not_fall() -> Outcome {
    let mut tally = Tally::default();
    let mut world = World::new();
    for key in ["gone", "gone too", "and this"] {
        world.put(key, vec![1; 50]);
        world.ask(Request::Delete(key));
    }
    world.commit();
    world.disk.start(Ways::Many);
    world.ask(Request::Compact(world.model().revision));
    for _ in 0..12 {
        world.node.hurry_commit();
        world.step();
    }
    world.commit();
    // What a second one takes away has been the tombstone at the first one's revision.
    world.put("more", vec![1]);
    world.ask(Request::Delete("more"));
    world.ask(Request::Compact(world.model().revision));
    for _ in 0..12 {
        world.node.hurry_commit();
        world.step();
    }
    all_recover(&mut world, &mut tally)?;
    without_tombstone(&world)?;
    Ok(tally.cases)
}

/// A file as releases up to etcd 3.5 leave it: the compaction has taken the tombstone of its own revision too,
/// and with it all trace of the newest revision but the compaction's.
fn without_tombstone(world: &World) -> Result<(), String> {
    let (left, known) = (world.disk.disk.crash(Crash::KeepAll), world.known());
    let door: Arc<dyn Disk> = Arc::new(left.clone());
    let tree = Bolt::open(door, &snap_dir().join("db"), recovery().backend);
    let tree = tree.map_err(|e| e.to_string())?;
    let row = Revision::new(known.revision, 0).encode_tombstone();
    if tree.snapshot().get(Bucket::Key, &row).map_err(|e| e.to_string())?.is_none() {
        return Err("there is no tombstone to take away".into());
    }
    let mut batch = Batch::new();
    batch.delete(Bucket::Key, row);
    tree.commit(&mut batch).map_err(|e| e.to_string())?;
    drop(tree);
    recovers(&left, &known, true)
}
