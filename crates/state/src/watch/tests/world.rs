//! A store that a test can hold in its hand: all events ever, in a list. Not here: the tests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use etch_api::KeyRange;
use etch_api::pb::etcdserverpb::{ResponseHeader, WatchResponse};
use etch_api::pb::mvccpb;
use prost::Message;

use crate::mvcc::{Budget, Event, EventKind, History, Revision};
use crate::watch::{HistoryError, HistorySource, OutMessage, Wake};

/// A small generator of numbers, so that a test repeats itself.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Counts how often it is rung.
#[derive(Default)]
pub(crate) struct Bell(AtomicUsize);

impl Bell {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The events of a store from its beginning.
pub(super) struct World {
    pub log: Vec<Arc<Event>>,
    revision: i64,
    compacted: i64,
    live: BTreeMap<String, (Revision, mvccpb::KeyValue)>,
    values: BTreeMap<Revision, mvccpb::KeyValue>,
    /// The disk refuses this many reads of previous values.
    pub failures: Cell<u32>,
}

impl World {
    pub(super) fn new() -> Self {
        let (live, values) = (BTreeMap::new(), BTreeMap::new());
        let failures = Cell::new(0);
        Self { log: Vec::new(), revision: 1, compacted: -1, live, values, failures }
    }

    pub(super) fn put(&mut self, key: &str) -> Vec<Arc<Event>> {
        self.transact(&[(key, true)])
    }

    pub(super) fn compact(&mut self, revision: i64) {
        self.compacted = revision;
    }

    /// One transaction of puts (`true`) and deletes; it is published at once.
    pub(super) fn transact(&mut self, changes: &[(&str, bool)]) -> Vec<Arc<Event>> {
        let main = self.revision + 1;
        let mut events = Vec::new();
        for &(key, put) in changes {
            let at = Revision::new(main, events.len() as i64);
            let before = self.live.remove(key);
            let mut kv = mvccpb::KeyValue { mod_revision: main, ..Default::default() };
            kv.key = key.to_owned().into();
            if put {
                kv.create_revision = before.as_ref().map_or(main, |(_, kv)| kv.create_revision);
                kv.version = before.as_ref().map_or(1, |(_, kv)| kv.version + 1);
                kv.value = format!("value of {key} at {main}").into();
                self.live.insert(key.to_owned(), (at, kv.clone()));
                self.values.insert(at, kv.clone());
            } else if before.is_none() {
                continue;
            }
            let kind = if put { EventKind::Put } else { EventKind::Delete };
            let previous = before.map(|(at, _)| at);
            let (key, encoded) = (kv.key.clone(), kv.encode_to_vec().into());
            events.push(Arc::new(Event::new(at, kind, key, encoded, previous)));
        }
        if !events.is_empty() {
            self.revision = main;
            self.log.extend(events.iter().cloned());
        }
        events
    }

    pub(super) fn value(&self, at: Revision) -> &mvccpb::KeyValue {
        &self.values[&at]
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }
}

impl HistorySource for World {
    fn revision(&self) -> i64 {
        self.revision
    }

    fn compact_revision(&self) -> i64 {
        self.compacted
    }

    fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        budget: Budget,
    ) -> Result<History, HistoryError> {
        assert!(from <= to && to <= self.revision, "{from} to {to} of {}", self.revision);
        if from < self.compacted {
            return Err(HistoryError::Compacted(self.compacted));
        }
        let (mut events, mut visited) = (Vec::new(), 0);
        for event in &self.log {
            let main = event.revision.main;
            if main < from || main > to {
                continue;
            }
            let fresh = event.revision.sub == 0;
            if fresh && (visited >= budget.visited || events.len() >= budget.events) {
                return Ok(History { events, next: main });
            }
            visited += 1;
            if range.contains(&event.key) {
                events.push(Arc::clone(event));
            }
        }
        Ok(History { events, next: to + 1 })
    }

    fn previous_kv(&self, event: &Event) -> io::Result<Option<Bytes>> {
        if self.failures.get() > 0 {
            self.failures.set(self.failures.get() - 1);
            return Err(io::Error::other("the disk refuses"));
        }
        if event.revision.main - 1 < self.compacted {
            return Ok(None);
        }
        Ok(event.previous.map(|at| self.values[&at].encode_to_vec().into()))
    }
}

/// The message as a client reads it.
pub(super) fn decode(message: &OutMessage, member: u64) -> WatchResponse {
    let header = ResponseHeader {
        member_id: member,
        revision: message.revision,
        ..ResponseHeader::default()
    };
    let mut bytes = BytesMut::new();
    let start = WatchResponse { header: Some(header), ..WatchResponse::default() };
    start.encode(&mut bytes).unwrap();
    let head = bytes.len();
    message.encode_fields(&mut bytes);
    message.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len() - head, message.encoded_len());
    WatchResponse::decode(bytes.freeze()).unwrap()
}
