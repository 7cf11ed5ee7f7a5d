//! Loads that live on streams: many watchers of one key, and keep-alives of many leases. Not here: unary calls
//! (`closed`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use etch_api::pb::etcdserverpb as pb;
use hdrhistogram::Histogram;
use prost::Message;

use crate::closed::histogram;
use crate::engine::{Driver, Engine};
use crate::link::{Event, Link};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const PUT: &str = "/etcdserverpb.KV/Put";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const LIMIT: Duration = Duration::from_secs(120);
/// A renewal that is not answered for so long is not answered any more: etcd's proxy forgets some.
const FORGOTTEN: Duration = Duration::from_secs(20);
const KEY: &[u8] = b"fan-out";

/// Messages out of the pieces of a stream.
#[derive(Default)]
struct Messages {
    rest: Vec<u8>,
}

impl Messages {
    /// Adds a piece, and calls `on` with each message that is whole.
    fn push(&mut self, piece: &[u8], mut on: impl FnMut(&[u8])) {
        self.rest.extend_from_slice(piece);
        let mut at = 0;
        while let Some(head) = self.rest.get(at..at + 5) {
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(message) = self.rest.get(at + 5..at + 5 + len) else { break };
            on(message);
            at += 5 + len;
        }
        self.rest.drain(..at);
    }
}

/// What came of a fan-out.
pub struct FanOut {
    /// Events that arrived.
    pub events: u64,
    /// From the first put to the last event.
    pub time: Duration,
    /// From a put's departure to its event, in microseconds, on the first connection.
    pub latency: Histogram<u64>,
}

/// Watches one key `each` times on every connection but the last, which then puts for `time`, `depth` requests
/// at once. `begin` is called when all watches stand.
pub fn fan_out(
    engine: &mut Engine,
    each: usize,
    depth: usize,
    time: Duration,
    begin: impl FnOnce(),
) -> Result<FanOut, String> {
    let watching = engine.connections() - 1;
    let mut driver = Watched {
        watching,
        each,
        depth,
        opened: vec![false; watching],
        messages: (0..watching).map(|_| Messages::default()).collect(),
        created: 0,
        start: Instant::now(),
        stop: None,
        puts: 0,
        under_way: 0,
        events: 0,
        ended: 0,
        latency: histogram(),
        message: Vec::new(),
    };
    engine.run(&mut driver, LIMIT)?;
    begin();
    driver.start = Instant::now();
    driver.stop = Some(driver.start + time);
    engine.run(&mut driver, time + LIMIT)?;
    if driver.ended > 0 || driver.events == 0 {
        return Err(format!("{} events, {} watch streams ended", driver.events, driver.ended));
    }
    let time = driver.start.elapsed();
    Ok(FanOut { events: driver.events, time, latency: driver.latency })
}

struct Watched {
    watching: usize,
    each: usize,
    depth: usize,
    opened: Vec<bool>,
    messages: Vec<Messages>,
    created: usize,
    start: Instant,
    /// When the puts end; none as long as the watches are being made.
    stop: Option<Instant>,
    puts: u64,
    under_way: usize,
    events: u64,
    ended: u64,
    latency: Histogram<u64>,
    message: Vec<u8>,
}

impl Watched {
    fn watch(&mut self, conn: usize, link: &mut Link) {
        if std::mem::replace(&mut self.opened[conn], true) {
            return;
        }
        let create = pb::WatchCreateRequest { key: KEY.into(), ..Default::default() };
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        }
        .encode_to_vec();
        let id = link.open(WATCH, &request, false);
        (1..self.each).for_each(|_| link.send(id, &request, false));
    }

    fn put(&mut self, now: Instant, link: &mut Link) {
        while self.under_way < self.depth && self.stop.is_some_and(|at| now < at) {
            // The event brings the time back.
            let mut value = vec![b'v'; 256];
            let since = now.duration_since(self.start).as_micros() as u64;
            value[..8].copy_from_slice(&since.to_be_bytes());
            let put = pb::PutRequest { key: KEY.into(), value: value.into(), ..Default::default() };
            self.message.clear();
            put.encode(&mut self.message).expect("a vector grows");
            link.open(PUT, &self.message, true);
            self.under_way += 1;
            self.puts += 1;
        }
    }

    fn take(&mut self, now: Instant, conn: usize, piece: &[u8]) {
        let mut messages = std::mem::take(&mut self.messages[conn]);
        messages.push(piece, |message| {
            let seen = WatchAnswer::read(message);
            self.created += usize::from(seen.created);
            self.events += seen.events;
            if let (0, Some(since)) = (conn, seen.put_at) {
                let us = now.duration_since(self.start).as_micros() as u64;
                self.latency.saturating_record(us.saturating_sub(since).max(1));
            }
        });
        self.messages[conn] = messages;
    }
}

impl Driver for Watched {
    fn pump(&mut self, now: Instant, conn: usize, link: &mut Link) {
        if conn < self.watching {
            self.watch(conn, link);
        } else {
            self.put(now, link);
        }
    }

    fn event(&mut self, now: Instant, conn: usize, event: Event<'_>) {
        match event {
            Event::Data(_, piece) if conn < self.watching => self.take(now, conn, piece),
            Event::Data(..) => {}
            Event::End(_) if conn < self.watching => self.ended += 1,
            Event::End(_) => self.under_way -= 1,
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn finished(&self, now: Instant) -> bool {
        match self.stop {
            None => self.created == self.watching * self.each,
            Some(at) => {
                let all = self.puts * (self.watching * self.each) as u64;
                self.ended > 0 || (now >= at && self.under_way == 0 && self.events == all)
            }
        }
    }
}

/// What the loader wants of a `WatchResponse`, without decoding the rest of it.
#[derive(Default)]
struct WatchAnswer {
    created: bool,
    events: u64,
    /// What the last event's value begins with.
    put_at: Option<u64>,
}

impl WatchAnswer {
    fn read(message: &[u8]) -> WatchAnswer {
        let mut answer = WatchAnswer::default();
        each_field(message, |number, field| match (number, field) {
            (3, Field::Number(n)) => answer.created = n != 0,
            (11, Field::Bytes(event)) => {
                answer.events += 1;
                each_field(event, |number, field| {
                    if let (2, Field::Bytes(kv)) = (number, field) {
                        answer.put_at = value_of(kv);
                    }
                });
            }
            _ => {}
        });
        answer
    }
}

/// The first eight bytes of a `KeyValue`'s value.
fn value_of(kv: &[u8]) -> Option<u64> {
    let mut found = None;
    each_field(kv, |number, field| {
        if let (5, Field::Bytes(value)) = (number, field) {
            found = value.first_chunk().map(|b| u64::from_be_bytes(*b));
        }
    });
    found
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The numbers and byte strings of a message; it ends at whatever else there is.
fn each_field(mut rest: &[u8], mut on: impl FnMut(u64, Field<'_>)) {
    while let Some(tag) = varint(&mut rest) {
        match tag & 7 {
            0 => match varint(&mut rest) {
                Some(n) => on(tag >> 3, Field::Number(n)),
                None => return,
            },
            2 => {
                let Some(len) = varint(&mut rest) else { return };
                let Some((bytes, more)) = rest.split_at_checked(len as usize) else { return };
                on(tag >> 3, Field::Bytes(bytes));
                rest = more;
            }
            _ => return,
        }
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What came of keep-alives.
pub struct KeptAlive {
    /// Keep-alives that were answered.
    pub answers: u64,
    /// How long it took.
    pub time: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

/// Keeps leases alive for `time`: one stream a connection, `depth` requests at once on each.
pub fn keep_alive(
    engine: &mut Engine,
    leases: Vec<i64>,
    depth: usize,
    time: Duration,
) -> Result<KeptAlive, String> {
    let start = Instant::now();
    let connections = engine.connections();
    let mut driver = KeepAlive {
        leases,
        next: 0,
        depth,
        stop: start + time,
        ids: vec![None; connections],
        messages: (0..connections).map(|_| Messages::default()).collect(),
        under_way: (0..connections).map(|_| VecDeque::new()).collect(),
        answers: 0,
        failed: 0,
        latency: histogram(),
        message: Vec::new(),
    };
    engine.run(&mut driver, time + FORGOTTEN)?;
    if driver.failed > 0 || driver.answers == 0 {
        return Err(format!("{} answers, {} streams ended", driver.answers, driver.failed));
    }
    Ok(KeptAlive { answers: driver.answers, time: start.elapsed(), latency: driver.latency })
}

struct KeepAlive {
    leases: Vec<i64>,
    next: usize,
    depth: usize,
    stop: Instant,
    ids: Vec<Option<u32>>,
    messages: Vec<Messages>,
    under_way: Vec<VecDeque<Instant>>,
    answers: u64,
    failed: u64,
    latency: Histogram<u64>,
    message: Vec<u8>,
}

impl Driver for KeepAlive {
    fn pump(&mut self, now: Instant, conn: usize, link: &mut Link) {
        while self.under_way[conn].len() < self.depth && now < self.stop {
            let id = self.leases[self.next % self.leases.len()];
            self.next += 1;
            self.message.clear();
            pb::LeaseKeepAliveRequest { id }.encode(&mut self.message).expect("a vector grows");
            match self.ids[conn] {
                Some(stream) => link.send(stream, &self.message, false),
                None => self.ids[conn] = Some(link.open(KEEP_ALIVE, &self.message, false)),
            }
            self.under_way[conn].push_back(now);
        }
    }

    fn event(&mut self, now: Instant, conn: usize, event: Event<'_>) {
        let Event::Data(_, piece) = event else {
            self.failed += 1;
            return;
        };
        self.messages[conn].push(piece, |_| {
            self.answers += 1;
            if let Some(since) = self.under_way[conn].pop_front() {
                let us = now.duration_since(since).as_micros() as u64;
                self.latency.saturating_record(us.max(1));
            }
        });
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn finished(&self, now: Instant) -> bool {
        self.failed > 0 || (now >= self.stop && self.under_way.iter().all(VecDeque::is_empty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::mvccpb;

    #[test]
    fn messages_are_put_together_from_any_pieces() {
        let whole = [0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'd'];
        for size in 1..=whole.len() {
            let (mut messages, mut got) = (Messages::default(), Vec::new());
            whole.chunks(size).for_each(|p| messages.push(p, |m| got.push(m.to_vec())));
            assert_eq!(got, [b"abc".to_vec(), Vec::new(), b"d".to_vec()], "pieces of {size}");
        }
    }

    #[test]
    fn events_are_counted_and_the_last_ones_time_is_found() {
        let event = |value: u64| mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                key: KEY.into(),
                value: value.to_be_bytes().to_vec().into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = pb::WatchResponse {
            watch_id: 9,
            events: vec![event(7), event(8)],
            ..Default::default()
        };
        let seen = WatchAnswer::read(&answer.encode_to_vec());
        assert_eq!((seen.events, seen.put_at, seen.created), (2, Some(8), false));
        let created = pb::WatchResponse { created: true, ..Default::default() };
        assert!(WatchAnswer::read(&created.encode_to_vec()).created);
    }
}
