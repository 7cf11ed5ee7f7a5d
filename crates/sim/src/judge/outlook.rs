//! What must come of each key before it is seen again, and how many revisions are left in which it can: an order
//! that leaves too few is wrong, long before the search (`search`) gets there. Not here: what was seen
//! (`sightings`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etch_api::KeyRange;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::KeyValue;
use pb::request_op::Request as Asked;

use super::sightings::Sightings;
use crate::history::{History, Operation, Outcome, Request, Response};
use crate::model::Model;

/// How a key must stand.
#[derive(Debug, PartialEq)]
enum Need {
    /// Not at all.
    Absent,
    /// Created at a revision, and put so many times since.
    Version(i64, i64),
}

#[derive(Debug, Default)]
struct Key {
    /// What it must be once a revision is made.
    needs: BTreeMap<i64, Need>,
    /// At each revision: in how many up to it the key may change.
    open: Vec<i64>,
}

/// All keys' outlooks.
#[derive(Debug, Default)]
pub struct Outlook(BTreeMap<Bytes, Key>);

impl Outlook {
    /// From what was seen, and the requests of which the revision is known.
    pub fn new(
        history: &History,
        sightings: &Sightings,
        known: &BTreeMap<i64, &Request>,
        last: i64,
    ) -> Outlook {
        let mut all = Outlook::default();
        for kv in sightings.puts() {
            let (created, at) = (kv.create_revision, kv.mod_revision);
            let needs = &mut all.0.entry(kv.key.clone()).or_default().needs;
            if kv.version > 1 {
                needs.insert(at - 1, Need::Version(created, kv.version - 1));
            }
            // Who deletes it first may put it where it is.
            let fresh =
                known.get(&created).is_some_and(|request| !touches(request, &kv.key).deletes);
            if fresh {
                needs.insert(created - 1, Need::Absent);
            }
        }
        for op in &history.operations {
            if let Some((revision, asked, told)) = whole_range(op) {
                all.absent(revision, &asked.key, &asked.range_end, &told.kvs);
            }
        }
        let everything = Bytes::from_static(b"\0");
        for seen in &history.observations {
            if let Some(keys) = &seen.keys {
                all.absent(seen.revision, &everything, &everything, keys);
            }
        }
        for (key, outlook) in &mut all.0 {
            let still = sightings.still(key);
            let seen: BTreeSet<i64> = sightings.changes_of(key);
            let mut count = 0;
            for revision in 0..=last {
                let may = known.get(&revision).is_none_or(|request| touches(request, key).any());
                let shut =
                    still.stood(revision) || still.watched(revision) && !seen.contains(&revision);
                count += i64::from(may && !shut);
                outlook.open.push(count);
            }
        }
        all
    }

    /// Of a range all keys were seen: the others were not there.
    fn absent(&mut self, revision: i64, key: &Bytes, range_end: &Bytes, kvs: &[KeyValue]) {
        let range = KeyRange::new(key.clone(), range_end.clone());
        for (key, outlook) in &mut self.0 {
            if range.contains(key) && !kvs.iter().any(|kv| kv.key == *key) {
                outlook.needs.entry(revision).or_insert(Need::Absent);
            }
        }
    }

    /// Whether all keys can still become what they are seen to be later.
    pub fn has_hope(&self, model: &Model) -> bool {
        let now = model.revision();
        self.0.iter().all(|(key, outlook)| {
            let Some((&at, need)) = outlook.needs.range(now..).next() else { return true };
            let stands = model.get(key, now);
            let left = match (need, stands) {
                (Need::Absent, stands) => i64::from(stands.is_some()),
                (Need::Version(created, version), _) if now < *created => *version,
                (Need::Version(created, version), Some(kv)) if kv.create_revision == *created => {
                    version - kv.version
                }
                (Need::Version(..), _) => return false,
            };
            let open =
                |revision: i64| usize::try_from(revision).ok().and_then(|r| outlook.open.get(r));
            let room = open(at).zip(open(now)).map_or(i64::MAX, |(then, now)| then - now);
            0 <= left && left <= room
        })
    }
}

/// A read that has all keys of its range, and the revision that it shows.
fn whole_range(op: &Operation) -> Option<(i64, &pb::RangeRequest, &pb::RangeResponse)> {
    let (Request::Range(asked), Outcome::Ok(Response::Range(told))) = (&op.request, &op.outcome)
    else {
        return None;
    };
    let whole = !told.more && i64::try_from(told.kvs.len()) == Ok(told.count);
    let shown = told.header.as_ref().map_or(0, |header| header.revision);
    let revision = if asked.revision > 0 { asked.revision } else { shown };
    whole.then_some((revision, asked, told))
}

/// What a request may do to a key.
#[derive(Default)]
struct Touch {
    puts: bool,
    deletes: bool,
}

impl Touch {
    fn any(&self) -> bool {
        self.puts || self.deletes
    }
}

fn touches(request: &Request, key: &Bytes) -> Touch {
    let mut touch = Touch::default();
    match request {
        Request::Put(put) => touch.puts = put.key == *key,
        Request::DeleteRange(delete) => touch.deletes = is_in(delete, key),
        Request::Txn(txn) => txn_touches(txn, key, &mut touch),
        _ => touch = Touch { puts: true, deletes: true },
    }
    touch
}

fn txn_touches(txn: &pb::TxnRequest, key: &Bytes, touch: &mut Touch) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Asked::RequestPut(put)) => touch.puts |= put.key == *key,
            Some(Asked::RequestDeleteRange(delete)) => touch.deletes |= is_in(delete, key),
            Some(Asked::RequestTxn(nested)) => txn_touches(nested, key, touch),
            _ => {}
        }
    }
}

fn is_in(delete: &pb::DeleteRangeRequest, key: &Bytes) -> bool {
    KeyRange::new(delete.key.clone(), delete.range_end.clone()).contains(key)
}
