//! The log as a whole, on the disk that crashes.

use std::io::ErrorKind;

use super::*;
use crate::fs::mem::{Crash, Fault, MemDisk};
use crate::fs::{Open, read_all};

mod damage;

/// Segments small enough that a test fills many.
const SMALL: Options = Options { segment_bytes: 8192, fill: 1024 };
const ZERO: walpb::Snapshot = walpb::Snapshot { index: None, term: None, conf_state: None };

fn dir() -> &'static Path {
    Path::new("/data/wal")
}

/// A disk with the directory that the log goes into.
fn disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn create(disk: &MemDisk) -> Wal {
    Wal::create(Arc::new(disk.clone()), dir(), b"meta", SMALL).unwrap()
}

fn open(disk: &MemDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), dir(), &ZERO, SMALL)
}

/// An entry whose content says which it is.
fn entry(term: u64, index: u64, size: usize) -> Entry {
    let data = vec![(index * 7 + term) as u8 | 1; size];
    Entry::normal(term, index, data.into())
}

fn batch(entries: Vec<Entry>) -> Batch {
    let last = entries.last().unwrap();
    let hard_state = Some(HardState::of(last.term(), 1, last.index()));
    Batch { entries, hard_state }
}

/// Appends entries one by one, with these indexes, and syncs each.
fn fill(wal: &mut Wal, indexes: std::ops::RangeInclusive<u64>, size: usize) {
    for index in indexes {
        wal.append(&batch(vec![entry(1, index, size)])).unwrap();
        wal.sync().unwrap();
    }
}

fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(Entry::index).collect()
}

fn bytes(disk: &MemDisk, path: &Path) -> Vec<u8> {
    read_all(disk.open(path, Open::Read).unwrap().as_ref()).unwrap()
}

/// Every file of the log with its bytes.
fn image(disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(dir()).unwrap();
    names.into_iter().map(|n| (n.clone(), bytes(disk, &dir().join(n)))).collect()
}

#[test]
fn a_log_of_etcd_is_read_and_written_again() {
    let etcd = include_bytes!("testdata/etcd-3.7.1.wal");
    let disk = disk();
    disk.create_dir_all(dir()).unwrap();
    let path = dir().join(segment::name(0, 0));
    disk.open(&path, Open::Create).unwrap().write_at(etcd, 0).unwrap();
    let all = read(&disk, dir(), &ZERO).unwrap();
    assert_eq!(indexes(&all), (1..=39).collect::<Vec<_>>());
    assert_eq!(all.hard_state, HardState::of(2, 0x6678_8015_7b88_12c8, 39));
    assert_eq!(all.torn, None);
    let notes = valid_snapshots(&disk, dir()).unwrap();
    assert_eq!(notes.iter().map(walpb::Snapshot::index).collect::<Vec<_>>(), [0, 11, 22, 33]);
    let late = read(&disk, dir(), &notes[3]).unwrap();
    assert_eq!(indexes(&late), (34..=39).collect::<Vec<_>>());
    assert_eq!(late.conf_state.unwrap().voters, [0x6678_8015_7b88_12c8]);

    // The same records, written by us: the same bytes.
    let ours = MemDisk::new();
    let mut wal =
        Wal::create(Arc::new(ours.clone()), Path::new("/wal"), &all.metadata, SMALL).unwrap();
    let mut waiting = Batch::default();
    records(&disk, dir(), 0, |_, kind, data| match kind {
        RecordKind::Entry => waiting.entries.push(record::entry(data).unwrap()),
        RecordKind::State => {
            waiting.hard_state = record::state(data);
            wal.append(&std::mem::take(&mut waiting)).unwrap();
        }
        RecordKind::Snapshot => {
            let note = record::snapshot(data).unwrap();
            if note.index() > 0 {
                wal.save_snapshot(note.index(), note.term(), &note.conf_state.unwrap()).unwrap();
            }
        }
        RecordKind::Crc | RecordKind::Metadata => {}
    })
    .unwrap();
    wal.sync().unwrap();
    let ours = bytes(&ours, &Path::new("/wal").join(segment::name(0, 0)));
    assert_eq!(ours[..etcd.len()], etcd[..]);
}

#[test]
fn append_reopen_append_over_many_segments() {
    let disk = disk();
    let mut wal = create(&disk);
    for round in 0..6u64 {
        fill(&mut wal, round * 10 + 1..=round * 10 + 10, 700);
        wal.close().unwrap();
        let (again, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.metadata, "meta");
        assert_eq!(recovered.last_index, round * 10 + 10);
        let expected: Vec<_> = (1..=recovered.last_index).map(|i| entry(1, i, 700)).collect();
        assert_eq!(recovered.entries, expected);
        assert_eq!(recovered.hard_state, HardState::of(1, 1, recovered.last_index));
        assert_eq!(recovered.torn, None);
        wal = again;
    }
    assert_eq!(wal.tail_seq(), 5);
    let names = disk.list(dir()).unwrap();
    assert!(names.iter().all(|n| segment::parse_name(n).is_some()), "{names:?}");
    let first: Vec<_> =
        segments(&disk, dir()).unwrap().into_iter().map(|s| (s.seq, s.index)).collect();
    assert_eq!(first[..3], [(0, 0), (1, 12), (2, 23)]);
}

#[test]
fn a_write_its_last_page_and_one_flush_a_sync() {
    let disk = disk();
    let mut wal = create(&disk);
    let before = disk.calls();
    for i in 1..=5 {
        wal.append(&batch(vec![entry(1, i, 100), entry(1, i + 1, 100)])).unwrap();
    }
    assert_eq!(disk.calls(), before);
    wal.sync().unwrap();
    let zeros = SMALL.fill.div_ceil(PAGE as u64);
    assert_eq!(disk.calls(), before + 2 + zeros);
    for i in 6..=7 {
        wal.append(&batch(vec![entry(1, i, 2000)])).unwrap();
    }
    let before = disk.calls();
    wal.sync().unwrap();
    assert_eq!(disk.calls(), before + 3 + zeros);
    wal.append(&Batch::default()).unwrap();
    wal.flush().unwrap();
    assert_eq!(disk.calls(), before + 3 + zeros, "nothing to write");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let disk = disk();
    let mut wal = create(&disk);
    fill(&mut wal, 1..=20, 300);
    wal.append(&batch(vec![entry(2, 15, 10), entry(2, 16, 10)])).unwrap();
    wal.close().unwrap();
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last_index, 16);
    assert_eq!(wal.last_index(), 16);
    assert_eq!(recovered.entries[13], entry(1, 14, 300));
    assert_eq!(recovered.entries[14..], [entry(2, 15, 10), entry(2, 16, 10)]);
}

#[test]
fn snapshots_releases_and_purges() {
    let conf = ConfState::simple(vec![1], vec![2]);
    let disk = disk();
    let mut wal = create(&disk);
    fill(&mut wal, 1..=25, 700);
    wal.save_snapshot(20, 1, &conf).unwrap();
    fill(&mut wal, 26..=60, 700);
    wal.save_snapshot(50, 1, &conf).unwrap();
    assert!(matches!(wal.save_snapshot(0, 0, &conf), Err(WalError::Invalid(_))));
    let notes = valid_snapshots(&disk, dir()).unwrap();
    assert_eq!(notes.iter().map(walpb::Snapshot::index).collect::<Vec<_>>(), [0, 20, 50]);

    assert!(wal.purge(2).unwrap().is_empty(), "all are held");
    assert_eq!(wal.release_to(20), 1);
    assert_eq!(wal.purge(0).unwrap().len(), 0);
    assert_eq!(wal.purge(2).unwrap().len(), 1);
    assert_eq!(wal.release_to(20), 0);
    let at = |note: &walpb::Snapshot| read(&disk, dir(), note).unwrap();
    assert_eq!(indexes(&at(&notes[1])), (21..=60).collect::<Vec<_>>());
    assert_eq!(at(&notes[1]).conf_state, Some(conf));
    assert_eq!(wal.release_to(50), 3);
    wal.purge(4).unwrap();
    assert_eq!(segments(&disk, dir()).unwrap().len(), 4);
    wal.purge(1).unwrap();
    assert_eq!(indexes(&at(&notes[2])), (51..=60).collect::<Vec<_>>());
    assert!(matches!(read(&disk, dir(), &notes[1]), Err(WalError::NotFound { .. })));
    let known = valid_snapshots(&disk, dir()).unwrap();
    assert_eq!(known, notes[2..], "the log still starts with a good checksum");
    let mut seen = 0;
    records(&disk, dir(), 0, |_, _, _| seen += 1).unwrap();
    assert!(seen > 10, "who asks for all gets what is left");
    wal.close().unwrap();
    let (mut wal, recovered) = Wal::open(Arc::new(disk.clone()), dir(), &notes[2], SMALL).unwrap();
    assert_eq!(recovered.last_index, 60);
    fill(&mut wal, 61..=90, 700);
    assert_eq!(at(&notes[2]).last_index, 90);
}

#[test]
fn notes_beyond_the_commit_do_not_count() {
    let disk = disk();
    let mut wal = create(&disk);
    fill(&mut wal, 1..=5, 10);
    wal.save_snapshot(9, 2, &ConfState::default()).unwrap();
    assert_eq!(valid_snapshots(&disk, dir()).unwrap().len(), 1);
    assert_eq!(newest_snapshot(&disk, dir()).unwrap(), Some(walpb::Snapshot::of(0, 0, None)));
    wal.append(&Batch { entries: vec![], hard_state: Some(HardState::of(2, 1, 9)) }).unwrap();
    wal.sync().unwrap();
    assert_eq!(valid_snapshots(&disk, dir()).unwrap().len(), 2);
    assert_eq!(newest_snapshot(&disk, dir()).unwrap().map(|note| note.index()), Some(9));
}

/// A leader's snapshot takes the place of the log: what was there before does not come back behind it.
#[test]
fn a_snapshot_from_the_leader_ends_the_old_log() {
    let disk = disk();
    let mut wal = create(&disk);
    fill(&mut wal, 1..=20, 10);
    wal.save_snapshot(15, 3, &ConfState::default()).unwrap();
    wal.append(&Batch { entries: vec![], hard_state: Some(HardState::of(3, 1, 15)) }).unwrap();
    wal.sync().unwrap();
    let note = valid_snapshots(&disk, dir()).unwrap().pop().unwrap();
    let recovered = read(&disk, dir(), &note).unwrap();
    assert_eq!((recovered.last_index, recovered.entries.len()), (15, 0));
    wal.append(&batch(vec![entry(3, 16, 10)])).unwrap();
    wal.close().unwrap();
    assert_eq!(read(&disk, dir(), &note).unwrap().entries, [entry(3, 16, 10)]);

    let mut wrong = note;
    wrong.term = Some(4);
    let error = read(&disk, dir(), &wrong).err().unwrap();
    assert!(matches!(error, WalError::SnapshotMismatch { index: 15, term: 4, found: 3 }));
    wrong.index = Some(7);
    assert!(matches!(read(&disk, dir(), &wrong), Err(WalError::SnapshotNotFound { .. })));
}

#[test]
fn one_log_one_owner() {
    let disk = disk();
    assert!(!exists(&disk, dir()));
    let wal = create(&disk);
    assert!(exists(&disk, dir()));
    let again = Wal::create(Arc::new(disk.clone()), dir(), b"", SMALL);
    assert!(matches!(again, Err(WalError::Exists(_))));
    assert!(matches!(open(&disk), Err(WalError::Locked(_))));
    assert!(read(&disk, dir(), &ZERO).is_ok(), "a tool may look");
    drop(wal);
    assert!(open(&disk).is_ok());
}

#[test]
fn after_a_failed_flush_nothing_more_is_taken() {
    for back in 1..=2 {
        let disk = disk();
        let mut wal = create(&disk);
        fill(&mut wal, 1..=3, 10);
        wal.append(&batch(vec![entry(1, 4, 10)])).unwrap();
        let call = disk.calls() + back - 1;
        disk.set_fault(Some(Fault { call, kind: ErrorKind::Other, forever: false }));
        assert!(matches!(wal.sync(), Err(WalError::Io { .. })));
        assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
        assert!(matches!(wal.append(&Batch::default()), Err(WalError::Poisoned)));
        assert!(matches!(wal.flush(), Err(WalError::Poisoned)));
        assert!(matches!(wal.save_snapshot(1, 1, &ConfState::default()), Err(WalError::Poisoned)));
        drop(wal);
        let (_, recovered) = open(&disk.crash(Crash::LoseAll)).unwrap();
        assert_eq!(recovered.last_index, 3);
    }
}

#[test]
fn a_full_disk() {
    let disk = disk();
    let mut wal = create(&disk);
    disk.set_capacity(Some(disk.used()));
    fill(&mut wal, 1..=5, 700);
    let full = wal.append(&batch(vec![entry(1, 6, 5000)])).err().unwrap();
    assert!(matches!(full, WalError::Io { error, .. } if error.kind() == ErrorKind::StorageFull));
    assert_eq!(disk.list(dir()).unwrap().len(), 1, "no half-made file takes up room");
    drop(wal);
    // What was written of the sixth is cut off, though there is no room for a copy of it.
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last_index, 5);
    assert_eq!(disk.list(dir()).unwrap().len(), 1);
}

/// Zeros go along with a small write up to the next multiple of [`Options::fill`], where none are yet; not beyond
/// what was allocated, and not with a large write. Seen by marks ahead of the records.
#[test]
fn zeros_are_written_ahead_of_small_writes() {
    let disk = disk();
    let options = Options { segment_bytes: 100_000, fill: 4096 };
    let mut wal = Wal::create(Arc::new(disk.clone()), dir(), b"meta", options).unwrap();
    let file = wal.tail().file.clone();
    let mut next = 0;
    // Appends an entry of this size, and says up to where marks were overwritten.
    let mut wiped = |size| {
        let from = wal.tail_bytes();
        let marks = || (from..options.segment_bytes).filter(|at| at % 512 == 511);
        marks().for_each(|at| file.write_at(b"!", at).unwrap());
        next += 1;
        wal.append(&batch(vec![entry(1, next, size)])).unwrap();
        wal.sync().unwrap();
        let now = read_all(file.as_ref()).unwrap();
        assert_eq!(now.len() as u64, options.segment_bytes);
        let left = marks().find(|at| now[*at as usize] == b'!');
        left.map_or(options.segment_bytes, |at| at + 1 - 512)
    };
    assert_eq!(wiped(100), 4096);
    assert!(wiped(100) < 1024, "there are zeros already");
    assert_eq!(wiped(5000), 8192);
    assert!(wiped(80_000) < 90_000, "a large write goes alone");
    assert_eq!(wiped(100), 86_016);
    assert_eq!(wiped(5000), 94_208);
    assert_eq!(wiped(6000), 98_304);
    assert_eq!(wiped(2500), options.segment_bytes);
}

/// A process that is killed leaves in the kernel what it has not flushed: the end of the log, the name of a segment.
/// The next one goes on from there, and what it acknowledges must not lie behind what a power failure takes.
#[test]
fn what_only_the_kernel_holds_is_made_durable_by_the_next_start() {
    let killed = |disk: &MemDisk, call: u64| {
        let (mut wal, recovered) = open(disk).unwrap();
        let call = disk.calls() + call;
        disk.set_fault(Some(Fault { call, kind: ErrorKind::Other, forever: true }));
        let next = recovered.last_index + 1;
        let done = (next..next + 8).try_for_each(|index| {
            wal.append(&batch(vec![entry(1, index, 700)]))?;
            wal.sync()
        });
        drop(wal);
        disk.set_fault(None);
        done.is_ok()
    };
    let first = disk();
    let mut wal = create(&first);
    fill(&mut wal, 1..=6, 700);
    wal.close().unwrap();
    for call in 0.. {
        let disk = first.crash(Crash::KeepAll);
        let done = killed(&disk, call);
        let (mut wal, recovered) = open(&disk).unwrap();
        let last = recovered.last_index + 1;
        fill(&mut wal, last..=last, 700);
        drop(wal);
        for seed in 0..12 {
            let how = if seed == 0 { Crash::LoseAll } else { Crash::Seed(seed) };
            let (_, found) = open(&disk.crash(how)).unwrap();
            assert_eq!(indexes(&found), (1..=last).collect::<Vec<_>>(), "{call}, {how:?}");
        }
        if done {
            return;
        }
    }
}
