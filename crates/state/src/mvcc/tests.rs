//! The store against a model that keeps every version for ever. Not here: transactions' own rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::pb::etcdserverpb::{RangeRequest, RangeResponse};
use etch_api::pb::mvccpb;
use etch_api::range::KeyRange;
use prost::Message;

use super::testing::{Chance, World};
use super::{Budget, Event, EventKind, HashKv, ReadError, Revision, Step};

mod hashes;
mod slow;
mod surveys;

/// One change in the model.
#[derive(Clone, Debug)]
struct Change {
    at: Revision,
    key: Vec<u8>,
    /// `None` for a delete.
    kv: Option<mvccpb::KeyValue>,
}

#[derive(Default)]
struct Model {
    revision: i64,
    compacted: i64,
    /// Every change there ever was.
    all: Vec<Change>,
}

impl Model {
    fn alive(&self, at: i64) -> BTreeMap<Vec<u8>, (Revision, mvccpb::KeyValue)> {
        let mut keys = BTreeMap::new();
        for change in self.all.iter().filter(|change| change.at.main <= at) {
            match &change.kv {
                Some(kv) => keys.insert(change.key.clone(), (change.at, kv.clone())),
                None => keys.remove(&change.key),
            };
        }
        keys
    }

    /// What a finished compaction leaves stored.
    fn stored(&self) -> Vec<&Change> {
        let alive = self.alive(self.compacted);
        let stays = |change: &&Change| {
            change.at.main > self.compacted
                || alive.get(&change.key).is_some_and(|(at, _)| *at == change.at)
                || (change.kv.is_none() && change.at.main == self.compacted)
        };
        self.all.iter().filter(stays).collect()
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let at = if request.revision <= 0 { self.revision } else { request.revision };
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let mut kvs: Vec<_> = self.alive(at).into_values().map(|(_, kv)| kv).collect();
        kvs.retain(|kv| range.contains(&kv.key));
        let count = kvs.len() as i64;
        if request.count_only {
            return RangeResponse { count, ..RangeResponse::default() };
        }
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let default_order =
            request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        if request.limit > 0 && default_order && !filtered {
            kvs.truncate(request.limit as usize + 1);
        }
        let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        kvs.retain(|kv| {
            within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
                && within(
                    kv.create_revision,
                    request.min_create_revision,
                    request.max_create_revision,
                )
        });
        match request.sort_target {
            1 => kvs.sort_by_key(|kv| kv.version),
            2 => kvs.sort_by_key(|kv| kv.create_revision),
            3 => kvs.sort_by_key(|kv| kv.mod_revision),
            4 => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
            _ => {}
        }
        let more = request.limit > 0 && kvs.len() > request.limit as usize;
        if request.sort_order == 2 {
            kvs.reverse();
        }
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if request.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        RangeResponse { kvs, more, count, ..RangeResponse::default() }
    }

    fn hash(&self, to: i64) -> HashKv {
        let keep = self.alive(to);
        let mut crc = crc32c::crc32c(b"key");
        for change in self.stored() {
            let (main, tombstone) = (change.at.main, change.kv.is_none());
            let kept = keep.get(&change.key).is_some_and(|(at, _)| *at == change.at);
            if main > to
                || (main <= self.compacted && !keep.is_empty() && !kept)
                || (main == self.compacted && tombstone)
            {
                continue;
            }
            let (key, value) = match &change.kv {
                Some(kv) => (change.at.encode().to_vec(), kv.encode_to_vec()),
                None => {
                    let key = Bytes::from(change.key.clone());
                    let kv = mvccpb::KeyValue { key, ..mvccpb::KeyValue::default() };
                    (change.at.encode_tombstone().to_vec(), kv.encode_to_vec())
                }
            };
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &key), &value);
        }
        HashKv {
            hash: crc,
            compact_revision: self.compacted,
            hash_revision: to,
            current_revision: self.revision,
        }
    }
}

struct Run {
    world: World,
    model: Model,
    chance: Chance,
}

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

impl Run {
    fn new(seed: u64) -> Self {
        let world = World::new();
        let model = Model { revision: 1, compacted: -1, all: Vec::new() };
        Self { world, model, chance: Chance(seed) }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{:02}", self.chance.below(25)).into_bytes()
    }

    fn span(&mut self) -> (Bytes, Bytes) {
        match self.chance.below(5) {
            0 => (bytes(self.key()), Bytes::new()),
            1 => (bytes(self.key()), bytes([0])),
            2 => (bytes([0]), bytes([0])),
            _ => (bytes(self.key()), bytes(self.key())),
        }
    }

    /// A batch of transactions, in both.
    fn write(&mut self) {
        let txns = 1 + self.chance.below(4);
        let mut events = Vec::new();
        let before = self.model.all.len();
        let mut plans = Vec::new();
        for _ in 0..txns {
            let ops: Vec<_> = (0..1 + self.chance.below(3))
                .map(|_| {
                    let (key, end) = if self.chance.one_in(4) {
                        self.span()
                    } else {
                        (bytes(self.key()), Bytes::new())
                    };
                    let delete = self.chance.one_in(3);
                    let len = self.chance.below(40) as usize;
                    let lease =
                        if self.chance.one_in(3) { 1 + self.chance.below(3) as i64 } else { 0 };
                    (key, end, delete, vec![b'a' + self.chance.below(5) as u8; len], lease)
                })
                .collect();
            plans.push(ops);
        }
        let World { writer, leases, .. } = &mut self.world;
        let mut batch = writer.begin();
        for ops in &plans {
            batch.txn_begin();
            let mut sub = 0;
            for (key, end, delete, value, lease) in ops {
                let main = self.model.revision + 1;
                let alive = self.model.alive(main);
                if *delete {
                    let range = KeyRange::new(key.clone(), end.clone());
                    let gone: Vec<_> = alive.into_keys().filter(|k| range.contains(k)).collect();
                    assert_eq!(batch.delete_range(leases, &range), gone.len() as u64);
                    for key in gone {
                        self.model.all.push(Change { at: Revision::new(main, sub), key, kv: None });
                        sub += 1;
                    }
                } else {
                    let old = alive.get(&key[..]).map(|(_, kv)| kv);
                    let kv = mvccpb::KeyValue {
                        key: key.clone(),
                        create_revision: old.map_or(main, |kv| kv.create_revision),
                        mod_revision: main,
                        version: old.map_or(1, |kv| kv.version + 1),
                        value: bytes(value),
                        lease: *lease,
                    };
                    assert_eq!(batch.put(leases, key, value, *lease), main);
                    let at = Revision::new(main, sub);
                    self.model.all.push(Change { at, key: key.to_vec(), kv: Some(kv) });
                    sub += 1;
                }
            }
            self.model.revision += i64::from(sub > 0);
            assert_eq!(batch.txn_end(), self.model.revision);
        }
        events.extend(batch.finish());
        self.check_events(&events, &self.model.all[before..]);
        assert_eq!(self.world.store.revision(), self.model.revision);
    }

    fn check_events(&self, events: &[Arc<Event>], changes: &[Change]) {
        assert_eq!(events.len(), changes.len());
        for (event, change) in events.iter().zip(changes) {
            assert_eq!((event.revision, &event.key[..]), (change.at, &change.key[..]));
            let kv = mvccpb::KeyValue::decode(event.kv.clone()).unwrap();
            match &change.kv {
                Some(expected) => assert_eq!((event.kind, &kv), (EventKind::Put, expected)),
                None => {
                    assert_eq!((event.kind, kv.mod_revision), (EventKind::Delete, change.at.main));
                    assert_eq!((&kv.key[..], kv.value.len()), (&change.key[..], 0));
                }
            }
            let before = self.model.alive(change.at.main - 1);
            let created = change.kv.as_ref().is_some_and(|kv| kv.create_revision == change.at.main);
            let expected = before
                .get(&change.key)
                .filter(|_| change.at.main > self.model.compacted && !created);
            if change.at.main > self.model.compacted {
                assert_eq!(event.previous, expected.map(|(at, _)| *at), "{change:?}");
            }
            let previous = self.world.store.previous_kv(event).unwrap();
            let previous = previous.map(|kv| mvccpb::KeyValue::decode(kv).unwrap());
            assert_eq!(previous.as_ref(), expected.map(|(_, kv)| kv), "{change:?}");
        }
    }

    fn revision(&mut self) -> i64 {
        let oldest = self.model.compacted.max(1);
        oldest + self.chance.below((self.model.revision - oldest + 1) as u64) as i64
    }

    fn request(&mut self) -> RangeRequest {
        let (key, range_end) = self.span();
        let revision = if self.chance.one_in(2) { 0 } else { self.revision() };
        let bound = |run: &mut Self| if run.chance.one_in(6) { run.revision() } else { 0 };
        RangeRequest {
            key,
            range_end,
            revision,
            limit: if self.chance.one_in(2) { self.chance.below(9) as i64 } else { 0 },
            sort_order: self.chance.below(3) as i32,
            sort_target: self.chance.below(5) as i32,
            keys_only: self.chance.one_in(4),
            count_only: self.chance.one_in(8),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
            ..RangeRequest::default()
        }
    }

    /// Equal keys of a sort may stand in any order: only the sort's own key is compared then.
    fn check_range(&mut self) {
        let request = self.request();
        let expected = self.model.range(&request);
        let mut reply = self.world.store.range(&request).unwrap();
        assert_eq!(reply.revision, self.model.revision);
        let len = reply.encoded_len();
        let mut out = BytesMut::new();
        let piece = 1 + self.chance.below(60) as usize;
        let slow = self.chance.below(5);
        loop {
            let before = out.len();
            let more = reply.fill(&mut out, piece).unwrap();
            assert!(out.len() - before <= piece && (!more || out.len() > before));
            if !more {
                break;
            }
            match slow {
                0 => reply.detach().unwrap(),
                1 => assert!(reply.renew(&self.world.store)),
                _ => {}
            }
        }
        assert_eq!(out.len(), len, "{request:?}");
        let got = RangeResponse::decode(out.freeze()).unwrap();
        let by_chance = request.sort_target != 0 || request.sort_order == 2;
        if !by_chance {
            assert_eq!(got, expected, "{request:?}");
            return;
        }
        assert_eq!((got.count, got.more), (expected.count, expected.more), "{request:?}");
        let sorted_by = |kv: &mvccpb::KeyValue| match request.sort_target {
            1 => kv.version.to_be_bytes().to_vec(),
            2 => kv.create_revision.to_be_bytes().to_vec(),
            3 => kv.mod_revision.to_be_bytes().to_vec(),
            4 => kv.value.to_vec(),
            _ => kv.key.to_vec(),
        };
        let order =
            |response: &RangeResponse| response.kvs.iter().map(sorted_by).collect::<Vec<_>>();
        assert_eq!(order(&got), order(&expected), "{request:?}");
    }

    fn check_history(&mut self) {
        let (key, end) = self.span();
        let range = KeyRange::new(key, end);
        let from = self.revision();
        let budget = Budget {
            events: 1 + self.chance.below(6) as usize,
            bytes: 1 + self.chance.below(300) as usize,
            visited: 1 + self.chance.below(50) as usize,
        };
        let (mut next, mut events) = (from, Vec::new());
        while next <= self.model.revision {
            let piece = self.world.store.history(&range, next, i64::MAX, budget).unwrap();
            assert!(piece.next > next);
            let mains: std::collections::BTreeSet<_> =
                piece.events.iter().map(|event| event.revision.main).collect();
            assert!(piece.events.len() <= budget.events || mains.len() == 1);
            assert!(mains.iter().all(|main| (next..piece.next).contains(main)));
            events.extend(piece.events);
            next = piece.next;
        }
        let stored = self.model.stored();
        let expected: Vec<Change> = stored
            .into_iter()
            .filter(|change| change.at.main >= from && range.contains(&change.key))
            .cloned()
            .collect();
        self.check_events(&events, &expected);
    }

    fn check_hash(&mut self) {
        let to = self.revision();
        if self.world.store.hashes().iter().any(|hash| hash.hash_revision == to) {
            return;
        }
        // Where nothing is kept, etcd's hash is over what happens to be stored.
        if self.model.alive(to).is_empty() {
            if self.world.writer.is_compacting() {
                return;
            }
            self.world.commit();
        }
        assert_eq!(self.world.store.hash_kv(to).unwrap(), self.model.hash(to));
    }

    fn compact(&mut self) {
        let at = self.revision();
        let mut batch = self.world.writer.begin();
        let expected = if at <= self.model.compacted { Err(Error::Compacted) } else { Ok(()) };
        assert_eq!(batch.compact(self.model.revision + 1), Err(Error::FutureRev));
        assert_eq!(batch.compact(at), expected);
        batch.finish();
        self.model.compacted = self.model.compacted.max(at);
        let request =
            |revision| RangeRequest { key: bytes("k"), revision, ..RangeRequest::default() };
        if self.model.compacted > 1 {
            let below = self.world.store.range(&request(self.model.compacted - 1));
            assert!(matches!(below, Err(ReadError::Request(Error::Compacted))));
        }
        let above = self.world.store.range(&request(self.model.revision + 1));
        assert!(matches!(above, Err(ReadError::Request(Error::FutureRev))));
    }

    fn reopen(&mut self) {
        self.world.commit();
        let attachments = self.world.reopen().unwrap();
        let alive = self.model.alive(self.model.revision);
        let expected: Vec<_> = alive
            .into_values()
            .filter(|(_, kv)| kv.lease != 0)
            .map(|(_, kv)| (kv.key, kv.lease))
            .collect();
        assert_eq!(attachments, expected);
        assert_eq!(self.world.store.revision(), self.model.revision);
        assert_eq!(self.world.store.compact_revision(), self.model.compacted);
    }

    fn step(&mut self) {
        match self.chance.below(40) {
            0..=15 => self.write(),
            16..=25 => self.check_range(),
            26..=29 => self.check_history(),
            30 => self.check_hash(),
            31 => self.compact(),
            32..=35 => {
                let step = self.world.writer.compact_step(3).unwrap();
                assert_eq!(
                    step == Step::Idle,
                    !self.world.writer.is_compacting() && step == Step::Idle
                );
            }
            36..=37 => self.world.commit(),
            38 => self.world.compact_all(5),
            _ if self.chance.one_in(4) => self.reopen(),
            _ => {}
        }
    }
}

#[test]
fn behaves_like_the_model() {
    for seed in 1..40 {
        let mut run = Run::new(seed * 7919);
        run.world.leases.granted.extend([1, 2, 3]);
        for _ in 0..250 {
            run.step();
        }
        run.world.compact_all(100);
        run.world.commit();
        run.check_hash();
        let before = run.world.store.hash_kv(run.model.revision);
        run.reopen();
        if run.world.store.compact_revision() < run.model.revision {
            assert_eq!(run.world.store.hash_kv(run.model.revision).unwrap(), before.unwrap());
        }
        assert_eq!(run.world.store.current_keys(), run.model.alive(i64::MAX).len() as u64);
    }
}

#[test]
fn an_empty_store_is_at_revision_one() {
    let mut world = World::new();
    assert_eq!((world.store.revision(), world.store.compact_revision()), (1, -1));
    let mut batch = world.writer.begin();
    assert_eq!(batch.compact(2), Err(Error::FutureRev));
    batch.finish();
    let hash = world.store.hash_kv(0).unwrap();
    assert_eq!((hash.hash, hash.compact_revision), (crc32c::crc32c(b"key"), -1));
}

/// Puts a value under each of some keys, one transaction each.
fn fill(world: &mut World, keys: std::ops::Range<u32>, value: &[u8]) {
    let mut batch = world.writer.begin();
    for key in keys {
        batch.txn_begin();
        batch.put(&mut world.leases, format!("k{key:06}").as_bytes(), value, 0);
        batch.txn_end();
    }
    batch.finish();
}

fn all() -> RangeRequest {
    RangeRequest { key: bytes([0]), range_end: bytes([0]), ..RangeRequest::default() }
}

#[test]
fn a_reply_in_flight_survives_commits_and_compactions() {
    let mut world = World::new();
    fill(&mut world, 0..2500, b"old");
    world.commit();
    fill(&mut world, 2000..2600, b"new");
    let mut reply = world.store.range(&all()).unwrap();
    let mut out = BytesMut::new();
    assert!(reply.fill(&mut out, 1000).unwrap());
    fill(&mut world, 0..2600, b"newest");
    let mut batch = world.writer.begin();
    batch.compact(world.store.revision()).unwrap();
    batch.finish();
    world.compact_all(1000);
    world.commit();
    while reply.fill(&mut out, 1000).unwrap() {}
    let response = RangeResponse::decode(out.freeze()).unwrap();
    assert_eq!((response.kvs.len(), response.count), (2600, 2600));
    for (i, kv) in response.kvs.iter().enumerate() {
        assert_eq!(kv.value, if i < 2000 { "old" } else { "new" });
    }
}

/// Upstream 17780: the newest revisions are compacted away and the process dies at any point of it.
#[test]
fn i17780_the_revision_never_falls() {
    for steps in 0..12 {
        let mut world = World::new();
        fill(&mut world, 0..5, b"x");
        let mut batch = world.writer.begin();
        for _ in 0..2 {
            batch.txn_begin();
            batch.delete_range(&mut world.leases, &KeyRange::All);
            batch.txn_end();
        }
        batch.finish();
        let revision = world.store.revision();
        let mut batch = world.writer.begin();
        batch.compact(revision).unwrap();
        batch.finish();
        for _ in 0..steps {
            world.writer.compact_step(2).unwrap();
            world.commit();
        }
        world.commit();
        world.reopen().unwrap();
        assert_eq!(world.store.revision(), revision);
        assert_eq!(world.store.compact_revision(), revision);
        world.compact_all(2);
        world.commit();
        world.reopen().unwrap();
        assert!(!world.writer.is_compacting());
        assert_eq!((world.store.revision(), world.store.compact_revision()), (revision, revision));
    }
}

/// Upstream 18089, 19179: a delete exactly at the compacted revision stays, for watchers that start there.
#[test]
fn i18089_a_delete_at_the_compacted_revision_stays() {
    let mut world = World::new();
    fill(&mut world, 0..50, b"x");
    let mut batch = world.writer.begin();
    batch.txn_begin();
    batch.delete_range(&mut world.leases, &KeyRange::All);
    let at = batch.txn_end();
    batch.compact(at).unwrap();
    batch.finish();
    world.compact_all(7);
    world.commit();
    world.reopen().unwrap();
    let history = world.store.history(&KeyRange::All, at, at, Budget::default()).unwrap();
    assert_eq!((history.events.len(), history.next), (50, at + 1));
    let single = KeyRange::Single(bytes("k000007"));
    let history = world.store.history(&single, at, at, Budget::default()).unwrap();
    assert_eq!(history.events.len(), 1);
    let early = world.store.history(&single, at - 1, at, Budget::default());
    assert!(matches!(early, Err(ReadError::Request(Error::Compacted))));
}

#[test]
fn readers_beside_the_writer_see_whole_revisions() {
    let mut world = World::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let store = world.store.clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reads = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || reads < 20 {
                    let body = store.range(&all()).unwrap().into_bytes().unwrap();
                    let response = RangeResponse::decode(body).unwrap();
                    // Each transaction writes all keys: whoever sees two of them has seen a torn one.
                    let first = response.kvs.first().map(|kv| kv.value.clone());
                    assert!(response.kvs.iter().all(|kv| Some(&kv.value) == first.as_ref()));
                    assert_eq!(response.kvs.len() as i64, response.count);
                    reads += 1;
                }
            });
        }
        for round in 0..60u32 {
            let mut batch = world.writer.begin();
            batch.txn_begin();
            for key in 0..1500u32 {
                let value = round.to_string();
                batch.put(&mut world.leases, &key.to_be_bytes(), value.as_bytes(), 0);
            }
            let revision = batch.txn_end();
            if round % 7 == 6 {
                batch.compact(revision - 2).unwrap();
            }
            batch.finish();
            world.writer.compact_step(5000).unwrap();
            if round % 3 == 0 {
                world.commit();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_stream_is_the_range_in_pieces() {
    let mut world = World::new();
    fill(&mut world, 0..700, b"some value");
    world.commit();
    fill(&mut world, 300..400, b"some other value");
    for (limit, keys_only) in
        [(0, false), (0, true), (5, false), (10, false), (123, false), (9999, true)]
    {
        let request = RangeRequest { limit, keys_only, ..all() };
        let expected = world.store.range(&request).unwrap().into_bytes().unwrap();
        let mut chunks = world.store.range_stream(&request, 2000);
        let (mut merged, mut sizes, mut headers) = (BytesMut::new(), Vec::new(), 0);
        while let Some(chunk) = chunks.next_chunk().unwrap() {
            assert_eq!(headers, 0, "a chunk after the last");
            headers += usize::from(chunk.header_revision.is_some());
            sizes.push(chunk.reply.kvs);
            merged.extend_from_slice(&chunk.reply.into_bytes().unwrap());
            // What is written meanwhile is not seen.
            fill(&mut world, 650..660, b"later");
        }
        assert_eq!(headers, 1);
        assert_eq!(merged, expected, "limit {limit}");
        assert_eq!(sizes[0], if limit == 5 { 5 } else { 10 });
        assert!(limit != 0 || sizes[1] == 20);
    }
    let none = RangeRequest { key: bytes("z"), ..RangeRequest::default() };
    let mut chunks = world.store.range_stream(&none, 2000);
    assert!(chunks.next_chunk().unwrap().unwrap().header_revision.is_some());
    assert!(chunks.next_chunk().unwrap().is_none());
}

#[test]
fn a_stream_that_a_compaction_overtakes_ends() {
    let mut world = World::new();
    fill(&mut world, 0..100, b"x");
    let mut chunks = world.store.range_stream(&all(), 2000);
    chunks.next_chunk().unwrap();
    fill(&mut world, 0..1, b"y");
    let mut batch = world.writer.begin();
    batch.compact(102).unwrap();
    batch.finish();
    assert!(matches!(chunks.next_chunk(), Err(ReadError::Request(Error::Compacted))));
}

#[test]
fn another_backend_takes_the_place_of_this_one() {
    let mut world = World::new();
    fill(&mut world, 0..10, b"mine");
    let mut reply = world.store.range(&all()).unwrap();
    let mut leader = World::new();
    fill(&mut leader, 0..30, b"leader's");
    leader.commit();
    let loaded = world.writer.restore(leader.store.backend()).unwrap();
    assert!(loaded.attachments.is_empty());
    assert_eq!((world.store.revision(), world.store.current_keys()), (31, 30));
    assert_eq!(world.writer.pending_len(), 0, "what waited went with the old backend");
    // A reply that was begun is finished as it was.
    let mut out = BytesMut::new();
    while reply.fill(&mut out, 10).unwrap() {}
    let kvs = RangeResponse::decode(out.freeze()).unwrap().kvs;
    assert!(kvs.len() == 10 && kvs.iter().all(|kv| kv.value == "mine"));
    fill(&mut world, 5..6, b"next");
    let body = world.store.range(&all()).unwrap().into_bytes().unwrap();
    let kvs = RangeResponse::decode(body).unwrap().kvs;
    assert_eq!((kvs.len(), kvs[5].mod_revision, kvs[5].version), (30, 32, 2));
}
