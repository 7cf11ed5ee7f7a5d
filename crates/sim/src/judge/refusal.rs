//! Refusals of writes: what the server gives as its reason was so at some time while it was asked. Not here:
//! refused reads (`reads`), and that a refused write has no effect (`writes`).

use etch_api::Error;
use etch_api::pb::etcdserverpb as pb;
use pb::request_op::Request as Asked;

use super::evidence::Evidence;
use super::{Report, Rule, show};
use crate::history::{History, Operation, Outcome, Request};
use crate::model::replay::{Life, Replay};

/// Between what was surely done before an operation was sent, and what cannot have been done before it ended.
pub struct Window {
    /// The last step before.
    pub from: Option<usize>,
    /// The first step after.
    pub to: usize,
}

impl Window {
    /// The window of an operation.
    pub fn of(op: &Operation, evidence: &Evidence<'_>) -> Window {
        let from = evidence.done_before(op.sent_ns);
        Window { from, to: evidence.not_before(op.ended_ns) }
    }

    /// Whether a lease lived all the time.
    pub fn is_all_of(&self, life: &Life) -> bool {
        self.from.is_some_and(|from| life.granted <= from)
            && life.ended.is_none_or(|end| end >= self.to)
    }

    /// Whether a lease lived at some time.
    pub fn has_some_of(&self, life: &Life) -> bool {
        let later = |end| self.from.is_none_or(|from| from < end);
        life.granted < self.to && life.ended.is_none_or(later)
    }
}

/// Judges the reasons of refused writes.
pub fn check(history: &History, replay: &Replay, evidence: &Evidence<'_>, report: &mut Report) {
    for op in &history.operations {
        let Outcome::Refused(why) = &op.outcome else { continue };
        let window = Window::of(op, evidence);
        let none = Vec::new();
        let lives = |id: i64| replay.leases.get(&id).unwrap_or(&none).iter();
        let lived = |id: i64| lives(id).any(|life| window.is_all_of(life));
        let has_reason = match (&op.request, Error::from_message(why)) {
            (
                Request::Put(_) | Request::Txn(_) | Request::LeaseRevoke(_),
                Some(Error::LeaseNotFound),
            ) => leases(&op.request).into_iter().any(|id| !lived(id)),
            (Request::LeaseGrant(asked), Some(Error::LeaseExist)) => {
                lives(asked.id).any(|life| window.has_some_of(life))
            }
            (Request::Compact(asked), Some(Error::Compacted)) => {
                let last = window.to.checked_sub(1);
                last.is_some_and(|at| replay.steps[at].compacted >= asked.revision)
            }
            (Request::Compact(asked), Some(Error::FutureRev)) => {
                asked.revision > replay.revision_after(window.from)
            }
            _ => true,
        };
        if !has_reason {
            report.broken(Rule::Refusal, format!("{}; but that was not so", show::operation(op)));
        }
    }
}

/// The leases that a request names.
fn leases(request: &Request) -> Vec<i64> {
    let mut all = Vec::new();
    match request {
        Request::Put(put) => all.push(put.lease),
        Request::LeaseRevoke(revoke) => all.push(revoke.id),
        Request::Txn(txn) => txn_leases(txn, &mut all),
        _ => {}
    }
    all.retain(|id| *id != 0);
    all
}

fn txn_leases(txn: &pb::TxnRequest, out: &mut Vec<i64>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Asked::RequestPut(put)) => out.push(put.lease),
            Some(Asked::RequestTxn(nested)) => txn_leases(nested, out),
            _ => {}
        }
    }
}
