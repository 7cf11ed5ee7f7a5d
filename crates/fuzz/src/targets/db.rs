//! The B+tree's file: pages of any content, and tables of any rows. Not here: requests.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::RangeRequest;
use etch_disk::backend::{Backend, Batch, Bolt, Bucket, Options, open_read_only};
use etch_disk::fs::{Disk, MemDisk, Open, read_all};
use etch_state::lease::LessorConfig;
use etch_state::{State, StateConfig};

use crate::{Bits, Target};

/// A file of any bytes. The first byte says whether the meta pages' checksums are made right.
pub const TARGET: Target =
    Target { name: "db", run: file, seeds: || vec![good(0), good(1)], memory: 16 << 20 };

/// Rows of any content in the tables of a good file: members, alarms, leases, users, revisions, all of them.
pub const ROWS: Target = Target { name: "db_rows", run: rows, seeds: some_rows, memory: 16 << 20 };

/// Small pages make small inputs.
const PAGE: usize = 1024;
const PATH: &str = "/db";
/// A file that says it is longer is not tried.
const LARGE: u64 = 4 << 20;

/// How the state is opened here.
pub fn config() -> StateConfig {
    let leases = LessorConfig::default();
    StateConfig { quota_bytes: 0, leases, persist_checkpoints: true }
}

/// A store in memory.
pub fn open(disk: &MemDisk) -> std::io::Result<Arc<Bolt>> {
    let options = Options { page_size: PAGE, grow: 4096 };
    Bolt::open(Arc::new(disk.clone()), Path::new(PATH), options)
}

fn file(input: &[u8]) {
    let mut bits = Bits(input);
    let mend = bits.byte() & 1 == 1;
    let mut bytes = bits.0.to_vec();
    if mend {
        mend_metas(&mut bytes);
    }
    if claimed_len(&bytes) > LARGE {
        return;
    }
    let disk = MemDisk::new();
    let file = disk.open(Path::new(PATH), Open::Create).expect("memory");
    file.write_at(&bytes, 0).expect("memory");
    drop(file);
    if let Ok(snapshot) = open_read_only(&disk, Path::new(PATH)) {
        let _ = snapshot.check();
        for bucket in Bucket::ALL {
            let _ = snapshot.get(bucket, b"k");
            walk(&snapshot, bucket);
        }
    }
    let Ok(tree) = open(&disk) else { return };
    tree.snapshot().check().expect("it was checked when it was opened");
    let _ = read_all_of(&tree);
    let mut batch = Batch::new();
    batch.put(Bucket::Key, [7; 17], Bytes::from_static(b"value"));
    batch.delete(Bucket::Lease, [0; 8]);
    if tree.commit(&mut batch).is_ok() {
        tree.snapshot().check().expect("a commit leaves a good file");
        let _ = tree.shrink(4);
        drop(tree);
        let again = open(&disk).expect("what was written can be opened");
        assert_eq!(again.snapshot().get(Bucket::Key, &[7; 17]).expect("read"), Some(&b"value"[..]));
    }
}

/// How long a meta page says that the file is: a real disk gives that without blocks, memory does not.
fn claimed_len(bytes: &[u8]) -> u64 {
    let word = |page: &[u8], at: usize| {
        page.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
    };
    let len = |page: &[u8]| word(page, 56).saturating_mul(word(page, 24) & 0xffff_ffff);
    bytes.chunks(PAGE).take(2).map(len).max().unwrap_or(0)
}

fn walk(snapshot: &etch_disk::backend::Snapshot, bucket: Bucket) {
    let Ok(mut cursor) = snapshot.cursor(bucket) else { return };
    // A file that was not checked may lead in a circle.
    for _ in 0..10_000 {
        match cursor.next() {
            Ok(Some(_)) => {}
            _ => return,
        }
    }
}

/// Opens a state over the store, and looks at all that it shows.
fn read_all_of(tree: &Arc<Bolt>) -> std::io::Result<()> {
    let tree: Arc<dyn Backend> = tree.clone();
    let mut state = State::open(tree, &config())?;
    let all = Bytes::from_static(b"\0");
    let request = RangeRequest { key: all.clone(), range_end: all, ..RangeRequest::default() };
    if let Ok(reply) = state.store().range(&request) {
        let _ = reply.into_bytes();
    }
    let _ = state.store().hash_kv(0);
    let _ = state.store().hash();
    for id in state.lessor().leases(0) {
        let _ = state.lessor().keys(id);
    }
    for _ in 0..64 {
        if !state.is_compacting() || state.compaction_step(16).is_err() {
            break;
        }
    }
    let (mut batch, revision) = state.take_commit();
    state.store().backend().commit(&mut batch)?;
    state.committed(revision);
    Ok(())
}

fn rows(input: &[u8]) {
    let disk = MemDisk::new();
    let tree = open(&disk).expect("a new file");
    let (mut bits, mut batch) = (Bits(input), Batch::new());
    while !bits.is_empty() {
        let bucket = Bucket::ALL[bits.below(Bucket::ALL.len())];
        let key = bits.piece();
        let value = Bytes::copy_from_slice(bits.piece());
        batch.put(bucket, key, value);
    }
    if tree.commit(&mut batch).is_ok() {
        let _ = read_all_of(&tree);
    }
}

fn mend_metas(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE).take(2) {
        let Some(body) = page.get_mut(16..80) else { return };
        let sum = body[..56].iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        body[56..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// A file as we write it, with a tree of two levels.
fn good(first: u8) -> Vec<u8> {
    let disk = MemDisk::new();
    let tree = open(&disk).expect("a new file");
    let mut batch = Batch::new();
    for n in 0..40u8 {
        batch.put(Bucket::Key, revision(n.into()), kv(n));
    }
    batch.put(Bucket::Members, &b"1f"[..], member());
    tree.commit(&mut batch).expect("memory");
    let len = tree.size() as usize;
    let file = disk.open(Path::new(PATH), Open::Read).expect("memory");
    let mut bytes = read_all(file.as_ref()).expect("memory");
    bytes.truncate(len);
    bytes.insert(0, first);
    bytes
}

fn revision(main: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&(main + 2).to_be_bytes());
    key[8] = b'_';
    key
}

fn kv(n: u8) -> Bytes {
    let kv = etch_api::pb::mvccpb::KeyValue {
        key: Bytes::copy_from_slice(&[b'k', n % 7]),
        value: vec![n; 20].into(),
        create_revision: 2,
        mod_revision: i64::from(n) + 2,
        version: 1,
        lease: i64::from(n % 3),
    };
    prost::Message::encode_to_vec(&kv).into()
}

fn member() -> Bytes {
    Bytes::from_static(
        br#"{"id":31,"peerURLs":["http://a:2380"],"name":"n","clientURLs":["http://a:2379"]}"#,
    )
}

fn some_rows() -> Vec<Vec<u8>> {
    let rows: [(Bucket, &[u8], &[u8]); 12] = [
        (Bucket::Key, &revision(3), &kv(3)),
        (Bucket::Key, &revision(4), &kv(4)),
        (Bucket::Meta, b"consistent_index", &9u64.to_be_bytes()),
        (Bucket::Meta, b"scheduledCompactRev", &revision(1)),
        (Bucket::Meta, b"finishedCompactRev", &revision(1)),
        (Bucket::Meta, b"storageVersion", b"3.7.0"),
        (Bucket::Lease, &7u64.to_be_bytes(), b"\x08\x07\x10\x64"),
        (Bucket::Alarm, b"\x08\x07\x10\x01", b""),
        (Bucket::Cluster, b"clusterVersion", b"3.7.0"),
        (Bucket::Cluster, b"downgrade", br#"{"target-version":"3.6.0","enabled":true}"#),
        (Bucket::Members, b"1f", &member()),
        (Bucket::MembersRemoved, b"2f", b"removed"),
    ];
    let mut all = Vec::new();
    for (bucket, key, value) in rows {
        all.push(bucket as u8);
        Bits::put(&mut all, key);
        Bits::put(&mut all, value);
    }
    vec![all]
}
