//! The double itself, held against its model: a test that passes on a disk too kind proves nothing.

use super::*;

fn open(disk: &MemDisk, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
    disk.open(Path::new(name), how)
}

fn content(disk: &MemDisk, name: &str) -> Option<Vec<u8>> {
    open(disk, name, Open::Read).ok().map(|f| crate::fs::read_all(f.as_ref()).unwrap())
}

/// A disk with a durable file `f` of 2048 bytes of 1.
fn disk() -> (MemDisk, Arc<dyn File>) {
    let disk = MemDisk::new();
    let file = open(&disk, "f", Open::Create).unwrap();
    file.write_at(&[1; 2048], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

#[test]
fn what_is_synced_survives_and_nothing_else_must() {
    let (disk, file) = disk();
    assert_eq!(disk.unsynced(), 0);
    file.write_at(&[2; 1024], 512).unwrap();
    file.write_at(&[3; 10], 2048).unwrap();
    assert_eq!(disk.unsynced(), 4, "three sectors and the length");
    assert_eq!(content(&disk.crash(Crash::LoseAll), "f").unwrap(), vec![1; 2048]);
    let kept = content(&disk.crash(Crash::KeepAll), "f").unwrap();
    assert_eq!(kept[..512], [1; 512]);
    assert_eq!(kept[512..1536], [2; 1024]);
    assert_eq!(kept[2048..], [3; 10]);
    let one = content(&disk.crash(Crash::Subset(0b0010)), "f").unwrap();
    assert_eq!((one[512], one[1024], one.len()), (1, 2, 2048));
    // The length came through and the last sector did not.
    let hole = content(&disk.crash(Crash::Subset(0b1000)), "f").unwrap();
    assert_eq!(hole[2048..], [0; 10]);
    file.sync().unwrap();
    assert_eq!(content(&disk.crash(Crash::LoseAll), "f").unwrap(), kept);
}

#[test]
fn a_seed_decides_alike_every_time_and_differs_from_others() {
    let (disk, file) = disk();
    file.write_at(&[2; 2048], 0).unwrap();
    let outcome = |seed| content(&disk.crash(Crash::Seed(seed)), "f").unwrap();
    let all: BTreeSet<_> = (0..100).map(outcome).collect();
    assert_eq!(all.len(), 16, "each subset of four sectors turns up");
    assert_eq!(outcome(7), outcome(7));
}

#[test]
fn a_sector_may_be_found_in_a_version_between() {
    let (disk, file) = disk();
    file.write_at(&[2; 512], 0).unwrap();
    file.write_at(&[3; 512], 0).unwrap();
    let found: BTreeSet<_> =
        (0..50).map(|s| content(&disk.crash(Crash::Seed(s)), "f").unwrap()[0]).collect();
    assert_eq!(found, BTreeSet::from([1, 2, 3]));
}

#[test]
fn names_are_durable_when_their_directory_is_synced() {
    let (disk, _) = disk();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    let file = open(&disk, "a/b/g", Open::Create).unwrap();
    file.write_at(b"g", 0).unwrap();
    file.sync().unwrap();
    assert!(content(&disk.crash(Crash::LoseAll), "a/b/g").is_none(), "synced, and without a name");
    for dir in ["/", "/a", "/a/b"] {
        disk.sync_dir(Path::new(dir)).unwrap();
    }
    assert_eq!(content(&disk.crash(Crash::LoseAll), "a/b/g").unwrap(), b"g");
    disk.rename(Path::new("a/b"), Path::new("c")).unwrap();
    assert_eq!(disk.list(Path::new("/")).unwrap(), ["a", "c", "f"]);
    for seed in 0..20 {
        let after = disk.crash(Crash::Seed(seed));
        let (old, new) = (content(&after, "a/b/g").is_some(), content(&after, "c/g").is_some());
        assert!(old != new, "a rename is whole or not at all");
    }
    disk.remove(Path::new("c/g")).unwrap();
    assert!(content(&disk.crash(Crash::LoseAll), "a/b/g").is_some());
    disk.sync_dir(Path::new("/")).unwrap();
    disk.sync_dir(Path::new("c")).unwrap();
    assert!(content(&disk.crash(Crash::LoseAll), "c/g").is_none());
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next() {
    let (disk, file) = disk();
    file.write_at(&[2; 512], 0).unwrap();
    let call = disk.calls();
    disk.set_fault(Some(Fault { call, kind: io::ErrorKind::Other, forever: false }));
    assert!(file.sync().is_err());
    file.write_at(&[3; 512], 512).unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk, "f").unwrap()[0], 2, "the cache still shows it");
    let after = content(&disk.crash(Crash::LoseAll), "f").unwrap();
    assert_eq!((after[0], after[512]), (1, 3));
    // Written once more it can be synced again.
    file.write_at(&[2; 512], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk.crash(Crash::LoseAll), "f").unwrap()[0], 2);
}

#[test]
fn a_fault_may_last() {
    let (disk, file) = disk();
    disk.set_fault(Some(Fault {
        call: disk.calls() + 1,
        kind: io::ErrorKind::Other,
        forever: true,
    }));
    file.write_at(&[2; 1024], 0).unwrap();
    assert!(file.write_at(&[3; 1024], 0).is_err());
    assert!(disk.sync_dir(Path::new("/")).is_err());
    assert!(open(&disk, "g", Open::Create).is_err());
    let now = content(&disk, "f").unwrap();
    assert_eq!((now[511], now[512]), (3, 2), "half of a failed write was done");
}

#[test]
fn room_runs_out() {
    let (disk, file) = disk();
    assert_eq!(disk.used(), 2048);
    disk.set_capacity(Some(4096));
    file.write_at(&[1; 2048], 2048).unwrap();
    let full = file.write_at(&[1], 4096).err().unwrap();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 4096);
    file.set_len(1000).unwrap();
    let other = open(&disk, "g", Open::Create).unwrap();
    assert!(other.allocate(4000).is_err());
    other.allocate(3096).unwrap();
    disk.remove(Path::new("f")).unwrap();
    other.allocate(4000).unwrap();
}

#[test]
fn a_cut_leaves_zeros_behind() {
    let (disk, file) = disk();
    file.set_len(100).unwrap();
    file.set_len(2048).unwrap();
    assert_eq!(content(&disk, "f").unwrap(), [vec![1; 100], vec![0; 1948]].concat());
    assert_eq!(content(&disk.crash(Crash::LoseAll), "f").unwrap(), vec![1; 2048]);
}

#[test]
fn locks_and_handles() {
    let (disk, first) = disk();
    let second = open(&disk, "f", Open::Write).unwrap();
    assert!(first.try_lock().unwrap() && first.try_lock().unwrap());
    assert!(!second.try_lock().unwrap());
    let after = disk.crash(Crash::LoseAll);
    assert!(open(&after, "f", Open::Write).unwrap().try_lock().unwrap(), "the dead hold no lock");
    drop(first);
    assert!(second.try_lock().unwrap());
    disk.remove(Path::new("f")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(second.len().unwrap(), 2048, "an open file outlives its name");
    assert!(open(&disk, "f", Open::Read).is_err());
    let view = second.map(2048).unwrap();
    second.write_at(&[9], 0).unwrap();
    assert_eq!(view.bytes()[0], 1, "a view does not follow");
    assert_eq!(second.map(2048).unwrap().bytes()[0], 9);
    assert!(second.map(2049).is_err());
}
