//! What must be true of a member that starts again after a crash. Not here: which crashes.

use std::sync::Arc;

use etch_disk::backend::{Backend, Bucket, open_read_only};
use etch_disk::fs::Disk;
use etch_disk::fs::mem::{Crash, MemDisk};
use etch_disk::snap::Snapshotter;
use etch_disk::wal;

use crate::crash::Watched;
use crate::world::{Known, World, snap_dir, wal_dir};

/// Starts a member on what a crash left: nothing that was acknowledged or read is lost, nothing is there that
/// was never asked for, and it goes on from there. `deep` writes on, crashes once more, and looks again.
pub fn recovers(disk: &MemDisk, known: &Known, deep: bool) -> Result<(), String> {
    check_snapshot(disk)?;
    if deep {
        check_order(disk)?;
    }
    let world = World::open(Watched::new(disk.crash(Crash::KeepAll)), known)?;
    if deep { goes_on(world) } else { Ok(()) }
}

/// etcd would start here too: the raft snapshot that the log tells of is there, and whole.
fn check_snapshot(disk: &MemDisk) -> Result<(), String> {
    if !wal::exists(disk, &wal_dir()) {
        // The power failed before there was a log.
        return Ok(());
    }
    let notes = wal::valid_snapshots(disk, &wal_dir()).map_err(|e| e.to_string())?;
    let index = notes.last().map_or(0, |note| note.index());
    if index == 0 {
        return Ok(());
    }
    let snapshots = Snapshotter::new(Arc::new(disk.clone()), &snap_dir());
    let loaded = snapshots.find(&notes).map_err(|e| e.to_string())?;
    let found = loaded.snapshot.and_then(|s| s.metadata).map_or(0, |m| m.index());
    if found == index && loaded.broken.is_empty() {
        return Ok(());
    }
    Err(format!("the log tells of a snapshot at {index}, and there is one at {found}"))
}

/// The B+tree is not ahead of what the log says is committed (invariant I4), as etcd's own verifier asks.
fn check_order(disk: &MemDisk) -> Result<(), String> {
    let db = snap_dir().join("db");
    if !wal::exists(disk, &wal_dir()) || !disk.exists(&db) {
        return Ok(());
    }
    let tree = open_read_only(disk, &db).map_err(|e| e.to_string())?;
    let row = tree.get(Bucket::Meta, b"consistent_index").map_err(|e| e.to_string())?;
    let index = row.map_or(0, |row| row.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    let notes = wal::valid_snapshots(disk, &wal_dir()).map_err(|e| e.to_string())?;
    let Some(note) = notes.last() else { return Ok(()) };
    let log = wal::read(disk, &wal_dir(), note).map_err(|e| e.to_string())?;
    if index <= log.hard_state.commit() {
        return Ok(());
    }
    Err(format!("the B+tree is at {index}, the log at {}", log.hard_state.commit()))
}

fn goes_on(mut world: World) -> Result<(), String> {
    if !world.model().seen().alarm {
        // Content of another kind than before, so that leftovers show.
        world.put("later", vec![b'l'; 700]);
        world.put("later", vec![b'm'; 50]);
    }
    world.commit();
    world.backend.snapshot().check().map_err(|e| e.to_string())?;
    let known = world.known();
    let disk = world.disk.disk.crash(Crash::LoseAll);
    drop(world);
    recovers(&disk, &known, false).map_err(|e| format!("after going on: {e}"))
}

/// Counts what was tried, and tells what failed.
#[derive(Default)]
pub struct Tally {
    pub cases: u64,
    pub deep: u64,
}

impl Tally {
    /// One crash. Every eighth case goes on after it.
    pub fn case(&mut self, disk: &MemDisk, known: &Known) -> Result<(), String> {
        self.cases += 1;
        let deep = self.cases.is_multiple_of(8);
        self.deep += u64::from(deep);
        recovers(disk, known, deep)
    }
}
