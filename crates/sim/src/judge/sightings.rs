//! What anybody saw of single revisions: which keys changed there, and how, and where keys did not change. It tells
//! the search (`search`) at once that an order is wrong, rather than at the next read of the key. Not here: whole
//! answers, and the search.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etch_api::KeyRange;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::event::EventType;
use etch_api::pb::mvccpb::{Event, KeyValue};
use pb::response_op::Response as Told;

use super::evidence::revision_of;
use crate::history::{History, Outcome, Request, Response, Watch};
use crate::model::Change;

/// What was seen of one key at one revision.
#[derive(Debug, PartialEq)]
enum Seen {
    /// It was put, and stood like this.
    Put(KeyValue),
    /// It was deleted.
    Deleted(Bytes),
}

impl Seen {
    fn key(&self) -> &Bytes {
        match self {
            Seen::Put(kv) => &kv.key,
            Seen::Deleted(key) => key,
        }
    }

    fn is(&self, change: &Change) -> bool {
        match self {
            Seen::Put(kv) => !change.deleted && change.kv == *kv,
            Seen::Deleted(key) => change.deleted && change.kv.key == *key,
        }
    }
}

/// Revisions in which something did not change: from behind the first, up to and with the second.
#[derive(Debug, Default)]
struct Quiet(BTreeMap<i64, i64>);

impl Quiet {
    fn add(&mut self, after: i64, to: i64) {
        if after < to {
            let end = self.0.entry(after).or_insert(to);
            *end = to.max(*end);
        }
    }

    /// Joins what overlaps.
    fn settle(&mut self) {
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for (&after, &to) in &self.0 {
            match joined.last_mut() {
                Some(last) if after <= last.1 => last.1 = to.max(last.1),
                _ => joined.push((after, to)),
            }
        }
        self.0 = joined.into_iter().collect();
    }

    fn covers(&self, revision: i64) -> bool {
        self.0.range(..revision).next_back().is_some_and(|(_, to)| revision <= *to)
    }
}

/// The life of a key, up to what was seen of it: between its creation and its last change it was put, and never
/// deleted, once for each version.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Life {
    created: i64,
    last: i64,
    version: i64,
}

impl Life {
    /// Whether a change of the key at a revision within this life can have been.
    fn allows(&self, revision: i64, change: &Change) -> bool {
        let within = self.created < revision && revision < self.last;
        let left = self.version - change.kv.version;
        !within
            || !change.deleted
                && change.kv.create_revision == self.created
                && (1..=self.last - revision).contains(&left)
    }
}

/// Where one key did not change.
#[derive(Debug)]
pub struct Still<'a> {
    stood: Option<&'a Quiet>,
    watched: Quiet,
}

impl Still<'_> {
    /// It was seen to stand as it was.
    pub fn stood(&self, revision: i64) -> bool {
        self.stood.is_some_and(|quiet| quiet.covers(revision))
    }

    /// All its changes were watched.
    pub fn watched(&self, revision: i64) -> bool {
        self.watched.covers(revision)
    }
}

/// All that was seen.
#[derive(Debug, Default)]
pub struct Sightings {
    seen: BTreeMap<i64, Vec<Seen>>,
    /// Keys that stood as they were.
    unchanged: BTreeMap<Bytes, Quiet>,
    /// The lives of keys, the longest of those that began together.
    lives: BTreeMap<Bytes, BTreeMap<i64, Life>>,
    /// Keys that came to be, by revision.
    created: BTreeMap<i64, Vec<Bytes>>,
    /// Until when leases were seen to be there: a key was put under them, or stood.
    leased: BTreeMap<i64, i64>,
    /// Ranges whose every change was watched: a key of which none was seen did not change.
    watched: Vec<(KeyRange, Quiet)>,
}

impl Sightings {
    /// Gathers them from answers, events, and what members said of themselves.
    pub fn new(history: &History) -> Sightings {
        let mut all = Sightings::default();
        for op in &history.operations {
            if let Outcome::Ok(response) = &op.outcome
                && let Some(revision) = revision_of(response)
            {
                all.answer(&op.request, response, revision);
            }
        }
        let mut ranges: BTreeMap<(Bytes, Bytes), Quiet> = BTreeMap::new();
        for watch in &history.watches {
            let quiet = all.watch(watch);
            if let (Some((after, to)), true) = (quiet, watch.request.filters.is_empty()) {
                let range = (watch.request.key.clone(), watch.request.range_end.clone());
                ranges.entry(range).or_default().add(after, to);
            }
        }
        for seen in &history.observations {
            seen.keys.iter().flatten().for_each(|kv| all.stood(kv, seen.revision));
        }
        all.unchanged.values_mut().for_each(Quiet::settle);
        for ((key, end), mut quiet) in ranges {
            quiet.settle();
            all.watched.push((KeyRange::new(key, end), quiet));
        }
        all
    }

    /// A key that stood like this from its own revision to another.
    fn stood(&mut self, kv: &KeyValue, to: i64) {
        self.lease(kv, to);
        self.unchanged.entry(kv.key.clone()).or_default().add(kv.mod_revision, to);
        self.saw(kv);
    }

    fn saw(&mut self, kv: &KeyValue) {
        self.lived(kv);
        // Without a value it may have been asked for without one.
        if !kv.value.is_empty() {
            self.note(kv.mod_revision, Seen::Put(kv.clone()));
        }
    }

    fn lease(&mut self, kv: &KeyValue, to: i64) {
        if kv.lease != 0 {
            let until = self.leased.entry(kv.lease).or_insert(to);
            *until = to.max(*until);
        }
    }

    fn lived(&mut self, kv: &KeyValue) {
        self.lease(kv, kv.mod_revision);
        let created = kv.create_revision;
        let life = Life { created, last: kv.mod_revision, version: kv.version };
        let lives = self.lives.entry(kv.key.clone()).or_default();
        let longest = lives.entry(created).or_insert(life);
        if longest.last < life.last {
            *longest = life;
        }
        let keys = self.created.entry(created).or_default();
        if !keys.contains(&kv.key) {
            keys.push(kv.key.clone());
        }
    }

    fn note(&mut self, revision: i64, what: Seen) {
        let seen = self.seen.entry(revision).or_default();
        if !seen.contains(&what) {
            seen.push(what);
        }
    }

    fn answer(&mut self, request: &Request, response: &Response, revision: i64) {
        match (request, response) {
            (Request::Range(asked), Response::Range(told)) => {
                let at = if asked.revision > 0 { asked.revision } else { revision };
                told.kvs.iter().for_each(|kv| self.stood(kv, at));
            }
            (_, Response::Put(told)) => {
                told.prev_kv.iter().for_each(|kv| self.stood(kv, revision - 1));
            }
            (_, Response::DeleteRange(told)) => {
                told.prev_kvs.iter().for_each(|kv| self.stood(kv, revision - 1));
            }
            (_, Response::Txn(told)) => self.txn(told, revision),
            _ => {}
        }
    }

    fn txn(&mut self, told: &pb::TxnResponse, revision: i64) {
        for op in &told.responses {
            match &op.response {
                // It may have been asked for at an older revision: how long it stood is not told.
                Some(Told::ResponseRange(told)) => told.kvs.iter().for_each(|kv| self.saw(kv)),
                Some(Told::ResponsePut(told)) => {
                    told.prev_kv.iter().for_each(|kv| self.stood(kv, revision - 1));
                }
                Some(Told::ResponseDeleteRange(told)) => {
                    told.prev_kvs.iter().for_each(|kv| self.stood(kv, revision - 1));
                }
                Some(Told::ResponseTxn(told)) => self.txn(told, revision),
                None => {}
            }
        }
    }

    /// The events of a watch. Answers between which revisions it brought them all.
    fn watch(&mut self, watch: &Watch) -> Option<(i64, i64)> {
        let (mut after, mut to) = (None, i64::MIN);
        for (_, response) in &watch.responses {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            if response.created {
                let start = watch.request.start_revision;
                after = Some(if start > 0 { start - 1 } else { revision });
            } else if response.events.is_empty() && !response.canceled {
                to = to.max(revision);
            }
            for event in &response.events {
                self.event(event);
            }
            if let (Some(Event { kv: Some(kv), .. }), false) =
                (response.events.last(), response.fragment)
            {
                to = to.max(kv.mod_revision);
            }
        }
        after.map(|after| (after, to))
    }

    fn event(&mut self, event: &Event) {
        let Some(kv) = &event.kv else { return };
        if event.r#type() == EventType::Delete {
            self.note(kv.mod_revision, Seen::Deleted(kv.key.clone()));
        } else {
            self.lived(kv);
            self.note(kv.mod_revision, Seen::Put(kv.clone()));
        }
        event.prev_kv.iter().for_each(|before| self.stood(before, kv.mod_revision - 1));
    }

    /// All that was seen put.
    pub fn puts(&self) -> impl Iterator<Item = &KeyValue> {
        self.seen.values().flatten().filter_map(|seen| match seen {
            Seen::Put(kv) => Some(kv),
            Seen::Deleted(_) => None,
        })
    }

    /// The revisions in which a key was seen to change.
    pub fn changes_of(&self, key: &Bytes) -> BTreeSet<i64> {
        let of_key = |seen: &Seen| seen.key() == key;
        let changed = self.seen.iter().filter(|(_, seen)| seen.iter().any(of_key));
        changed.map(|(revision, _)| *revision).collect()
    }

    /// Where a key did not change.
    pub fn still(&self, key: &Bytes) -> Still<'_> {
        let mut watched = Quiet::default();
        for (_, quiet) in self.watched.iter().filter(|(range, _)| range.contains(key)) {
            quiet.0.iter().for_each(|(&after, &to)| watched.add(after, to));
        }
        watched.settle();
        Still { stood: self.unchanged.get(key), watched }
    }

    /// Whether a lease may have ended in a revision: no key was seen under it later.
    pub fn may_end(&self, lease: i64, revision: i64) -> bool {
        self.leased.get(&lease).is_none_or(|until| *until < revision)
    }

    /// Whether these changes of one revision may have been: all that was seen is there, and nothing has changed
    /// that stood still.
    pub fn allow(&self, revision: i64, changes: &[Change]) -> bool {
        let none = Vec::new();
        let seen = self.seen.get(&revision).unwrap_or(&none);
        if !seen.iter().all(|seen| changes.iter().any(|change| seen.is(change))) {
            return false;
        }
        let created = |key: &Bytes| {
            let is_it = |change: &Change| change.is_create() && change.kv.key == *key;
            changes.iter().any(is_it)
        };
        if !self.created.get(&revision).is_none_or(|keys| keys.iter().all(created)) {
            return false;
        }
        let fits = |change: &Change| {
            let life = self.lives.get(&change.kv.key);
            let life = life.and_then(|lives| lives.range(..=revision).next_back());
            life.is_none_or(|(_, life)| life.allows(revision, change))
        };
        if !changes.iter().all(fits) {
            return false;
        }
        let still = |key: &Bytes| {
            let stood = self.unchanged.get(key).is_some_and(|quiet| quiet.covers(revision));
            let watched =
                |(range, quiet): &(KeyRange, Quiet)| range.contains(key) && quiet.covers(revision);
            stood || !seen.iter().any(|seen| seen.key() == key) && self.watched.iter().any(watched)
        };
        !changes.iter().any(|change| still(&change.kv.key))
    }
}
