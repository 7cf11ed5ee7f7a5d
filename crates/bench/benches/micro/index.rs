//! The index of keys: puts, look-ups, pages, counts, compaction, at 100,000 keys.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion, Throughput};
use etch_api::KeyRange;
use etch_state::mvcc::Revision;
use etch_state::mvcc::index::{Compaction, Index};

use crate::machine::{Numbers, key};

const KEYS: u64 = 100_000;
const SIZE: u32 = 300;

fn filled(rounds: u64) -> (Index, i64) {
    let (mut index, mut revision) = (Index::new(), 1);
    for _ in 0..rounds {
        for number in 0..KEYS {
            revision += 1;
            index.put(&key(number), Revision::new(revision, 0), |_| SIZE);
        }
    }
    (index, revision)
}

/// All of them.
pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    let (mut index, mut revision) = filled(1);
    let mut numbers = Numbers(1);
    let mut pick = || &keys[numbers.below(KEYS) as usize];
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |b| b.iter(|| index.get(black_box(pick()), revision)));
    let end = |k: &[u8]| KeyRange::HalfOpen(k.to_vec().into(), b"/registry/pods0"[..].into());
    group.bench_function("count of half of all", |b| {
        let range = end(&keys[KEYS as usize / 2]);
        b.iter(|| index.count(black_box(&range), revision));
    });
    group.throughput(Throughput::Elements(500));
    group.bench_function("page of 500", |b| {
        let range = end(&keys[KEYS as usize / 2]);
        b.iter(|| {
            let mut sizes = 0;
            index.walk(&range, None, revision, 500, |_, version| {
                sizes += version.size;
                ControlFlow::Continue(())
            });
            sizes
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("put again", |b| {
        b.iter(|| {
            revision += 1;
            index.put(black_box(pick()), Revision::new(revision, 0), |_| SIZE)
        });
    });
    group.throughput(Throughput::Elements(KEYS));
    group.sample_size(10);
    group.bench_function("compaction of two versions a key", |b| {
        b.iter_batched(|| filled(2), |(index, at)| compacted(index, at), BatchSize::PerIteration);
    });
    group.finish();
}

fn compacted(mut index: Index, at: i64) -> (Index, usize) {
    let (mut compaction, mut dropped) = (Compaction::new(at), Vec::new());
    while !index.compact_step(&mut compaction, 1000, &mut dropped) {}
    assert_eq!(dropped.len() as u64, KEYS);
    (index, dropped.len())
}
