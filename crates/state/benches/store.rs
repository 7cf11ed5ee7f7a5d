//! How fast the store applies, gets and lists. `cargo bench -p etch-state --bench store`; one line a figure.
//! Not here: correctness, which is the tests'.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use etch_api::pb::etcdserverpb::{PutRequest, RangeRequest};
use etch_disk::backend::{Bolt, Options};
use etch_disk::fs::{Disk, MemDisk};
use etch_state::mvcc::{LeaseHook, Store, commit};
use etch_state::txn;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// No leases at all.
struct NoLeases;

impl LeaseHook for NoLeases {
    fn exists(&self, _: i64) -> bool {
        false
    }
    fn lease_of(&self, _: &[u8]) -> i64 {
        0
    }
    fn attach(&mut self, _: i64, _: &Bytes) {}
    fn detach(&mut self, _: i64, _: &[u8]) {}
}

const KEYS: usize = 100_000;
const BATCH: usize = 100;

fn report(what: &str, took: Duration, ops: usize) {
    println!("{what:<44} {:>9.1} ns", took.as_nanos() as f64 / ops as f64);
}

fn key(i: usize) -> Bytes {
    format!("/registry/pods/default/pod-{i:08}").into()
}

fn main() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let backend = Bolt::open(disk, Path::new("/db"), Options::default()).expect("memory opens");
    let (store, mut writer, _) = Store::open(backend).expect("an empty store opens");
    let value = Bytes::from(vec![b'v'; 256]);
    let requests: Vec<PutRequest> = (0..KEYS)
        .map(|i| PutRequest { key: key(i), value: value.clone(), ..PutRequest::default() })
        .collect();
    for round in ["put, new keys, 256 B, batches of 100", "put, the same keys again"] {
        let (mut took, mut committing) = (Duration::ZERO, Duration::ZERO);
        for (i, puts) in requests.chunks(BATCH).enumerate() {
            let began = Instant::now();
            let mut batch = writer.begin();
            for request in puts {
                black_box(txn::put(&mut batch, &mut NoLeases, request)).expect("it has no lease");
            }
            black_box(batch.finish());
            took += began.elapsed();
            if i % 100 == 99 {
                let began = Instant::now();
                commit(&store, &mut writer.take_pending()).expect("memory takes it");
                committing += began.elapsed();
            }
        }
        report(round, took, KEYS);
        report("  its commits, 10,000 changes each", committing, KEYS);
    }

    let mut out = BytesMut::new();
    let began = Instant::now();
    for i in 0..KEYS {
        let request = RangeRequest { key: key(i * 7919 % KEYS), ..RangeRequest::default() };
        out.clear();
        let mut reply = store.range(&request).expect("the newest revision");
        while reply.fill(&mut out, usize::MAX).expect("memory is read") {}
    }
    report("get, one key, from the tree", began.elapsed(), KEYS);

    let all = RangeRequest {
        key: Bytes::from_static(b"/registry/"),
        range_end: Bytes::from_static(b"/registry0"),
        ..RangeRequest::default()
    };
    let began = Instant::now();
    out.clear();
    let mut reply = store.range(&all).expect("the newest revision");
    let selected = began.elapsed();
    while reply.fill(&mut out, 64 << 10).expect("memory is read") {
        out.clear();
    }
    report("list of 100,000 keys, selected, a key", selected, KEYS);
    report("list of 100,000 keys, in all, a key", began.elapsed(), KEYS);

    let began = Instant::now();
    let (mut start, mut pages) = (all.key.clone(), 0);
    let revision = store.revision() - 5;
    for page in 0..KEYS / 500 {
        let request = RangeRequest { key: start, limit: 500, revision, ..all.clone() };
        out.clear();
        let mut reply = store.range(&request).expect("a revision that is there");
        while reply.fill(&mut out, usize::MAX).expect("memory is read") {}
        start = key((page + 1) * 500);
        pages += 1;
    }
    report("pages of 500 at an older revision, a page", began.elapsed(), pages);

    let began = Instant::now();
    black_box(store.hash_kv(0).expect("memory is read"));
    report("HashKV, a change", began.elapsed(), 2 * KEYS);
}
