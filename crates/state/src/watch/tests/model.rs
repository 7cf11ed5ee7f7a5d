//! Random clients, slow and quick, against what the guarantees say: ordered, unique, reliable, atomic,
//! resumable, bookmarkable; filters and previous values. Not here: exact responses to exact requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etch_api::KeyRange;
use etch_api::pb::etcdserverpb::{WatchCreateRequest, WatchResponse};
use etch_api::pb::mvccpb;

use super::world::{Bell, Dice, World, decode};
use crate::mvcc::{Budget, Event, EventKind};
use crate::watch::{Doorbell, Hub, StreamConfig, StreamState};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A watcher as its client knows it.
struct Seen {
    request: WatchCreateRequest,
    range: KeyRange,
    /// The first revision that it is owed; known when it is created.
    start: i64,
    /// Where in the log it has arrived: everything before was received, or is not for it.
    at: usize,
    /// Fragments of a response that are not complete.
    parts: Vec<mvccpb::Event>,
}

impl Seen {
    fn wants(&self, event: &Event) -> bool {
        let filtered = self.request.filters.contains(&match event.kind {
            EventKind::Put => 0,
            EventKind::Delete => 1,
        });
        event.revision.main >= self.start && !filtered && self.range.contains(&event.key)
    }

    /// Takes a whole response in: it has to be exactly what comes next, in whole revisions.
    fn receive(&mut self, events: &[mvccpb::Event], world: &World) {
        for event in events {
            let kv = event.kv.as_ref().unwrap();
            let next = world.log[self.at..].iter().position(|e| self.wants(e));
            let next = next.unwrap_or_else(|| panic!("nothing is owed, but {kv:?} came"));
            let owed = &world.log[self.at + next];
            assert_eq!((kv.mod_revision, &kv.key), (owed.revision.main, &owed.key));
            assert_eq!(event.r#type, i32::from(owed.kind == EventKind::Delete));
            let previous = owed.previous.map(|at| world.value(at));
            match &event.prev_kv {
                Some(shown) => {
                    assert!(self.request.prev_kv);
                    assert_eq!(Some(shown), previous);
                }
                None if self.request.prev_kv && previous.is_some() => {
                    assert!(owed.revision.main - 1 < world.compacted());
                }
                None => {}
            }
            self.at += next + 1;
        }
        let last = events.last().unwrap().kv.as_ref().unwrap().mod_revision;
        let torn = self.first_owed(world).is_some_and(|revision| revision == last);
        assert!(!torn, "revision {last} was torn apart");
    }

    fn first_owed(&self, world: &World) -> Option<i64> {
        world.log[self.at..].iter().find(|e| self.wants(e)).map(|e| e.revision.main)
    }
}

/// A stream and its client.
struct Client {
    stream: StreamState,
    watchers: BTreeMap<i64, Seen>,
    /// Requests that were not answered yet.
    asked: Vec<WatchCreateRequest>,
    /// Ended by a compaction, and not cancelled by the client since.
    ended: BTreeSet<i64>,
}

impl Client {
    fn poll(&mut self, world: &World, budget: usize) -> bool {
        let mut out = Vec::new();
        let more = self.stream.poll(world, budget, &mut out).unwrap();
        for message in &out {
            self.receive(decode(message, 1), world);
        }
        more
    }

    fn receive(&mut self, response: WatchResponse, world: &World) {
        let revision = response.header.as_ref().unwrap().revision;
        if response.created {
            let request = self.asked.remove(0);
            if response.canceled {
                return assert_eq!(response.watch_id, -1);
            }
            let range = KeyRange::new(request.key.clone(), request.range_end.clone());
            let start = match request.start_revision {
                0 => revision + 1,
                start => start,
            };
            let seen = Seen { request, range, start, at: 0, parts: Vec::new() };
            assert!(self.watchers.insert(response.watch_id, seen).is_none());
        } else if response.canceled {
            let seen = self.watchers.remove(&response.watch_id);
            if response.compact_revision != 0 {
                assert!(response.compact_revision <= world.compacted());
                assert!(seen.expect("it was there").start < world.revision());
                self.ended.insert(response.watch_id);
            } else {
                assert!(seen.is_some() || self.ended.remove(&response.watch_id));
            }
        } else if response.events.is_empty() {
            for (&id, seen) in &self.watchers {
                if response.watch_id == -1 || response.watch_id == id {
                    // A watcher from now on starts after the revision that created it.
                    let asked = seen.request.start_revision;
                    assert!(asked <= revision, "no progress before the start");
                    assert!(seen.start <= revision + 1, "nor for what is not handed over");
                    let owed = seen.first_owed(world);
                    assert!(owed.is_none_or(|o| o > revision), "{owed:?} is owed at {revision}");
                }
            }
        } else {
            let seen = self.watchers.get_mut(&response.watch_id).expect("created comes first");
            assert!(!response.fragment || seen.request.fragment);
            seen.parts.extend(response.events);
            if !response.fragment {
                let whole = std::mem::take(&mut seen.parts);
                seen.receive(&whole, world);
            }
        }
    }
}

fn request(dice: &mut Dice, world: &World) -> WatchCreateRequest {
    let key = KEYS[dice.below(6) as usize];
    let end = match dice.below(6) {
        0 | 1 => "",
        2 => "\0",
        _ => KEYS[dice.below(6) as usize],
    };
    let now = world.revision();
    let start_revision = match dice.below(5) {
        0 | 1 => 0,
        2 => now + dice.below(10) as i64,
        3 => (now - dice.below(60) as i64).max(-1),
        _ => 1 + dice.below(now as u64) as i64,
    };
    WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        start_revision,
        progress_notify: dice.below(3) == 0,
        filters: (0..2).filter(|_| dice.below(6) == 0).collect(),
        prev_kv: dice.below(3) == 0,
        watch_id: if dice.below(3) == 0 { dice.below(12) as i64 } else { 0 },
        fragment: dice.below(3) == 0,
    }
}

fn transact(dice: &mut Dice, world: &mut World) -> Vec<Arc<Event>> {
    let first = dice.below(6) as usize;
    let count = 1 + dice.below(4) as usize;
    let changes: Vec<_> = (0..count).map(|n| (KEYS[(first + n) % 6], dice.below(3) > 0)).collect();
    world.transact(&changes)
}

struct Model {
    dice: Dice,
    world: World,
    hub: Arc<Hub>,
    doorbell: Arc<Doorbell>,
    clients: Vec<Client>,
    /// Published, and not handed to the hub yet.
    waiting: Vec<Arc<Event>>,
    now: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let world = World::new();
        let hub = Hub::new(world.revision());
        let doorbell = Doorbell::new(Arc::new(Bell::default()));
        let (clients, waiting) = (Vec::new(), Vec::new());
        Self { dice: Dice::new(seed), world, hub, doorbell, clients, waiting, now: 0 }
    }

    fn open(&mut self) {
        let config = StreamConfig {
            queue_events: 2 + self.dice.below(40) as usize,
            queue_bytes: 500 + self.dice.below(4000) as usize,
            history: Budget {
                events: 1 + self.dice.below(20) as usize,
                bytes: 10_000,
                visited: 1 + self.dice.below(50) as usize,
            },
            fragment_limit: 200,
            header_len: 20,
            progress_interval_ms: 30,
        };
        let token = self.clients.len() as u64;
        let stream = StreamState::new(&self.hub, &self.doorbell, token, self.now, config);
        let (watchers, asked, ended) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        self.clients.push(Client { stream, watchers, asked, ended });
    }

    fn hand_over(&mut self) {
        let events = std::mem::take(&mut self.waiting);
        self.hub.notify(&events, self.world.revision());
    }

    fn step(&mut self) {
        self.now += 1;
        let action = self.dice.below(100);
        if self.clients.is_empty() || (action == 0 && self.clients.len() < 4) {
            return self.open();
        }
        let which = self.dice.below(self.clients.len() as u64) as usize;
        let client = &mut self.clients[which];
        match action {
            1 if self.dice.below(4) == 0 => drop(self.clients.swap_remove(which)),
            2..=9 => {
                let request = request(&mut self.dice, &self.world);
                client.stream.create(&request, Ok(()), &self.world);
                client.asked.push(request);
            }
            10..=12 => client.stream.cancel(self.dice.below(12) as i64, &self.world),
            13..=16 => client.stream.request_progress(),
            17..=20 => client.stream.tick(self.now),
            21..=22 => {
                let back = self.dice.below(80) as i64;
                let revision = (self.world.revision() - back).max(self.world.compacted());
                self.world.compact(revision);
            }
            23 => {
                // A snapshot: what was published before it never reaches the hub.
                for _ in 0..5 {
                    transact(&mut self.dice, &mut self.world);
                }
                self.waiting.clear();
                self.hub.restored(self.world.revision());
            }
            24..=54 => {
                let events = transact(&mut self.dice, &mut self.world);
                self.waiting.extend(events);
            }
            55..=74 => self.hand_over(),
            _ => {
                let budget = 1 + self.dice.below(3000) as usize;
                client.poll(&self.world, budget);
            }
        }
    }

    /// Lets everybody catch up, and looks whether somebody is owed something.
    fn settle(&mut self) {
        self.hand_over();
        for client in &mut self.clients {
            let mut polls = 0;
            while client.poll(&self.world, 5000) {
                polls += 1;
                assert!(polls < 10_000, "it never comes to rest");
            }
            for (id, seen) in &client.watchers {
                assert_eq!(seen.first_owed(&self.world), None, "watcher {id} is owed events");
            }
            assert!(client.asked.is_empty());
        }
        assert_eq!(self.hub.counters().slow_watchers.load(Ordering::Relaxed), 0);
        assert_eq!(self.hub.counters().pending_events.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn every_watcher_gets_what_it_is_owed() {
    for seed in 0..60 {
        let mut model = Model::new(seed);
        for step in 0..3000 {
            model.step();
            if step % 500 == 499 {
                model.settle();
            }
        }
        model.clients.clear();
        assert!(model.hub.has_no_subscribers());
        assert_eq!(model.hub.counters().watchers.load(Ordering::Relaxed), 0);
    }
}
