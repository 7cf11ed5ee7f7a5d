//! Reads against the log: each shows the model at its revision, and that revision is one that it may show. Not
//! here: writes; leases.

use etch_api::Error;
use etch_api::pb::etcdserverpb as pb;

use super::evidence::{Evidence, shown_by};
use super::writes::same_answer;
use super::{Report, Rule, show};
use crate::history::{History, Operation, Outcome, Request, Response};
use crate::model::replay::Replay;
use crate::model::{is_read_only, is_serializable};

/// What a read asked of the store's past: whether it may be old, and at which revisions it looks.
struct Asked {
    serializable: bool,
    revisions: Vec<i64>,
}

fn asked(request: &Request, outcome: &Outcome) -> Option<Asked> {
    match request {
        Request::Range(range) => {
            Some(Asked { serializable: range.serializable, revisions: vec![range.revision] })
        }
        Request::Txn(txn) if is_read_only(txn) => {
            let ran = match outcome {
                Outcome::Ok(Response::Txn(told)) if told.succeeded => &[&txn.success][..],
                Outcome::Ok(Response::Txn(_)) => &[&txn.failure],
                _ => &[&txn.success, &txn.failure],
            };
            let ops = ran.iter().flat_map(|ops| ops.iter());
            let revisions = ops.filter_map(range).map(|range| range.revision).collect();
            Some(Asked { serializable: is_serializable(txn), revisions })
        }
        _ => None,
    }
}

fn range(op: &pb::RequestOp) -> Option<&pb::RangeRequest> {
    match &op.request {
        Some(pb::request_op::Request::RequestRange(range)) => Some(range),
        _ => None,
    }
}

/// Judges all reads of keys.
pub fn check(history: &History, replay: &Replay, evidence: &Evidence<'_>, report: &mut Report) {
    for op in &history.operations {
        let Some(asked) = asked(&op.request, &op.outcome) else { continue };
        match &op.outcome {
            Outcome::Ok(_) => answered(op, &asked, replay, evidence, report),
            Outcome::Refused(why) => refused(op, &asked, why, replay, evidence, report),
            Outcome::Unknown => {}
        }
    }
}

fn answered(
    op: &Operation,
    asked: &Asked,
    replay: &Replay,
    evidence: &Evidence<'_>,
    report: &mut Report,
) {
    report.checked.reads += 1;
    let what = || show::operation(op);
    let Some(revision) = shown_by(op) else {
        return report.broken(Rule::Read, format!("{}; its header has no revision", what()));
    };
    let newest = replay.revision_after(evidence.not_before(op.ended_ns).checked_sub(1));
    if revision > newest {
        return report.broken(
            Rule::FutureRead,
            format!("{}; but there was nothing newer than revision {newest} by then", what()),
        );
    }
    let done = evidence.done_before(op.sent_ns);
    let known = replay.revision_after(done);
    if !asked.serializable && revision < known {
        report.broken(
            Rule::StaleRead,
            format!("{}; but revision {known} was known before it was sent", what()),
        );
    }
    // Which compactions the store that answered had heard of.
    let heard = if asked.serializable {
        replay.maker_of(revision)
    } else {
        done.max(replay.maker_of(revision))
    };
    let compacted = heard.map_or(-1, |at| replay.steps[at].compacted);
    if let Some(old) = asked.revisions.iter().find(|r| **r > 0 && **r < compacted) {
        return report.broken(
            Rule::Compaction,
            format!("{}; but revision {old} was gone: compacted to {compacted}", what()),
        );
    }
    compare(op, revision, replay, report);
}

/// The answer's body against the model's at the header's revision.
fn compare(op: &Operation, revision: i64, replay: &Replay, report: &mut Report) {
    let model = &replay.model;
    let right = match &op.request {
        Request::Range(request) => model.range(request, revision, false).map(Response::Range),
        Request::Txn(request) => model.read_txn(request, revision).map(Response::Txn),
        _ => return,
    };
    let Outcome::Ok(told) = &op.outcome else { return };
    if !matches!(&right, Ok(right) if same_answer(told, right)) {
        let right = match &right {
            Ok(response) => show::response(response),
            Err(why) => format!("`{why}`"),
        };
        report.broken(
            Rule::Read,
            format!("{}; told {}, but right is {right}", show::operation(op), show::response(told)),
        );
    }
}

fn refused(
    op: &Operation,
    asked: &Asked,
    why: &str,
    replay: &Replay,
    evidence: &Evidence<'_>,
    report: &mut Report,
) {
    let Some(oldest) = asked.revisions.iter().filter(|r| **r > 0).min() else { return };
    let newest = asked.revisions.iter().max().copied().unwrap_or(0);
    if why == Error::Compacted.message() {
        let last = evidence.not_before(op.ended_ns).checked_sub(1);
        let compacted = last.map_or(-1, |at| replay.steps[at].compacted);
        if *oldest >= compacted {
            report.broken(
                Rule::Compaction,
                format!("{}; but the log was compacted to {compacted} only", show::operation(op)),
            );
        }
    }
    if why == Error::FutureRev.message() && !asked.serializable {
        let known = replay.revision_after(evidence.done_before(op.sent_ns));
        if newest <= known {
            report.broken(
                Rule::StaleRead,
                format!(
                    "{}; but revision {known} was known before it was sent",
                    show::operation(op)
                ),
            );
        }
    }
}
