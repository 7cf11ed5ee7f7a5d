//! Which revision a request of unknown outcome has made, as far as the values tell that anybody saw: no two requests put
//! the same value. Not here: what becomes of that (`search`).

use std::collections::BTreeMap;

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::KeyValue;
use pb::request_op::Request as Asked;
use pb::response_op::Response as Told;

use crate::history::{History, Outcome, Request, Response};

/// The values that anybody saw.
#[derive(Default)]
pub struct Values<'a> {
    /// Each one as it was when it was first seen.
    first: BTreeMap<&'a Bytes, &'a KeyValue>,
    /// The value of each key's version, by the key and the revision that created it.
    versions: BTreeMap<(&'a Bytes, i64, i64), &'a Bytes>,
    /// There are puts that keep a value: then it does not tell by itself who wrote it.
    kept: bool,
}

impl<'a> Values<'a> {
    /// Gathers them from answers, events, and what members said of themselves.
    pub fn new(history: &'a History) -> Values<'a> {
        let mut all = Values::default();
        for op in &history.operations {
            all.kept |= keeps_value(&op.request);
            match &op.outcome {
                Outcome::Ok(Response::Range(told)) => told.kvs.iter().for_each(|kv| all.saw(kv)),
                Outcome::Ok(Response::Put(told)) => told.prev_kv.iter().for_each(|kv| all.saw(kv)),
                Outcome::Ok(Response::DeleteRange(told)) => {
                    told.prev_kvs.iter().for_each(|kv| all.saw(kv));
                }
                Outcome::Ok(Response::Txn(told)) => all.txn(told),
                _ => {}
            }
        }
        for watch in &history.watches {
            for (_, response) in &watch.responses {
                for event in &response.events {
                    event.kv.iter().chain(&event.prev_kv).for_each(|kv| all.saw(kv));
                }
            }
        }
        for observation in &history.observations {
            observation.keys.iter().flatten().for_each(|kv| all.saw(kv));
        }
        all
    }

    fn saw(&mut self, kv: &'a KeyValue) {
        if kv.value.is_empty() {
            return;
        }
        self.versions.insert((&kv.key, kv.create_revision, kv.version), &kv.value);
        let first = self.first.entry(&kv.value).or_insert(kv);
        if kv.mod_revision < first.mod_revision {
            *first = kv;
        }
    }

    fn txn(&mut self, told: &'a pb::TxnResponse) {
        for op in &told.responses {
            match &op.response {
                Some(Told::ResponseRange(told)) => told.kvs.iter().for_each(|kv| self.saw(kv)),
                Some(Told::ResponsePut(told)) => told.prev_kv.iter().for_each(|kv| self.saw(kv)),
                Some(Told::ResponseDeleteRange(told)) => {
                    told.prev_kvs.iter().for_each(|kv| self.saw(kv));
                }
                Some(Told::ResponseTxn(told)) => self.txn(told),
                None => {}
            }
        }
    }

    /// The revision that a request has made, if it is known; and the one that it is likely to have made, where another
    /// may have kept its value when it was first seen.
    pub fn revision_of(&self, request: &Request) -> (Option<i64>, Option<i64>) {
        let mut values = Vec::new();
        values_of(request, &mut values);
        let seen = || values.iter().filter_map(|value| self.first.get(value));
        let made = seen().find(|kv| self.wrote(kv)).map(|kv| kv.mod_revision);
        let likely = seen().map(|kv| kv.mod_revision).min().filter(|_| made.is_none());
        (made, likely)
    }

    /// Whether what made a key's version has also put its value: nothing keeps the value of a key that is not there, and
    /// nothing keeps another value than the one before.
    fn wrote(&self, kv: &KeyValue) -> bool {
        let before = || self.versions.get(&(&kv.key, kv.create_revision, kv.version - 1));
        !self.kept || kv.version == 1 || before().is_some_and(|value| **value != kv.value)
    }
}

fn keeps_value(request: &Request) -> bool {
    fn any(ops: &[pb::RequestOp]) -> bool {
        ops.iter().any(|op| match &op.request {
            Some(Asked::RequestPut(put)) => put.ignore_value,
            Some(Asked::RequestTxn(nested)) => any(&nested.success) || any(&nested.failure),
            _ => false,
        })
    }
    match request {
        Request::Put(put) => put.ignore_value,
        Request::Txn(txn) => any(&txn.success) || any(&txn.failure),
        _ => false,
    }
}

/// The values that a request may put.
fn values_of<'a>(request: &'a Request, out: &mut Vec<&'a Bytes>) {
    match request {
        Request::Put(put) if !put.value.is_empty() => out.push(&put.value),
        Request::Txn(txn) => txn_values(txn, out),
        _ => {}
    }
}

fn txn_values<'a>(txn: &'a pb::TxnRequest, out: &mut Vec<&'a Bytes>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Asked::RequestPut(put)) if !put.value.is_empty() => out.push(&put.value),
            Some(Asked::RequestTxn(nested)) => txn_values(nested, out),
            _ => {}
        }
    }
}
