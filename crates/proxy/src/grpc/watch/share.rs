//! Groups that take their events from a wider one, so that the cluster is asked for them once: a key, or a range,
//! wholly inside a range that is watched already. Not here: when that may be (`hub`), and what a group does with its
//! events (`group`).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::WatchResponse;
use etch_api::pb::mvccpb::Event;
use etch_client::Namespace;

use super::What;
use super::group::{Batch, Group};

/// Ranges inside a range at the most: each event is compared with all of them. Keys are found at once.
const RANGES: usize = 64;

/// The groups that a wider one feeds.
#[derive(Default)]
pub(super) struct Children {
    by_key: HashMap<Bytes, Vec<Rc<Group>>>,
    ranges: Vec<Rc<Group>>,
}

impl Children {
    /// Whether there is room for one more that sees this.
    pub(super) fn has_room(&self, what: &What) -> bool {
        what.end.is_empty() || self.ranges.len() < RANGES
    }

    fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.ranges.is_empty()
    }

    pub(super) fn add(&mut self, group: &Rc<Group>) {
        let what = group.what();
        let list = if what.end.is_empty() {
            self.by_key.entry(what.key.clone()).or_default()
        } else {
            &mut self.ranges
        };
        list.push(Rc::clone(group));
    }

    pub(super) fn remove(&mut self, group: &Rc<Group>) {
        let what = group.what();
        if !what.end.is_empty() {
            return self.ranges.retain(|known| !Rc::ptr_eq(known, group));
        }
        if let Some(list) = self.by_key.get_mut(&what.key) {
            list.retain(|known| !Rc::ptr_eq(known, group));
            if list.is_empty() {
                self.by_key.remove(&what.key);
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Rc<Group>> {
        self.by_key.values().flatten().chain(&self.ranges).cloned().collect()
    }

    /// What each of them gets of an answer, in its parts.
    pub(super) fn share(
        &self,
        namespace: Option<&Namespace>,
        parts: &[Batch],
    ) -> Vec<(Rc<Group>, Vec<Batch>)> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut shares: Vec<(Rc<Group>, Vec<WatchResponse>)> = Vec::new();
        let mut places: HashMap<*const Group, usize> = HashMap::new();
        for part in parts {
            let mut seen: HashSet<usize> = HashSet::new();
            for event in &part.response.events {
                for group in self.of(namespace, event) {
                    let place = *places.entry(Rc::as_ptr(group)).or_insert_with(|| {
                        shares.push((Rc::clone(group), Vec::new()));
                        shares.len() - 1
                    });
                    let responses = &mut shares[place].1;
                    if seen.insert(place) {
                        let header = part.response.header;
                        responses.push(WatchResponse { header, fragment: true, ..<_>::default() });
                    }
                    if let Some(response) = responses.last_mut() {
                        response.events.push(event.clone());
                    }
                }
            }
        }
        let whole = |(group, mut responses): (Rc<Group>, Vec<WatchResponse>)| {
            if let Some(last) = responses.last_mut() {
                last.fragment = false;
            }
            let batches = responses.into_iter().map(|r| Batch::of(group.next(), r)).collect();
            (group, batches)
        };
        shares.into_iter().map(whole).collect()
    }

    /// Who sees an event. Its key bears no namespace any more.
    fn of(&self, namespace: Option<&Namespace>, event: &Event) -> impl Iterator<Item = &Rc<Group>> {
        let key = event.kv.as_ref().map(|kv| match namespace {
            None => kv.key.clone(),
            Some(namespace) => namespace.add(&kv.key),
        });
        let key = key.unwrap_or_default();
        let keys = self.by_key.get(&key).into_iter().flatten();
        keys.chain(self.ranges.iter().filter(move |group| group.what().has(&key)))
    }
}
