//! The store against a plain map, through crashes, damage, shrinking and bbolt's own check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Backend, Batch, Bolt, Bucket, Options, Snapshot, open_read_only};
use crate::fs::mem::{Crash, Fault};
use crate::fs::{Disk, MemDisk, Open, RealDisk};

mod damage;
mod interop;
mod shrink;

type Model = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

const OPTIONS: Options = Options { page_size: 4096, grow: 64 << 10 };

fn db() -> &'static Path {
    Path::new("/db")
}

fn open(disk: &MemDisk) -> Arc<Bolt> {
    Bolt::open(Arc::new(disk.clone()), db(), OPTIONS).unwrap()
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.roll(40) {
            0 => self.roll(30_000),
            1..=4 => self.roll(3_000),
            _ => self.roll(200),
        };
        vec![self.roll(256) as u8; len as usize]
    }
}

/// A batch of random writes, done to the model too. `spread` is how many keys there may be.
fn random_batch(dice: &mut Dice, model: &mut Model, spread: u64) -> Batch {
    let mut batch = Batch::new();
    let puts = dice.roll(10);
    for _ in 0..dice.roll(300) {
        let bucket = Bucket::ALL[dice.roll(Bucket::ALL.len() as u64) as usize];
        let mut key = format!("k{:06}", dice.roll(spread)).into_bytes();
        key.resize(7 + (key[6] as usize % 5) * 20, b'x');
        if dice.roll(10) < puts {
            let value = dice.value();
            batch.put(bucket, &key[..], Bytes::from(value.clone()));
            model.insert((bucket, key), value);
        } else {
            batch.delete(bucket, &key[..]);
            model.remove(&(bucket, key));
        }
    }
    // And some that come in order at the end, as revisions do.
    let last = model.range(..(Bucket::Meta, vec![])).next_back();
    let last = last.map_or(0, |((_, k), _)| {
        k.get(1..10).map_or(0, |d| String::from_utf8_lossy(d).parse().unwrap_or(0))
    });
    for i in 1..=dice.roll(100) {
        let (key, value) = (format!("r{:09}", last + i).into_bytes(), dice.value());
        batch.put(Bucket::Key, &key[..], Bytes::from(value.clone()));
        model.insert((Bucket::Key, key), value);
    }
    // A run goes, as in a compaction.
    if dice.roll(3) == 0 {
        let keys: Vec<_> = model
            .keys()
            .skip(dice.roll(model.len() as u64 + 1) as usize)
            .take(200)
            .cloned()
            .collect();
        for (bucket, key) in keys {
            batch.delete(bucket, &key[..]);
            model.remove(&(bucket, key));
        }
    }
    batch
}

fn content(snapshot: &Snapshot) -> Model {
    let mut found = Model::new();
    for bucket in Bucket::ALL {
        let mut rows = snapshot.cursor(bucket).unwrap();
        while let Some((key, value)) = rows.next().unwrap() {
            found.insert((bucket, key.to_vec()), value.to_vec());
        }
    }
    found
}

fn assert_same(snapshot: &Snapshot, model: &Model) {
    assert_eq!(snapshot.check().unwrap(), model.len() as u64);
    assert!(content(snapshot) == *model, "content differs");
}

#[test]
fn random_batches_agree_with_a_map_and_come_back_after_reopening() {
    for (seed, page_size) in [(1, 4096), (2, 4096), (3, 16384), (4, 65536)] {
        let (disk, mut dice, mut model) = (MemDisk::new(), Dice(seed), Model::new());
        let options = Options { page_size, ..OPTIONS };
        let mut bolt = Bolt::open(Arc::new(disk.clone()), db(), options.clone()).unwrap();
        for round in 0..60 {
            let mut batch = random_batch(&mut dice, &mut model, 3_000);
            bolt.commit(&mut batch).unwrap();
            assert!(batch.is_empty());
            assert_same(&bolt.snapshot(), &model);
            if round % 10 == 9 {
                let (size, in_use) = (bolt.size(), bolt.size_in_use());
                drop(bolt);
                bolt = Bolt::open(Arc::new(disk.clone()), db(), options.clone()).unwrap();
                assert_same(&bolt.snapshot(), &model);
                assert_eq!(bolt.size(), size);
                assert!(bolt.size_in_use() <= in_use, "what waited is free now");
            }
        }
        let mut all = Batch::new();
        model.keys().for_each(|(bucket, key)| all.delete(*bucket, &key[..]));
        bolt.commit(&mut all).unwrap();
        assert_same(&bolt.snapshot(), &Model::new());
    }
}

#[test]
fn lookups_and_cursors_agree_with_a_map() {
    let (disk, mut dice, mut model) = (MemDisk::new(), Dice(9), Model::new());
    let bolt = open(&disk);
    for _ in 0..20 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 2_000)).unwrap();
    }
    let snapshot = bolt.snapshot();
    let mut near = snapshot.cursor(Bucket::Lease).unwrap();
    for i in 0..4_000 {
        // Runs of near keys, and jumps.
        let n = if i % 3 == 0 { dice.roll(2_000) } else { i / 2 };
        let mut key = format!("k{n:06}").into_bytes();
        key.resize(7 + (key[6] as usize % 5) * 20, b'x');
        let id = (Bucket::Lease, key.clone());
        let want = model.get(&id).map(|v| &v[..]);
        assert_eq!(snapshot.get(Bucket::Lease, &key).unwrap(), want);
        assert_eq!(near.get(&key).unwrap(), want);
        let mut at = snapshot.cursor(Bucket::Lease).unwrap();
        let after = model.range(id.clone()..(Bucket::Alarm, vec![])).next();
        assert_eq!(at.seek(&key).unwrap(), after.map(|((_, k), v)| (&k[..], &v[..])));
        let before = model.range((Bucket::Lease, vec![])..id).next_back();
        assert_eq!(at.prev().unwrap(), before.map(|((_, k), v)| (&k[..], &v[..])));
    }
    let mut back = snapshot.cursor(Bucket::Key).unwrap();
    let mut row = back.last().unwrap();
    for ((_, key), value) in model.range(..(Bucket::Meta, vec![])).rev() {
        assert_eq!(row, Some((&key[..], &value[..])));
        row = back.prev().unwrap();
    }
    assert_eq!(
        (row, back.next().unwrap().map(|r| r.0)),
        (None, snapshot.cursor(Bucket::Key).unwrap().next().unwrap().map(|r| r.0))
    );
    assert_eq!(snapshot.get(Bucket::Key, b"").unwrap(), None);
}

#[test]
fn gets_one_after_the_other_agree_with_a_map() {
    let (disk, mut dice, mut model) = (MemDisk::new(), Dice(19), Model::new());
    let bolt = open(&disk);
    for _ in 0..20 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 3_000)).unwrap();
    }
    let snapshot = bolt.snapshot();
    for step in [1, 2, 7, 60, 400, -1, -7, -60] {
        let mut alone = snapshot.cursor(Bucket::Lease).unwrap();
        let mut moved = snapshot.cursor(Bucket::Lease).unwrap();
        let numbers = (0..3_100 / i64::abs(step)).map(|i| i * step);
        for n in numbers.map(|n| n.rem_euclid(3_100)) {
            let mut key = format!("k{n:06}").into_bytes();
            key.resize(7 + (key[6] as usize % 5) * 20, b'x');
            let id = (Bucket::Lease, key.clone());
            let want = model.get(&id).map(|v| &v[..]);
            assert_eq!(alone.get(&key).unwrap(), want, "{n} by {step}");
            assert_eq!(moved.get(&key).unwrap(), want, "{n} by {step}");
            // It stands on the key, or on the one after its place.
            let before = model.range((Bucket::Lease, vec![])..id).next_back();
            assert_eq!(moved.prev().unwrap(), before.map(|((_, k), v)| (&k[..], &v[..])));
        }
    }
}

#[test]
fn readers_keep_their_root_while_commits_go_on() {
    let (disk, mut dice, mut model) = (MemDisk::new(), Dice(5), Model::new());
    let bolt = open(&disk);
    let mut held = Vec::new();
    for round in 0..80 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 400)).unwrap();
        // The double's views are copies: what is on the disk under the old root is what must not change.
        let snapshot = bolt.snapshot();
        held.push((snapshot, model.clone()));
        if round % 7 == 6 {
            held.remove(dice.roll(held.len() as u64) as usize);
        }
        let file = disk.open(db(), Open::Read).unwrap();
        for (snapshot, model) in held.iter().step_by(5) {
            let view = file.map(file.len().unwrap()).unwrap();
            let again = super::snapshot::Root::new(view, snapshot.root.meta, 0).unwrap();
            assert_same(&Snapshot { root: Arc::new(again) }, model);
            assert_same(snapshot, model);
        }
    }
    let size = bolt.size();
    drop(held);
    for _ in 0..20 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 400)).unwrap();
    }
    assert!(bolt.size() <= size, "pages come free when readers go");
}

/// i14685, i13766: a crash at any write or flush leaves the old root or the new one, whole.
#[test]
fn i13766_a_crash_at_every_step_leaves_the_old_root_or_the_new() {
    let (mut dice, mut model) = (Dice(77), Model::new());
    let disk = MemDisk::new();
    let bolt = open(&disk);
    for _ in 0..6 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 500)).unwrap();
    }
    drop(bolt);
    let start = disk.crash(Crash::KeepAll);
    let old = model.clone();
    let batch = random_batch(&mut dice, &mut model, 500);
    for call in 0.. {
        let disk = start.crash(Crash::KeepAll);
        let bolt = open(&disk);
        disk.set_fault(Some(Fault {
            call: disk.calls() + call,
            kind: std::io::ErrorKind::Other,
            forever: true,
        }));
        let done = bolt.commit(&mut batch.clone());
        for seed in 0..12 {
            let how = if seed == 0 { Crash::LoseAll } else { Crash::Seed(seed) };
            let after = disk.crash(how);
            let snapshot = open(&after).snapshot();
            let found = content(&snapshot);
            snapshot.check().unwrap();
            assert!(found == model || (found == old && done.is_err()), "call {call}, {how:?}");
        }
        if done.is_ok() {
            return;
        }
    }
}

/// A meta page that a killed process wrote and did not flush is in the kernel alone. Whoever starts then reads its
/// root, and must not write over the one before as long as a power failure may bring that back.
#[test]
fn a_root_that_only_the_kernel_holds_is_made_durable_by_the_next_start() {
    let (mut dice, mut model) = (Dice(78), Model::new());
    let first = MemDisk::new();
    for _ in 0..6 {
        open(&first).commit(&mut random_batch(&mut dice, &mut model, 500)).unwrap();
    }
    let mut models = vec![model.clone()];
    let batches = [(); 2].map(|()| {
        let batch = random_batch(&mut dice, &mut model, 500);
        models.push(model.clone());
        batch
    });
    // The process dies at each call of a commit, and the machine at each call of the next process's.
    for killed_at in 0.. {
        let mut done = false;
        for power_fails_at in 0.. {
            let disk = first.crash(Crash::KeepAll);
            done = commit_until(&disk, &batches[0], killed_at);
            disk.set_fault(None);
            let seen = content(&open(&disk).snapshot());
            let written = commit_until(&disk, &batches[1], power_fails_at);
            for seed in 0..12 {
                let how = if seed == 0 { Crash::LoseAll } else { Crash::Seed(seed) };
                let found = open(&disk.crash(how)).snapshot();
                found.check().unwrap();
                let found = content(&found);
                // Where the first batch was lost, the second has gone over what was there before it.
                let new = found == models[2] || seen == models[0] && found != seen;
                assert!(new || found == seen && !written, "{killed_at}, {power_fails_at}, {how:?}");
            }
            if written {
                break;
            }
        }
        if done {
            return;
        }
    }
}

/// Opens and commits on a disk where all calls fail from the commit's nth on; says whether it was done.
fn commit_until(disk: &MemDisk, batch: &Batch, call: u64) -> bool {
    let bolt = open(disk);
    let call = disk.calls() + call;
    disk.set_fault(Some(Fault { call, kind: std::io::ErrorKind::Other, forever: true }));
    bolt.commit(&mut batch.clone()).is_ok()
}

#[test]
fn a_full_disk_is_an_error_and_no_harm() {
    let (disk, mut dice, mut model) = (MemDisk::new(), Dice(3), Model::new());
    let bolt = open(&disk);
    bolt.commit(&mut random_batch(&mut dice, &mut model, 100)).unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut batch = Batch::new();
    for i in 0..200u32 {
        batch.put(Bucket::Key, i.to_be_bytes(), Bytes::from(vec![1; 4_000]));
    }
    let error = bolt.commit(&mut batch).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_same(&bolt.snapshot(), &model);
    disk.set_capacity(None);
    assert_eq!(batch.len(), 200, "the batch is still there");
    bolt.commit(&mut batch).unwrap();
    assert_eq!(bolt.snapshot().check().unwrap(), model.len() as u64 + 200);
}

#[test]
fn after_a_failed_flush_no_commit_is_taken() {
    let mut refused = 0;
    for call in 0.. {
        let (disk, mut dice, mut model) = (MemDisk::new(), Dice(3), Model::new());
        let bolt = open(&disk);
        let mut batch = random_batch(&mut dice, &mut model, 100);
        let call = disk.calls() + call;
        disk.set_fault(Some(Fault { call, kind: std::io::ErrorKind::Other, forever: false }));
        if bolt.commit(&mut batch).is_ok() {
            break;
        }
        disk.set_fault(None);
        assert!(content(&bolt.snapshot()).is_empty(), "reading goes on");
        match bolt.commit(&mut batch) {
            Ok(_) => assert_same(&bolt.snapshot(), &model),
            Err(e) => {
                assert!(e.to_string().contains("takes no writes"), "{e}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 3, "flush, meta page, flush");
}

#[test]
fn a_second_owner_is_told_that_the_file_is_in_use() {
    let disk = MemDisk::new();
    let _first = open(&disk);
    let error = Bolt::open(Arc::new(disk.clone()), db(), OPTIONS).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn keys_and_values_that_bbolt_refuses_are_refused() {
    let bolt = open(&MemDisk::new());
    for key in [vec![], vec![1; 32_769]] {
        let mut batch = Batch::new();
        batch.put(Bucket::Key, &key[..], Bytes::new());
        assert_eq!(bolt.commit(&mut batch).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    let mut batch = Batch::new();
    for i in 0..40 {
        batch.put(Bucket::AuthRoles, &vec![i; 32_768][..], Bytes::new());
    }
    bolt.commit(&mut batch).unwrap();
    assert_eq!(bolt.snapshot().check().unwrap(), 40);
}

#[test]
fn a_snapshot_streams_as_a_file_of_its_root() {
    let (disk, mut dice, mut model) = (MemDisk::new(), Dice(11), Model::new());
    let bolt = open(&disk);
    for round in 0..9 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 300)).unwrap();
        let (snapshot, before) = (bolt.snapshot(), model.clone());
        bolt.commit(&mut random_batch(&mut dice, &mut model, 300)).unwrap();
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 1_000 + round * 977]);
        loop {
            match snapshot.read_at(bytes.len() as u64, &mut piece) {
                0 => break,
                n => bytes.extend_from_slice(&piece[..n]),
            }
        }
        assert_eq!(bytes.len() as u64, snapshot.size());
        let copy = MemDisk::new();
        copy.open(db(), Open::Create).unwrap().write_at(&bytes, 0).unwrap();
        assert_same(&open_read_only(&copy, db()).unwrap(), &before);
        // It can be written too, whichever slot the next meta goes to.
        let again = open(&copy);
        let mut after = before;
        again.commit(&mut random_batch(&mut dice, &mut after, 300)).unwrap();
        assert_same(&again.snapshot(), &after);
    }
}
