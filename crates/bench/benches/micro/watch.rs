//! Events to watchers: who watches a key, and what each stream sends.

use std::sync::Arc;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use etch_api::pb::etcdserverpb as pb;
use etch_state::watch::{Doorbell, OutMessage, StreamConfig, StreamState, Wake};

use crate::machine::{Machine, key, put};

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

/// All of them.
pub fn all(c: &mut Criterion) {
    let mut group = c.benchmark_group("watch");
    // One event to all watchers of its key; one event to one watcher beside many of other keys.
    for watchers in [1, 100, 10_000] {
        group.throughput(Throughput::Elements(watchers));
        group.bench_function(format!("an event to {watchers} watchers of its key"), |b| {
            events(b, watchers, |_| key(0));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("an event to 1 of 10,000 watchers of as many keys", |b| {
        events(b, 10_000, key);
    });
    group.finish();
}

fn events(b: &mut criterion::Bencher<'_>, watchers: u64, watched: fn(u64) -> Vec<u8>) {
    let machine = Machine::new();
    let mut stream = opened(&machine, watchers, watched);
    let machine = std::cell::RefCell::new(machine);
    b.iter_batched(
        || {
            let mut machine = machine.borrow_mut();
            machine.commit_if_large();
            machine.entries(vec![put(key(0), b"a value")])
        },
        |entries| {
            let mut machine = machine.borrow_mut();
            machine.apply(&entries);
            sent(&machine, &mut stream)
        },
        BatchSize::PerIteration,
    );
}

/// A stream with watchers of the keys named, their creation told.
pub fn opened(machine: &Machine, watchers: u64, watched: fn(u64) -> Vec<u8>) -> StreamState {
    let doorbell = Doorbell::new(Arc::new(Silent));
    let config = StreamConfig::default();
    let mut stream = StreamState::new(machine.state.hub(), &doorbell, 0, 0, config);
    for number in 0..watchers {
        let request = pb::WatchCreateRequest { key: watched(number).into(), ..Default::default() };
        stream.create(&request, Ok(()), machine.state.store().as_ref());
    }
    sent(machine, &mut stream);
    stream
}

/// Takes out what the stream has to say, encoded.
pub fn sent(machine: &Machine, stream: &mut StreamState) -> usize {
    let (mut out, mut bytes) = (Vec::<OutMessage>::new(), 0);
    while stream.poll(machine.state.store().as_ref(), 1 << 20, &mut out).expect("it can be read") {}
    for message in &out {
        let mut fields = BytesMut::new();
        message.encode_fields(&mut fields);
        bytes += fields.len() + message.pieces().iter().map(|piece| piece.len()).sum::<usize>();
    }
    bytes
}
