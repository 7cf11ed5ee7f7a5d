//! What the commands take for files of two sizes: it must not grow with the length of the log, nor, once there is no
//! more room for keys, with their number. Not here: whether what they say is right.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::internal::{RequestKind, encode_entry};
use etch_api::pb::etcdserverpb::{Metadata, PutRequest};
use etch_api::pb::mvccpb::KeyValue;
use etch_api::pb::raftpb::{Entry, HardState};
use etch_disk::backend::{self, Backend as _, Batch, Bolt, Bucket};
use etch_disk::fs::{Disk, RealDisk};
use etch_disk::wal::{self, Wal};
use etch_fuzz::memory::{self, Counting};
use etch_state::members::Member;
use etch_state::mvcc::Revision;
use etch_state::mvcc::survey::{LiveKeys, Row, Survey};
use etch_state::offline;
use prost::Message as _;

#[global_allocator]
static MEMORY: Counting = Counting;

/// Bytes of an entry's value.
const VALUE: usize = 4 << 10;
const SEGMENT: u64 = 1 << 20;

/// A data directory that goes when the test is over.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A directory with so many keys in the database and so many entries in the log.
fn directory(name: &str, keys: i64, entries: u64) -> Dir {
    let dir = std::env::temp_dir().join(format!("etch-utl-memory-{}-{name}", std::process::id()));
    let dir = Dir(dir);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    let snap = dir.0.join("member").join("snap");
    disk.create_dir_all(&snap).expect("a directory");
    database(&disk, &snap.join("db"), keys, entries);

    let metadata = Metadata::of(1, 1).encode_to_vec();
    let options = wal::Options { segment_bytes: SEGMENT, ..wal::Options::default() };
    let log = dir.0.join("member").join("wal");
    let mut log = Wal::create(disk, &log, &metadata, options).expect("a log");
    let put = PutRequest { key: "k".into(), value: vec![7; VALUE].into(), ..Default::default() };
    let data = encode_entry(1, RequestKind::Put, &put.encode_to_vec());
    for index in 1..=entries {
        let entries = vec![Entry::normal(1, index, data.clone())];
        let hard_state = Some(HardState::of(1, 1, index));
        log.append(&wal::Batch { entries, hard_state }).expect("room");
    }
    log.close().expect("room");
    dir
}

/// All keys are older than the compacted revision; no one is written twice, and the last is deleted behind it.
fn database(disk: &Arc<dyn Disk>, path: &Path, keys: i64, entries: u64) {
    let options = backend::Options::default();
    let bolt = Bolt::open(Arc::clone(disk), path, options).expect("a database");
    let member = Member { id: 1, name: "m".into(), ..Member::default() };
    let mut batch = offline::new_cluster(&bolt.snapshot(), &[member], entries, 1).expect("rows");
    for main in 2..keys + 2 {
        let key = Bytes::from(format!("key-{main:09}"));
        let kv = KeyValue {
            key: key.clone(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            lease: 9,
            ..KeyValue::default()
        };
        let (row, value) = (Revision::new(main, 0).encode(), Bytes::from(kv.encode_to_vec()));
        batch.put(Bucket::Key, &row[..], value);
        if main == keys + 1 {
            let row = Revision::new(main + 1, 0).encode_tombstone();
            let value = KeyValue { key, ..KeyValue::default() }.encode_to_vec();
            batch.put(Bucket::Key, &row[..], Bytes::from(value));
        }
    }
    for mark in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
        let at = Revision::new(keys + 1, 0).encode();
        batch.put(Bucket::Meta, mark, Bytes::copy_from_slice(&at));
    }
    let lease = etch_api::pb::leasepb::Lease { id: 9, ttl: 60, remaining_ttl: 0 };
    batch.put(Bucket::Lease, 9_i64.to_be_bytes(), Bytes::from(lease.encode_to_vec()));
    bolt.commit(&mut batch).expect("room");
    drop::<Batch>(batch);
}

/// The most that is held during a call, beyond what was held before.
fn taken(call: impl FnOnce()) -> usize {
    let before = memory::begin();
    call();
    memory::peak() - before
}

fn command(words: &[&str], dir: &Dir) -> usize {
    let db = dir.0.join("member").join("snap").join("db");
    let put = |word: &&str| match *word {
        "DIR" => dir.0.display().to_string(),
        "DB" => db.display().to_string(),
        word => word.to_owned(),
    };
    let words: Vec<String> = words.iter().map(put).collect();
    taken(|| assert_eq!(etch_utl::run("etchutl", &words), 0, "{words:?}"))
}

/// One test: the count is of the whole process.
#[test]
fn memory_does_not_grow_with_the_file() {
    let (short, long) = (directory("short", 10, 300), directory("long", 10, 3_000));
    for words in
        [&["verify", "DIR"][..], &["migrate", "--data-dir", "DIR", "--target-version", "3.6"]]
    {
        let (one, ten) = (command(words, &short), command(words, &long));
        assert!(ten < one + (SEGMENT / 4) as usize, "{words:?}: {one} and {ten} bytes");
    }

    // While there is room, a command holds a hash for each key, which is much less than the index of a store.
    let (few, many) = (directory("few", 10_000, 1), directory("many", 100_000, 1));
    for words in [&["snapshot", "status", "DB"][..], &["hashkv", "DB"], &["verify", "DIR"]] {
        let (one, ten) = (command(words, &few), command(words, &many));
        assert!(ten < one + 90_000 * 50, "{words:?}: {one} and {ten} bytes");
    }
    let survey = |dir: &Dir| {
        let disk = RealDisk::new();
        let db = dir.0.join("member").join("snap").join("db");
        let snapshot = backend::open_read_only(&disk, &db).expect("a database");
        let survey = Survey::new(snapshot, 2_000).expect("a history");
        let live = || {
            let mut live = LiveKeys::new(2_000);
            let see = |row: &Row<'_>| {
                live.see(row);
                Ok(ControlFlow::Continue(()))
            };
            survey.rows(Revision::default(), see).expect("a history");
            survey.count(live).expect("a history")
        };
        let hash = || survey.hash_kv(0).is_ok();
        [taken(|| assert!(hash())), taken(|| assert!(live() > 9_000))]
    };
    let (one, ten) = (survey(&few), survey(&many));
    for (one, ten) in one.into_iter().zip(ten) {
        assert!(ten < one + 4_096, "{one} and {ten} bytes");
    }
}
