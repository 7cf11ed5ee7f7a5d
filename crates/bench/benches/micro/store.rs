//! Applying log entries, reading, and encoding what was read, at 100,000 keys of 256 B.

use criterion::{BatchSize, Criterion, Throughput};
use etch_api::pb::etcdserverpb as pb;

use crate::machine::{Machine, Numbers, key, put};

const KEYS: u64 = 100_000;

/// All of them.
pub fn all(c: &mut Criterion) {
    let mut machine = Machine::filled(KEYS, 256);
    apply(c, &mut machine);
    machine.commit();
    read(c, &machine);
}

fn apply(c: &mut Criterion, machine: &mut Machine) {
    let mut group = c.benchmark_group("apply");
    let (mut numbers, value) = (Numbers(2), [b'y'; 256]);
    for batch in [1, 100] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("puts of 256 B, {batch} a batch"), |b| {
            let machine = std::cell::RefCell::new(&mut *machine);
            b.iter_batched(
                || {
                    let mut machine = machine.borrow_mut();
                    machine.commit_if_large();
                    let puts = (0..batch).map(|_| put(key(numbers.below(KEYS)), &value)).collect();
                    machine.entries(puts)
                },
                |entries| machine.borrow_mut().apply(&entries),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn read(c: &mut Criterion, machine: &Machine) {
    let mut group = c.benchmark_group("read and encode");
    let (store, mut numbers) = (machine.state.store(), Numbers(3));
    let answer = |request: &pb::RangeRequest| {
        let reply = store.range(request).expect("it is a good request");
        reply.into_bytes().expect("the file can be read")
    };
    group.throughput(Throughput::Elements(1));
    group.bench_function("get of 256 B", |b| {
        b.iter_batched(
            || pb::RangeRequest { key: key(numbers.below(KEYS)).into(), ..Default::default() },
            |request| answer(&request),
            BatchSize::SmallInput,
        );
    });
    let from = |number, limit, count_only| pb::RangeRequest {
        key: key(number).into(),
        range_end: b"/registry/pods0"[..].into(),
        limit,
        count_only,
        ..Default::default()
    };
    group.bench_function("count", |b| b.iter(|| answer(&from(KEYS / 2, 0, true))));
    group.throughput(Throughput::Elements(500));
    group.bench_function("page of 500", |b| b.iter(|| answer(&from(KEYS / 2, 500, false))));
    group.throughput(Throughput::Elements(KEYS));
    group.sample_size(10);
    group.bench_function("list of all", |b| b.iter(|| answer(&from(0, 0, false))));
    group.finish();
}
