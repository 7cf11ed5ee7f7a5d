//! Snapshot files against a file of etcd's own, against damage, and against crashes.

use super::*;
use crate::fs::mem::{Crash, Fault, MemDisk};
use etch_api::pb::raftpb::ConfState;

/// A file that etcd 3.7.1 wrote, of a cluster of one member.
const ETCD: &[u8] = include_bytes!("testdata/etcd-3.7.1.snap");
const ID: u64 = 0x6678_8015_7b88_12c8;

fn disk() -> (MemDisk, Snapshotter) {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/snap")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk.clone(), Snapshotter::new(Arc::new(disk), Path::new("/snap")))
}

fn snapshot(term: u64, index: u64) -> Snapshot {
    let data = encode_v2(&[], &[], Some("3.7.0"));
    Snapshot::of(index, term, ConfState::simple(vec![1], vec![]), data)
}

fn note(term: u64, index: u64) -> walpb::Snapshot {
    walpb::Snapshot::of(index, term, None)
}

#[test]
fn a_file_of_etcd_is_read_and_written_again() {
    let read = decode(ETCD).unwrap();
    assert_eq!(position(&read), (0x21, 2));
    assert_eq!(file_name(&read), "0000000000000002-0000000000000021.snap");
    assert_eq!(
        read.metadata.as_ref().unwrap().conf_state,
        Some(ConfState::simple(vec![ID], vec![]))
    );
    assert_eq!(encode(&read), ETCD, "to the byte");
    let expected = MembersV2 {
        members: vec![MemberRecord {
            id: ID,
            peer_urls: vec!["http://127.0.0.1:42380".into()],
            is_learner: false,
            name: "n1".into(),
            client_urls: vec!["http://127.0.0.1:42379".into()],
        }],
        removed: vec![],
        version: Some("3.7.0".into()),
    };
    let etcds = decode_v2(read.data()).unwrap();
    assert_eq!(etcds, expected);

    let ours = encode_v2(&etcds.members, &[], Some("3.7.0"));
    let value = |json: &[u8]| -> serde_json::Value { serde_json::from_slice(json).unwrap() };
    let (ours, theirs) = (value(&ours), value(read.data()));
    assert_eq!(ours["Root"], theirs["Root"], "the tree is etcd's, node for node");
    assert_eq!(ours["CurrentVersion"], theirs["CurrentVersion"]);
    assert_eq!(ours["CurrentIndex"], theirs["CurrentIndex"]);
}

#[test]
fn the_tree_says_what_was_put_into_it() {
    let members = vec![
        MemberRecord {
            id: 5,
            peer_urls: vec!["http://a".into()],
            is_learner: true,
            ..Default::default()
        },
        MemberRecord {
            id: u64::MAX,
            peer_urls: vec!["http://b".into(), "http://\"c\"".into()],
            is_learner: false,
            name: "n\u{e9}".into(),
            client_urls: vec![],
        },
    ];
    let bytes = encode_v2(&members, &[9, 3], None);
    let backwards: Vec<_> = members.iter().rev().cloned().collect();
    assert_eq!(encode_v2(&backwards, &[3, 9], None), bytes);
    assert_eq!(
        decode_v2(&bytes).unwrap(),
        MembersV2 { members, removed: vec![3, 9], version: None }
    );
    assert_eq!(decode_v2(b"{}"), None);
    let bare = decode_v2(br#"{"Root":{"Path":"/","Children":null},"More":1}"#).unwrap();
    assert_eq!(bare, MembersV2::default());
}

#[test]
fn the_newest_that_the_log_knows_of() {
    let (_, snaps) = disk();
    assert_eq!(snaps.load_newest_available(&[note(1, 1)]).unwrap().snapshot, None);
    for (term, index) in [(1, 10), (2, 30), (3, 20), (3, 25)] {
        snaps.save(&snapshot(term, index)).unwrap();
    }
    let load = |notes: &[_]| snaps.load_newest_available(notes).unwrap().snapshot;
    assert_eq!(load(&[note(1, 10), note(3, 20)]), Some(snapshot(3, 20)));
    assert_eq!(load(&[note(1, 10), note(3, 30)]), Some(snapshot(1, 10)), "the term counts too");
    assert_eq!(load(&[]), None);
    assert_eq!(snaps.oldest_index().unwrap(), Some(10));
    assert_eq!(snaps.purge(3).unwrap().len(), 1);
    assert_eq!(load(&[note(1, 10), note(2, 30)]), Some(snapshot(2, 30)));
    assert_eq!(snaps.oldest_index().unwrap(), Some(20));
    assert!(snaps.purge(0).unwrap().is_empty());
}

/// A flipped bit anywhere, and a cut anywhere, is found, and an older snapshot is taken.
#[test]
fn i14102_damage_is_found_and_set_aside() {
    let (disk, snaps) = disk();
    snaps.save(&snapshot(1, 10)).unwrap();
    let whole = encode(&snapshot(1, 11));
    let broken = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|n| whole[..n].to_vec());
    for bytes in broken.chain(cut) {
        // The highest byte of the checksum's varint has bits that mean nothing.
        assert!(decode(&bytes).map_or(true, |s| s == snapshot(1, 11)), "{bytes:x?}");
    }
    let path = snaps.save(&snapshot(1, 11)).unwrap();
    disk.open(&path, Open::Write).unwrap().write_at(&[0xff], 20).unwrap();
    let notes = [note(1, 10), note(1, 11)];
    let found = snaps.find(&notes).unwrap();
    assert_eq!((found.snapshot, found.broken), (Some(snapshot(1, 10)), vec![path.clone()]));
    assert!(disk.exists(&path), "looking changes nothing");
    assert_eq!(snaps.load_newest_available(&notes).unwrap().snapshot, Some(snapshot(1, 10)));
    assert!(!disk.exists(&path));
    assert!(disk.exists(&path.with_extension("snap.broken")));
}

#[test]
fn a_crash_while_saving_leaves_the_old_or_the_new() {
    for call in 0.. {
        let (disk, snaps) = disk();
        snaps.save(&snapshot(1, 10)).unwrap();
        let start = disk.calls();
        let kind = io::ErrorKind::Other;
        disk.set_fault(Some(Fault { call: start + call, kind, forever: true }));
        let saved = snaps.save(&snapshot(1, 11)).is_ok();
        for seed in 0..30 {
            let after = Arc::new(disk.crash(Crash::Seed(seed)));
            let snaps = Snapshotter::new(after.clone(), Path::new("/snap"));
            let loaded = snaps.load_newest_available(&[note(1, 10), note(1, 11)]).unwrap();
            let index = position(&loaded.snapshot.unwrap()).0;
            assert!(index == 11 || (index == 10 && !saved));
            assert!(loaded.broken.is_empty());
            let names = after.list(Path::new("/snap")).unwrap();
            assert!(names.iter().all(|n| n.ends_with(".snap")), "{names:?}");
        }
        if saved {
            assert!(call >= 5, "each step was tried");
            break;
        }
    }
}

#[test]
fn databases_that_were_sent() {
    let (disk, snaps) = disk();
    for name in ["0000000000000005.snap.db", "000000000000000a.snap.db", "db", "x.snap.db"] {
        disk.open(&Path::new("/snap").join(name), Open::Create).unwrap();
    }
    assert_eq!(snaps.db_path(10), Path::new("/snap/000000000000000a.snap.db"));
    assert_eq!(snaps.release_dbs(10).unwrap(), [snaps.db_path(5)]);
    assert_eq!(disk.list(Path::new("/snap")).unwrap().len(), 3);
}
