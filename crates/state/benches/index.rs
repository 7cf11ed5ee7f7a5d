//! What the index costs: bytes a key and nanoseconds an operation, over keys like those of a
//! Kubernetes cluster. `cargo bench -p etch-state --bench index -- [part] [keys]`. Numbers to read, not a test.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use etch_api::range::KeyRange;
use etch_state::mvcc::Revision;
use etch_state::mvcc::index::{Builder, Compaction, Index, Restored};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Scrambles a number: the same each run.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 54 bytes: kind, namespace, and a name with a random tail.
fn key(n: u64) -> Vec<u8> {
    let kinds = ["pods////", "events//", "secrets/", "leases//"];
    let (kind, space) = (kinds[mix(n) as usize % 4], mix(n) / 4 % 200);
    let name = mix(n ^ 0xabcd) % 400;
    format!("/registry/{kind}namespace-{space:03}/svc-{name:03}-{:013x}", mix(n + 1) >> 12)
        .into_bytes()
}

fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .map_or(0, |p: i64| p * 4096)
}

/// Nanoseconds that this process has had a core, so that what else runs here counts for less.
fn cpu() -> u64 {
    let stat = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// Runs `f` and prints what each of `n` operations took.
fn timed<T>(what: &str, n: u64, f: impl FnOnce() -> T) -> T {
    let start = cpu();
    let result = f();
    println!("{what:40} {:>9.1} ns", (cpu() - start) as f64 / n as f64);
    result
}

fn filled(keys: &[Vec<u8>]) -> Index {
    let mut index = Index::new();
    for (i, key) in keys.iter().enumerate() {
        index.put(key, Revision::new(i as i64 + 2, 0), |_| 300);
    }
    index
}

fn reads(keys: &[Vec<u8>], index: &Index, label: &str) {
    let n = keys.len() as u64;
    timed(&format!("get, random{label}"), n, || {
        for i in 0..n {
            black_box(index.get(&keys[(mix(i + 7) % n) as usize], i64::MAX));
        }
    });
    let pods = KeyRange::prefix(Bytes::from_static(b"/registry/pods"));
    timed(&format!("walk, a key of a page of 500{label}"), 200 * 500, || {
        for i in 0..200 {
            let mut left = 500;
            let after = &keys[(mix(i + 9) % n) as usize];
            index.walk(&KeyRange::All, Some(after), i64::MAX, usize::MAX, |key, version| {
                black_box((key, version));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
    });
    timed(&format!("count of a prefix{label}"), 100_000, || {
        (0..100_000).for_each(|_| assert!(black_box(index.count(&pods, i64::MAX)) > 0));
    });
}

fn memory(what: &str, before: i64, n: u64) {
    println!("{what:40} {:>9.1} B", (resident() - before) as f64 / n as f64);
}

/// The bar to beat: a map of the standard library with 32 bytes for each key.
fn plain_map(keys: &[Vec<u8>]) {
    let n = keys.len() as u64;
    let before = resident();
    let mut map: BTreeMap<Box<[u8]>, [u64; 4]> = BTreeMap::new();
    timed("BTreeMap: insert, random order", n, || {
        for (i, key) in keys.iter().enumerate() {
            map.insert(key.as_slice().into(), [i as u64; 4]);
        }
    });
    println!(
        "{:40} {:>9.1} B",
        "BTreeMap: memory of a key",
        (resident() - before) as f64 / n as f64
    );
    timed("BTreeMap: get, random", n, || {
        for i in 0..n {
            black_box(map.get(keys[(mix(i + 7) % n) as usize].as_slice()));
        }
    });
}

fn random_order(keys: &[Vec<u8>]) {
    let n = keys.len() as u64;
    let before = resident();
    let mut index = timed("put, new key, random order", n, || filled(keys));
    memory("memory of a key, all told", before, n);
    reads(keys, &index, "");

    let last = n as i64 + 1;
    timed("put, second version", n, || {
        for i in 0..n {
            let key = &keys[(mix(i + 11) % n) as usize];
            index.put(key, Revision::new(last + 1 + i as i64, 0), |_| 300);
        }
    });
    memory("memory of a key, two versions", before, n);
    reads(keys, &index, ", two versions");
    timed("get at an older revision, random", n, || {
        for i in 0..n {
            black_box(index.get(&keys[(mix(i + 7) % n) as usize], last));
        }
    });
    let now = last + n as i64;
    for (i, key) in keys.iter().take(10_000).enumerate() {
        index.delete(key, Revision::new(now + 1 + i as i64, 0));
    }
    timed("count before 10 000 deaths", 200, || {
        (0..200).for_each(|_| assert_eq!(index.count(&KeyRange::All, now), n));
    });
    compaction(&mut index, now + 10_000, n);
}

fn compaction(index: &mut Index, at: i64, n: u64) {
    let mut dropped = Vec::new();
    let mut longest = 0;
    timed("compaction, a key", n, || {
        let mut compaction = Compaction::new(at);
        loop {
            let start = Instant::now();
            let done = index.compact_step(&mut compaction, 1000, &mut dropped);
            longest = longest.max(start.elapsed().as_micros());
            dropped.clear();
            if done {
                break;
            }
        }
    });
    println!("{:40} {longest:>9} us", "longest compaction step of 1000");
}

fn ascending(keys: &[Vec<u8>]) {
    let mut sorted = keys.to_vec();
    sorted.sort();
    // Copies that lie in memory in their order, as keys from requests would be at hand.
    let sorted: Vec<Vec<u8>> = sorted.iter().map(|key| key.as_slice().to_vec()).collect();
    let before = resident();
    let index = timed("put, new key, ascending", keys.len() as u64, || filled(&sorted));
    memory("memory of a key, ascending", before, index.len());
}

fn restored(keys: &[Vec<u8>]) {
    let n = keys.len() as u64;
    let before = resident();
    let index = timed("restore, random order", n, || {
        let mut builder = Builder::new();
        for (i, key) in keys.iter().enumerate() {
            let revision = Revision::new(i as i64 + 2, 0);
            let (tombstone, created) = (false, revision.main);
            builder.push(key, Restored { revision, tombstone, created, version: 1, size: 300 });
        }
        builder.finish()
    });
    memory("memory of a key, restored", before, n);
    assert_eq!(index.live(), n);
}

type Part = fn(&[Vec<u8>]);

/// Runs one part, or all; memory is told rightly only for the first part of a run.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let n = args.iter().filter_map(|a| a.parse().ok()).next().unwrap_or(1_000_000_u64);
    let keys: Vec<Vec<u8>> = (0..n).map(key).collect();
    let text: usize = keys.iter().map(Vec::len).sum();
    println!("{n} keys of {} bytes", text / keys.len());
    let parts: [(&str, Part); 4] = [
        ("random", random_order),
        ("ascending", ascending),
        ("restore", restored),
        ("map", plain_map),
    ];
    let named = |name: &str| args.iter().any(|a| a == name);
    let all = !parts.iter().any(|(name, _)| named(name));
    for (_, part) in parts.iter().filter(|(name, _)| all || named(name)) {
        part(&keys);
    }
}
