//! Appending to the log: the processor's part without flushes, and with them what the disk adds.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use etch_api::pb::raftpb::Entry;
use etch_disk::fs::{Disk, RealDisk};
use etch_disk::wal::{Batch, Options, Wal};

use crate::machine::Dir;

/// All of them.
pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal");
    for (flush, batches) in [(false, [1, 100]), (true, [1, 100])] {
        for entries in batches {
            let name = if flush { "flushed" } else { "not flushed" };
            group.throughput(Throughput::Elements(entries));
            group.bench_function(format!("entries of 300 B, {entries} a batch, {name}"), |b| {
                let dir = Dir::new();
                let disk: Arc<dyn Disk> = match flush {
                    true => Arc::new(RealDisk::new()),
                    false => Arc::new(RealDisk::without_flush()),
                };
                let path = dir.path().join("wal");
                let mut wal = Wal::create(disk, &path, b"metadata", Options::default())
                    .expect("a new log can be made");
                let mut index = 0;
                b.iter(|| {
                    let batch = batch(index, entries);
                    index += entries;
                    wal.append(&batch).expect("the disk has room");
                    wal.sync().expect("the disk flushes");
                });
                // A benchmark's log is not to fill the disk.
                wal.release_to(index);
                wal.purge(0).expect("old segments can be removed");
            });
        }
    }
    group.finish();
}

fn batch(last: u64, entries: u64) -> Batch {
    let data = Bytes::from_static(&[b'x'; 300]);
    let entry = |index| Entry {
        term: Some(1),
        index: Some(index),
        data: Some(data.clone()),
        ..Entry::default()
    };
    Batch { entries: (last + 1..=last + entries).map(entry).collect(), hard_state: None }
}
