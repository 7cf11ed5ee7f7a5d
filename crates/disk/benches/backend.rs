//! Processor time of the B+tree for a key: appending, looking up, scanning. A plain program:
//! `cargo bench -p etch-disk --bench backend [keys] [bytes a value]`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use etch_disk::backend::{Backend, Batch, Bolt, Bucket, Options};
use etch_disk::fs::RealDisk;

/// Processor seconds of this process so far, from the kernel's own count.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<i64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // utime and stime, in hundredths; the state's letter before them is no number and fell out.
    fields.get(10).zip(fields.get(11)).map_or(0.0, |(user, system)| (user + system) as f64 / 100.0)
}

fn measure<T>(what: &str, n: u64, run: impl FnOnce() -> T) -> T {
    let (before, clock) = (cpu(), std::time::Instant::now());
    let out = run();
    let (cpu, wall) = (cpu() - before, clock.elapsed().as_secs_f64());
    let each = |seconds: f64| seconds * 1e9 / n as f64;
    println!("{what:<28} {:>8.0} ns CPU {:>8.0} ns wall, a key", each(cpu), each(wall));
    out
}

fn key(i: u64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&i.to_be_bytes());
    key[9..].copy_from_slice(&0u64.to_be_bytes());
    key
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let (keys, len) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(256) as usize);
    let dir: PathBuf = std::env::temp_dir().join(format!("etch-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let path = dir.join("db");
    let disk = Arc::new(RealDisk::new());
    let bolt = Bolt::open(disk.clone(), &path, Options::default()).expect("a database");
    let value = Bytes::from(vec![7; len]);
    measure("append, 10,000 a commit", keys, || {
        let mut batch = Batch::new();
        for i in 1..=keys {
            batch.put(Bucket::Key, key(i), value.clone());
            if batch.len() == 10_000 || i == keys {
                bolt.commit(&mut batch).expect("a commit");
            }
        }
    });
    println!("file: {} MiB for {} MiB", bolt.size() >> 20, (keys * (17 + len as u64)) >> 20);
    let snapshot = bolt.snapshot();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        key((seed >> 33) % keys + 1)
    };
    for round in ["cold map", "warm"] {
        measure(&format!("point get, random, {round}"), keys, || {
            for _ in 0..keys {
                assert!(snapshot.get(Bucket::Key, &random()).expect("readable").is_some());
            }
        });
    }
    let mut near = snapshot.cursor(Bucket::Key).expect("a bucket");
    measure("cursor get, near keys", keys, || {
        for i in 1..=keys {
            assert!(near.get(&key(i)).expect("readable").is_some());
        }
    });
    let bytes = measure("scan", keys, || {
        let mut rows = snapshot.cursor(Bucket::Key).expect("a bucket");
        let mut bytes = 0;
        while let Some((key, value)) = rows.next().expect("readable") {
            bytes +=
                key.len() + value.iter().step_by(64).map(|b| usize::from(*b > 0)).sum::<usize>();
        }
        bytes
    });
    assert!(bytes > 0);
    drop(snapshot);
    drop(bolt);
    let bolt = measure("open, walking it all", keys, || {
        Bolt::open(disk.clone(), &path, Options::default()).expect("a database")
    });
    measure("delete every second", keys / 2, || {
        let mut batch = Batch::new();
        for i in (1..=keys).step_by(2) {
            batch.delete(Bucket::Key, key(i));
            if batch.len() == 10_000 {
                bolt.commit(&mut batch).expect("a commit");
            }
        }
        bolt.commit(&mut batch).expect("a commit");
    });
    measure("shrink, 1,000 pages a step", keys / 2, || {
        while bolt.shrink(1_000).expect("a step").more {}
    });
    println!("file: {} MiB after that", bolt.file_size().expect("a length") >> 20);
    drop(bolt);
    let _ = std::fs::remove_dir_all(&dir);
}
