//! Crashes, tears and flipped bits: what was acknowledged comes back, or the log says what is wrong.

use super::*;

/// Opens what a crash left, checks it, and writes on: nothing before may be in the way of what comes after.
fn recovers(disk: &MemDisk, synced: u64, written: u64) -> u64 {
    let (mut wal, recovered) = open(disk).unwrap();
    let last = recovered.last_index;
    assert!((synced..=written).contains(&last), "{synced} {last} {written}");
    let sizes = |i: u64| recovered.entries[i as usize - 1].data().len();
    for i in 1..=last {
        assert_eq!(recovered.entries[i as usize - 1], entry(1, i, sizes(i)));
    }
    // Content of another kind, so that leftovers show.
    for i in last + 1..=last + 4 {
        wal.append(&batch(vec![entry(9, i, 333)])).unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let (_, again) = open(&disk.crash(Crash::LoseAll)).unwrap();
    assert_eq!(again.last_index, last + 4);
    assert_eq!(again.entries[..last as usize], recovered.entries[..]);
    assert_eq!(again.torn, None);
    last
}

/// A log of one segment: its disk, and where each entry's batch ends.
fn short_log(sizes: &[usize]) -> (MemDisk, Vec<u64>) {
    let disk = disk();
    let mut wal = create(&disk);
    let mut ends = vec![wal.tail_bytes()];
    for (i, size) in sizes.iter().enumerate() {
        fill(&mut wal, i as u64 + 1..=i as u64 + 1, *size);
        ends.push(wal.tail_bytes());
    }
    drop(wal);
    (disk, ends)
}

fn tail(disk: &MemDisk) -> Arc<dyn File> {
    disk.open(&dir().join(segment::name(0, 0)), Open::Write).unwrap()
}

#[test]
fn i5230_i15068_a_tail_cut_at_every_byte() {
    let (disk, ends) = short_log(&[0, 5, 600, 40, 1100]);
    for cut in ends[0]..*ends.last().unwrap() {
        let disk = disk.crash(Crash::KeepAll);
        tail(&disk).set_len(cut).unwrap();
        let whole = ends.iter().filter(|e| **e <= cut).count() as u64 - 1;
        // Of the next batch the entry may be whole and its hard state not.
        recovers(&disk, whole, whole + 1);
        let kept = disk.exists(&dir().join("0000000000000000-0000000000000000.wal.broken"));
        assert!(kept || cut % 8 == 0, "{cut}: a copy of what was cut off is kept");
    }
}

#[test]
fn i6515_any_one_sector_of_the_tail_is_missing() {
    let (disk, ends) = short_log(&[10, 600, 700, 2000]);
    for sector in 1..ends.last().unwrap().div_ceil(512) {
        let at = sector * 512;
        let disk = disk.crash(Crash::KeepAll);
        tail(&disk).write_at(&[0; 512], at).unwrap();
        let whole = ends.iter().filter(|e| **e <= at).count() as u64 - 1;
        recovers(&disk, whole, whole + 1);
    }
}

/// Whatever bit flips: the log comes back as it was, or it is refused and left as it is.
#[test]
fn i14102_no_flipped_bit_changes_what_was_acknowledged() {
    let (good, ends) = short_log(&[0, 5, 40, 130, 0, 77]);
    let expected = read(&good, dir(), &ZERO).unwrap();
    let mut refused = 0;
    for bit in 0..ends.last().unwrap() * 8 {
        let disk = good.crash(Crash::KeepAll);
        let (at, mut byte) = (bit / 8, [0]);
        tail(&disk).read_at(&mut byte, at).unwrap();
        tail(&disk).write_at(&[byte[0] ^ 1 << (bit % 8)], at).unwrap();
        let before = image(&disk);
        match open(&disk) {
            Ok((_, found)) => {
                assert_eq!(found.entries, expected.entries, "bit {bit}");
                assert_eq!(found.hard_state, expected.hard_state, "bit {bit}");
            }
            Err(error) => {
                refused += 1;
                let told = error.to_string();
                assert!(told.contains("corrupt at byte") || told.contains("snapshot"), "{told}");
                assert_eq!(image(&disk), before, "bit {bit}");
            }
        }
        assert!(read(&disk, dir(), &ZERO).is_ok() == open(&disk).is_ok(), "bit {bit}");
    }
    // What is left are the bytes of padding, which mean nothing.
    assert!(refused > ends.last().unwrap() * 7, "{refused} of {}", ends.last().unwrap() * 8);
}

#[test]
fn i6378_every_subset_of_the_sectors_not_yet_flushed() {
    for sizes in [&[700, 20, 1500, 600][..], &[3, 3, 3, 2600], &[4000], &[484, 484, 484, 100]] {
        let disk = disk();
        let mut wal = create(&disk);
        fill(&mut wal, 1..=2, 150);
        for (i, size) in sizes.iter().enumerate() {
            wal.append(&batch(vec![entry(1, i as u64 + 3, *size)])).unwrap();
            wal.flush().unwrap();
        }
        let units = disk.unsynced();
        assert!((3..=10).contains(&units), "{units}");
        let mut outcomes = std::collections::BTreeSet::new();
        for subset in 0..1u64 << units {
            let after = disk.crash(Crash::Subset(subset));
            outcomes.insert(recovers(&after, 2, 2 + sizes.len() as u64));
        }
        assert_eq!(*outcomes.first().unwrap(), 2);
        assert_eq!(*outcomes.last().unwrap(), 2 + sizes.len() as u64);
        for seed in 0..200 {
            recovers(&disk.crash(Crash::Seed(seed)), 2, 2 + sizes.len() as u64);
        }
    }
}

/// The machine stops again while a torn tail is being cut off.
#[test]
fn a_crash_in_the_recovery_of_a_crash() {
    let disk = disk();
    let mut wal = create(&disk);
    fill(&mut wal, 1..=2, 150);
    wal.append(&batch((3..=6).map(|i| entry(1, i, 900)).collect())).unwrap();
    wal.flush().unwrap();
    for seed in 0..60 {
        let torn = disk.crash(Crash::Seed(seed));
        for call in 0.. {
            let again = torn.crash(Crash::KeepAll);
            again.set_fault(Some(Fault { call, kind: ErrorKind::Other, forever: true }));
            let done = open(&again).is_ok();
            for second in 0..8 {
                recovers(&again.crash(Crash::Seed(second)), 2, 6);
            }
            if done {
                break;
            }
        }
    }
}

/// The power goes at each call of a whole life: creation, batches, new segments, a snapshot, a purge.
#[test]
fn a_crash_at_every_call() {
    for call in 0.. {
        let disk = disk();
        let start = disk.calls();
        disk.set_fault(Some(Fault { call: start + call, kind: ErrorKind::Other, forever: true }));
        let (mut synced, mut written, mut created) = (0, 0, false);
        let lived = (|| -> Result<(), WalError> {
            let mut wal = Wal::create(Arc::new(disk.clone()), dir(), b"meta", SMALL)?;
            created = true;
            for i in 1..=30 {
                written = i;
                wal.append(&batch(vec![entry(1, i, 900)]))?;
                wal.sync()?;
                synced = i;
                if i == 25 {
                    wal.save_snapshot(20, 1, &ConfState::default())?;
                }
            }
            wal.close()
        })();
        for seed in 0..6 {
            let after = disk.crash(Crash::Seed(seed));
            if exists(&after, dir()) {
                recovers(&after, synced, written);
            } else {
                assert!(!created);
                create(&after);
            }
        }
        if lived.is_ok() {
            assert!(call > 80, "{call} calls were tried");
            break;
        }
    }
}

#[test]
fn damage_before_the_last_segment_is_refused() {
    let good = disk();
    let mut wal = create(&good);
    fill(&mut wal, 1..=40, 700);
    wal.close().unwrap();
    let names = segments(&good, dir()).unwrap();
    assert_eq!(names.len(), 4);
    let refused = |what: &dyn Fn(&MemDisk)| {
        let disk = good.crash(Crash::KeepAll);
        what(&disk);
        let before = image(&disk);
        let error = open(&disk).err().unwrap();
        assert_eq!(image(&disk), before);
        error
    };
    let write = |disk: &MemDisk, n: usize, at: u64, bytes: &[u8]| {
        disk.open(&names[n].path, Open::Write).unwrap().write_at(bytes, at).unwrap();
    };
    let torn = refused(&|d| write(d, 1, 1024, &[0; 512]));
    assert!(matches!(torn, WalError::Corrupt { ref path, .. } if *path == names[1].path), "{torn}");
    let ends_early = refused(&|d| {
        d.open(&names[1].path, Open::Write).unwrap().set_len(4096).unwrap();
    });
    assert!(matches!(ends_early, WalError::Corrupt { .. }), "{ends_early}");
    let head = refused(&|d| write(d, 3, 0, &[0; 512]));
    assert!(matches!(head, WalError::Corrupt { offset: 0, .. }), "{head}");
    let gone = refused(&|d| d.remove(&names[1].path).unwrap());
    assert!(matches!(gone, WalError::MissingSegment(ref path) if *path == names[2].path), "{gone}");
    let first = refused(&|d| d.remove(&names[0].path).unwrap());
    assert!(matches!(first, WalError::NotFound { .. }), "{first}");
}
