//! The log, read from its first entry on: what each entry did and what its caller was to be told, and the
//! model after the last. Not here: who asked (`judge`).

use std::collections::BTreeMap;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{RequestKind, decode_entry};
use etch_api::pb::etcdserverpb as pb;
use prost::{DecodeError, Message};

use super::Model;
use crate::history::{History, LogEntry, Outcome, Request, Response};

/// One entry of the log, done.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its index in the log.
    pub index: u64,
    /// When it was first applied anywhere, if that is known.
    pub applied_ns: Option<u64>,
    /// What a client may have asked; none for what concerns the cluster alone.
    pub request: Option<Request>,
    /// What the caller is to be told.
    pub answer: Result<Response, Error>,
    /// The revision before it.
    pub before: i64,
    /// The revision after it.
    pub after: i64,
    /// The compacted revision after it.
    pub compacted: i64,
}

/// A lease from its grant to its end, by positions among the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The step that granted it.
    pub granted: usize,
    /// The step that revoked it.
    pub ended: Option<usize>,
    /// Its TTL.
    pub ttl: i64,
    /// The keys attached to it, from each step that changed them on.
    pub keys: Vec<(usize, Vec<Bytes>)>,
}

/// A log, replayed.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The store after the last entry.
    pub model: Model,
    /// Each entry.
    pub steps: Vec<Step>,
    /// Each lease's lives, by id.
    pub leases: BTreeMap<i64, Vec<Life>>,
    /// What is wrong with the log itself.
    pub damage: Vec<String>,
}

/// TTLs that are too short are raised: if nobody has said how far, as far as the answers show.
fn min_ttl(history: &History) -> i64 {
    if history.min_ttl > 0 {
        return history.min_ttl;
    }
    let raised = history.operations.iter().filter_map(|op| match (&op.request, &op.outcome) {
        (Request::LeaseGrant(asked), Outcome::Ok(Response::LeaseGrant(told))) => {
            (told.ttl > asked.ttl).then_some(told.ttl)
        }
        _ => None,
    });
    raised.min().unwrap_or(0)
}

impl Replay {
    /// Replays a history's log.
    pub fn of(history: &History) -> Replay {
        let mut replay = Replay {
            model: Model::new(min_ttl(history)),
            steps: Vec::new(),
            leases: BTreeMap::new(),
            damage: Vec::new(),
        };
        let mut last: Option<&LogEntry> = None;
        for entry in &history.log {
            if let Some(last) = last
                && (entry.term < last.term || entry.index <= last.index)
            {
                replay.damage.push(format!(
                    "entry {} of term {} follows entry {} of term {}",
                    entry.index, entry.term, last.index, last.term
                ));
            }
            last = Some(entry);
            if let Err(why) = replay.step(entry) {
                replay.damage.push(format!("entry {} cannot be read: {why}", entry.index));
            }
        }
        replay
    }

    fn step(&mut self, entry: &LogEntry) -> Result<(), DecodeError> {
        let decoded = decode_entry(&entry.data)?;
        let before = self.model.revision();
        let body = decoded.body.clone();
        if decoded.kind == Some(RequestKind::Alarm) {
            self.model.alarm(&pb::AlarmRequest::decode(body.clone())?);
        }
        let request = match decoded.kind {
            Some(RequestKind::Range) => Some(Request::Range(Message::decode(body)?)),
            Some(RequestKind::Put) => Some(Request::Put(Message::decode(body)?)),
            Some(RequestKind::DeleteRange) => Some(Request::DeleteRange(Message::decode(body)?)),
            Some(RequestKind::Txn) => Some(Request::Txn(Message::decode(body)?)),
            Some(RequestKind::Compaction) => Some(Request::Compact(Message::decode(body)?)),
            Some(RequestKind::LeaseGrant) => Some(Request::LeaseGrant(Message::decode(body)?)),
            Some(RequestKind::LeaseRevoke) => Some(Request::LeaseRevoke(Message::decode(body)?)),
            _ => None,
        };
        let known = self.model.changes().len();
        let answer = match &request {
            Some(request) => self.model.apply(request),
            None => Ok(Response::Defragment),
        };
        self.steps.push(Step {
            index: entry.index,
            applied_ns: entry.applied_ns,
            request,
            answer,
            before,
            after: self.model.revision(),
            compacted: self.model.compacted(),
        });
        self.follow_leases(known);
        Ok(())
    }

    /// Notes what the last step did to leases. `known` is how many changes there were before it.
    fn follow_leases(&mut self, known: usize) {
        let at = self.steps.len() - 1;
        match (&self.steps[at].request, &self.steps[at].answer) {
            (Some(Request::LeaseGrant(asked)), Ok(Response::LeaseGrant(told))) => {
                let life = Life { granted: at, ended: None, ttl: told.ttl, keys: Vec::new() };
                self.leases.entry(asked.id).or_default().push(life);
            }
            (Some(Request::LeaseRevoke(asked)), Ok(_)) => {
                if let Some(life) = self.leases.get_mut(&asked.id).and_then(|l| l.last_mut()) {
                    life.ended = Some(at);
                }
                return;
            }
            _ => {}
        }
        let changed = &self.model.changes()[known..];
        let before = changed.iter().filter_map(|change| change.previous.as_ref());
        let mut touched: Vec<i64> = before.map(|kv| kv.lease).collect();
        touched.extend(changed.iter().map(|change| change.kv.lease));
        touched.retain(|id| *id != 0);
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let keys = self.model.keys_of(id);
            if let Some(life) = self.leases.get_mut(&id).and_then(|l| l.last_mut()) {
                life.keys.push((at, keys));
            }
        }
    }

    /// The step that made a revision; none for the first, which was there before the log.
    pub fn maker_of(&self, revision: i64) -> Option<usize> {
        let at = self.steps.partition_point(|step| step.after < revision);
        (revision > 1 && at < self.steps.len()).then_some(at)
    }

    /// The revision after a step; before the first one it is 1.
    pub fn revision_after(&self, step: Option<usize>) -> i64 {
        step.map_or(1, |at| self.steps[at].after)
    }
}
