//! The file gets smaller while it serves.

use super::*;

fn filled(disk: &MemDisk, keys: u64) -> (Arc<Bolt>, Model) {
    let (bolt, mut model, mut dice) = (open(disk), Model::new(), Dice(8));
    let mut batch = Batch::new();
    for i in 0..keys {
        let bucket = [Bucket::Key, Bucket::Key, Bucket::Lease][i as usize % 3];
        let (key, value) = (i.to_be_bytes(), vec![i as u8; 100 + dice.roll(300) as usize]);
        batch.put(bucket, key, Bytes::from(value.clone()));
        model.insert((bucket, key.to_vec()), value);
        if i % 500 == 499 {
            bolt.commit(&mut batch).unwrap();
        }
    }
    bolt.commit(&mut batch).unwrap();
    (bolt, model)
}

fn delete(bolt: &Bolt, model: &mut Model, which: impl Fn(usize) -> bool) {
    let mut batch = Batch::new();
    let gone: Vec<_> =
        model.keys().enumerate().filter(|(i, _)| which(*i)).map(|(_, k)| k.clone()).collect();
    for (bucket, key) in gone {
        batch.delete(bucket, &key[..]);
        model.remove(&(bucket, key));
    }
    bolt.commit(&mut batch).unwrap();
}

fn shrink_all(bolt: &Bolt) {
    for step in 0.. {
        assert!(step < 500, "it comes to an end");
        if !bolt.shrink(200).unwrap().more {
            return;
        }
    }
}

#[test]
fn i14685_after_a_mass_delete_the_file_is_near_what_it_holds() {
    let disk = MemDisk::new();
    let (bolt, mut model) = filled(&disk, 12_000);
    let full = bolt.file_size().unwrap();
    delete(&bolt, &mut model, |i| i % 10 != 0);
    shrink_all(&bolt);
    assert_same(&bolt.snapshot(), &model);
    let (size, in_use) = (bolt.file_size().unwrap(), bolt.size_in_use());
    assert!(size < full / 4, "{size} of {full}");
    assert!(size <= in_use + in_use / 10 + 300_000, "{size} for {in_use}");
    drop(bolt);
    assert_same(&open(&disk).snapshot(), &model);
}

#[test]
fn the_file_is_cut_by_many_pages_at_once_and_whole_at_the_end() {
    let disk = MemDisk::new();
    let bolt = open(&disk);
    let mut batch = Batch::new();
    for i in 0..10_000u64 {
        batch.put(Bucket::Key, i.to_be_bytes(), Bytes::from(vec![1; 3_000]));
    }
    bolt.commit(&mut batch).unwrap();
    for i in 0..9_500u64 {
        batch.delete(Bucket::Key, i.to_be_bytes());
    }
    bolt.commit(&mut batch).unwrap();
    let (mut before, mut cuts) = (bolt.file_size().unwrap(), 0);
    loop {
        let more = bolt.shrink(256).unwrap().more;
        let now = bolt.file_size().unwrap();
        if !more {
            assert_eq!(now, bolt.size());
            break;
        }
        assert!(now == before || now + (16 << 20) <= before, "{now} after {before}");
        cuts += u32::from(now < before);
        before = now;
    }
    assert!(cuts > 0, "a long shrinking gives room back on its way");
}

#[test]
fn a_reader_keeps_the_end_of_the_file_and_then_it_goes() {
    let disk = MemDisk::new();
    let (bolt, mut model) = filled(&disk, 6_000);
    let (old, old_model) = (bolt.snapshot(), model.clone());
    delete(&bolt, &mut model, |i| i % 8 != 0);
    shrink_all(&bolt);
    assert!(bolt.file_size().unwrap() >= old.size(), "the reader may still look there");
    let file = disk.open(db(), Open::Read).unwrap();
    let again =
        super::super::snapshot::Root::new(file.map(old.size()).unwrap(), old.root.meta, 0).unwrap();
    assert_same(&Snapshot { root: Arc::new(again) }, &old_model);
    let before = old.size();
    drop(old);
    shrink_all(&bolt);
    assert!(bolt.file_size().unwrap() < before / 3);
    assert_same(&bolt.snapshot(), &model);
}

#[test]
fn a_crash_at_every_step_of_shrinking_loses_nothing() {
    let disk = MemDisk::new();
    let (bolt, mut model) = filled(&disk, 1_500);
    delete(&bolt, &mut model, |i| i % 6 != 0);
    drop(bolt);
    let start = disk.crash(Crash::KeepAll);
    for call in 0.. {
        let disk = start.crash(Crash::KeepAll);
        let bolt = open(&disk);
        disk.set_fault(Some(Fault {
            call: disk.calls() + call,
            kind: std::io::ErrorKind::Other,
            forever: true,
        }));
        let mut done = true;
        for _ in 0..8 {
            match bolt.shrink(20) {
                Ok(step) if !step.more => break,
                Ok(_) => {}
                Err(_) => {
                    done = false;
                    break;
                }
            }
        }
        for seed in 0..6 {
            let after = disk.crash(if seed == 0 { Crash::LoseAll } else { Crash::Seed(seed) });
            assert_same(&open(&after).snapshot(), &model);
        }
        if done {
            return;
        }
    }
}

#[test]
fn commits_shrink_the_file_by_themselves() {
    let disk = MemDisk::new();
    let bolt = open(&disk);
    let mut batch = Batch::new();
    for i in 0..9_000u64 {
        batch.put(Bucket::Key, i.to_be_bytes(), Bytes::from(vec![1; 3_000]));
    }
    bolt.commit(&mut batch).unwrap();
    for i in 0..7_000u64 {
        batch.delete(Bucket::Key, i.to_be_bytes());
    }
    bolt.commit(&mut batch).unwrap();
    let full = bolt.file_size().unwrap();
    for i in 0..1_000u64 {
        batch.put(Bucket::Meta, b"consistent_index", Bytes::copy_from_slice(&i.to_be_bytes()));
        let done = bolt.commit(&mut batch).unwrap();
        assert!(done.pages < 64, "a small commit stays small: {done:?}");
    }
    assert!(bolt.file_size().unwrap() < full / 2, "{} of {full}", bolt.file_size().unwrap());
    assert_eq!(bolt.snapshot().check().unwrap(), 2_001);
}

#[test]
fn a_long_value_at_the_end_does_not_move_with_every_small_commit() {
    let disk = MemDisk::new();
    let bolt = open(&disk);
    let mut batch = Batch::new();
    for i in 0..9_000u64 {
        batch.put(Bucket::Key, i.to_be_bytes(), Bytes::from(vec![1; 3_000]));
    }
    bolt.commit(&mut batch).unwrap();
    batch.put(Bucket::Lease, b"long", Bytes::from(vec![2; 1 << 20]));
    bolt.commit(&mut batch).unwrap();
    // Holes of a page each: none has room for it.
    for i in (0..9_000u64).step_by(2) {
        batch.delete(Bucket::Key, i.to_be_bytes());
    }
    bolt.commit(&mut batch).unwrap();
    let full = bolt.file_size().unwrap();
    let mut large = 0;
    for i in 0..300u64 {
        batch.put(Bucket::Meta, b"consistent_index", Bytes::copy_from_slice(&i.to_be_bytes()));
        large += u32::from(bolt.commit(&mut batch).unwrap().pages >= 64);
    }
    assert!(large < 10, "{large} of 300 small commits were large");
    // It went once there was room: the short values beside it had moved down.
    assert!(bolt.file_size().unwrap() < full, "{} of {full}", bolt.file_size().unwrap());
    assert_eq!(bolt.snapshot().check().unwrap(), 4_502);
}
