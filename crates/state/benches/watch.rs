//! What a watched event costs in CPU time: fan-out to a thousand watchers, and matching among a hundred
//! thousand. Run with `cargo bench -p etch-state --bench watch`. Not here: the network.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use etch_api::KeyRange;
use etch_api::pb::etcdserverpb::WatchCreateRequest;
use etch_api::pb::mvccpb;
use etch_state::mvcc::{Budget, Event, EventKind, History, Revision};
use etch_state::watch::{
    Doorbell, HistoryError, HistorySource, Hub, StreamConfig, StreamState, Wake,
};
use prost::Message;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

/// A store of which nobody reads history.
struct Present;

impl HistorySource for Present {
    fn revision(&self) -> i64 {
        1
    }

    fn compact_revision(&self) -> i64 {
        -1
    }

    fn history(&self, _: &KeyRange, _: i64, to: i64, _: Budget) -> Result<History, HistoryError> {
        Ok(History { events: Vec::new(), next: to + 1 })
    }

    fn previous_kv(&self, _: &Event) -> io::Result<Option<Bytes>> {
        Ok(None)
    }
}

fn event(key: &str, revision: i64) -> Arc<Event> {
    let kv = mvccpb::KeyValue {
        key: key.to_owned().into(),
        mod_revision: revision,
        create_revision: 2,
        version: revision,
        value: vec![b'v'; 256].into(),
        lease: 0,
    };
    let (key, encoded) = (kv.key.clone(), kv.encode_to_vec().into());
    Arc::new(Event::new(Revision::new(revision, 0), EventKind::Put, key, encoded, None))
}

fn watch(key: String, end: String) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), range_end: end.into(), ..WatchCreateRequest::default() }
}

fn streams(hub: &Arc<Hub>, count: u64) -> Vec<StreamState> {
    let doorbell = Doorbell::new(Arc::new(Silent));
    (0..count)
        .map(|token| StreamState::new(hub, &doorbell, token, 0, StreamConfig::default()))
        .collect()
}

/// One key, a thousand watchers on ten streams; each batch brings some events.
fn fan_out(batch: usize) {
    let hub = Hub::new(1);
    let mut streams = streams(&hub, 10);
    for stream in &mut streams {
        for _ in 0..100 {
            stream.create(&watch("/registry/pods/one".into(), String::new()), Ok(()), &Present);
        }
        stream.poll(&Present, 1 << 20, &mut Vec::new()).unwrap();
    }
    let rounds = 20_000 / batch;
    let mut events: Vec<_> =
        (0..rounds * batch).map(|n| event("/registry/pods/one", n as i64 + 2)).collect();
    let (mut out, mut wire, mut delivered) = (Vec::new(), BytesMut::new(), 0);
    let (mut notify, start) = (0, Instant::now());
    let mut revision = 1;
    while !events.is_empty() {
        let some: Vec<_> = events.drain(..batch.min(events.len())).collect();
        revision += some.len() as i64;
        let before = Instant::now();
        hub.notify(&some, revision);
        notify += before.elapsed().as_nanos();
        for stream in &mut streams {
            while stream.poll(&Present, 1 << 20, &mut out).unwrap() {}
            for message in out.drain(..) {
                wire.clear();
                message.encode_fields(&mut wire);
                delivered += black_box(message.pieces()).len();
            }
        }
    }
    let total = start.elapsed().as_nanos();
    println!(
        "fan-out, {batch:>3} events a batch, 1 key x 1000 watchers on 10 streams: {:>5.1} ns an event delivered, \
         {:>5.0} ns an event on the node thread",
        total as f64 / delivered as f64,
        notify as f64 / (rounds * batch) as f64,
    );
}

/// Hundred thousand watchers of other keys or ranges; each event meets one.
fn matching(name: &str, range: impl Fn(usize) -> (String, String)) {
    const WATCHERS: usize = 100_000;
    let hub = Hub::new(1);
    let mut streams = streams(&hub, 100);
    let start = Instant::now();
    for n in 0..WATCHERS {
        let (key, end) = range(n);
        let stream = &mut streams[n % 100];
        stream.create(&watch(key, end), Ok(()), &Present);
        stream.poll(&Present, 1 << 20, &mut Vec::new()).unwrap();
    }
    let created = start.elapsed().as_nanos() as f64 / WATCHERS as f64;
    let events: Vec<_> = (0..WATCHERS)
        .map(|n| event(&format!("/key/{:06}x", n * 7919 % WATCHERS), n as i64 + 2))
        .collect();
    let start = Instant::now();
    for batch in events.chunks(100) {
        hub.notify(batch, batch.last().unwrap().revision.main);
    }
    let matched = start.elapsed().as_nanos() as f64 / WATCHERS as f64;
    println!(
        "matching among 100,000 {name}: {matched:>4.0} ns an event; {created:>5.0} ns to create a watcher"
    );
}

fn main() {
    for batch in [1, 10, 100] {
        fan_out(batch);
    }
    matching("keys", |n| (format!("/key/{n:06}x"), String::new()));
    matching("ranges", |n| (format!("/key/{n:06}"), format!("/key/{n:06}~")));
}
