//! Exactly once: each write that was acknowledged stands in the log once, with the answer that its client got and
//! in the order of real time; nothing else stands there but what somebody asked. Not here: reads.
//!
//! Equal requests (two deletes of one key, say) cannot be told apart by their bytes. Those that were acknowledged
//! are then given to the entries that would have been answered so, the most pressing first, which finds a
//! place for each if there is any.

use std::collections::BTreeMap;

use prost::Message;

use super::evidence::{Evidence, is_write, revision_of, shown_by};
use super::{Report, Rule, show};
use crate::history::{History, Operation, Outcome, Request, Response};
use crate::model::replay::{Replay, Step};

/// Equal requests: who asked, and where they stand in the log.
#[derive(Default)]
struct Same {
    acknowledged: Vec<usize>,
    refused: Vec<usize>,
    unknown: Vec<usize>,
    steps: Vec<usize>,
}

/// Judges all writes, and notes in `evidence` where they were found.
pub fn check(history: &History, replay: &Replay, evidence: &mut Evidence<'_>, report: &mut Report) {
    let mut all = gather(history, replay);
    // What can be told for certain comes first, for it narrows where the others may be.
    let certain = |same: &Same| same.steps.len() == 1 && same.acknowledged.len() == 1;
    let mut found = Vec::new();
    for same in all.values().filter(|same| certain(same)) {
        if answers_match(history, replay, same.acknowledged[0], same.steps[0]) {
            found.push((same.acknowledged[0], same.steps[0]));
        }
    }
    evidence.place(history, &found);
    let mut rest = Vec::new();
    for same in all.values_mut() {
        let given = match certain(same) && evidence.placed[same.acknowledged[0]].is_some() {
            true => vec![(same.acknowledged[0], same.steps[0])],
            false => assign(history, replay, evidence, same),
        };
        judge(history, replay, same, &given, report);
        same.steps.retain(|step| !given.iter().any(|(_, taken)| taken == step));
        if !certain(same) {
            rest.extend(given);
        }
    }
    rest.retain(|(op, _)| evidence.placed[*op].is_none());
    evidence.place(history, &rest);
    report.checked.writes += evidence.placed.iter().flatten().count();
    for same in all.values() {
        unasked(history, replay, evidence, same, report);
    }
    real_time(history, replay, evidence, report);
}

/// The bytes by which equal requests are found.
fn bytes_of(request: &Request) -> (u8, Vec<u8>) {
    match request {
        Request::Range(r) => (0, r.encode_to_vec()),
        Request::Put(r) => (1, r.encode_to_vec()),
        Request::DeleteRange(r) => (2, r.encode_to_vec()),
        Request::Txn(r) => (3, r.encode_to_vec()),
        Request::Compact(r) => (4, r.revision.to_be_bytes().to_vec()),
        Request::LeaseGrant(r) => (5, r.encode_to_vec()),
        Request::LeaseRevoke(r) => (6, r.encode_to_vec()),
        _ => (7, Vec::new()),
    }
}

fn gather(history: &History, replay: &Replay) -> BTreeMap<(u8, Vec<u8>), Same> {
    let mut all: BTreeMap<_, Same> = BTreeMap::new();
    for (at, op) in history.operations.iter().enumerate() {
        if !is_write(&op.request) {
            continue;
        }
        let same = all.entry(bytes_of(&op.request)).or_default();
        match op.outcome {
            Outcome::Ok(_) => same.acknowledged.push(at),
            Outcome::Refused(_) => same.refused.push(at),
            Outcome::Unknown => same.unknown.push(at),
        }
    }
    for (at, step) in replay.steps.iter().enumerate() {
        if let Some(request) = step.request.as_ref().filter(|request| is_write(request)) {
            all.entry(bytes_of(request)).or_default().steps.push(at);
        }
    }
    all
}

/// Whether the client was told what the log says. The header of what changes no key may be of a later
/// revision: a member fills it in when it answers.
fn answers_match(history: &History, replay: &Replay, op: usize, step: usize) -> bool {
    let op = &history.operations[op];
    let (Outcome::Ok(told), Ok(right)) = (&op.outcome, &replay.steps[step].answer) else {
        return false;
    };
    same_answer(told, right)
}

/// Whether an answer is the right one, whatever else its header says.
pub fn same_answer(told: &Response, right: &Response) -> bool {
    let (shown, due) = (revision_of(told), revision_of(right));
    let body = match (told, right) {
        (Response::Range(a), Response::Range(b)) => {
            (&a.kvs, a.more, a.count) == (&b.kvs, b.more, b.count)
        }
        (Response::Put(a), Response::Put(b)) => a.prev_kv == b.prev_kv,
        (Response::DeleteRange(a), Response::DeleteRange(b)) => {
            (a.deleted, &a.prev_kvs) == (b.deleted, &b.prev_kvs)
        }
        (Response::Txn(a), Response::Txn(b)) => {
            (a.succeeded, &a.responses) == (b.succeeded, &b.responses)
        }
        (Response::LeaseGrant(a), Response::LeaseGrant(b)) => {
            return (a.id, a.ttl, &a.error) == (b.id, b.ttl, &b.error) && shown >= due;
        }
        (Response::LeaseRevoke(_), Response::LeaseRevoke(_))
        | (Response::Compact(_), Response::Compact(_)) => return shown >= due,
        _ => false,
    };
    body && shown == due
}

/// Gives entries to the acknowledged operations of equal requests: `(operation, step)`.
fn assign(
    history: &History,
    replay: &Replay,
    evidence: &Evidence<'_>,
    same: &Same,
) -> Vec<(usize, usize)> {
    let window =
        |op: &Operation| (evidence.done_before(op.sent_ns), evidence.not_before(op.ended_ns));
    let mut waiting: Vec<_> =
        same.acknowledged.iter().map(|&at| (at, window(&history.operations[at]))).collect();
    let mut given = Vec::new();
    for &step in &same.steps {
        let fits = |&(_, &(op, (from, to))): &(usize, &(usize, (Option<usize>, usize)))| {
            let (asked, applied) = (&history.operations[op], replay.steps[step].applied_ns);
            let in_time = |at: u64| asked.sent_ns <= at && at <= asked.ended_ns;
            from.is_none_or(|from| from < step)
                && step < to
                && applied.is_none_or(in_time)
                && answers_match(history, replay, op, step)
        };
        let pressing = waiting.iter().enumerate().filter(fits).min_by_key(|(_, (_, (_, to)))| *to);
        if let Some(taken) = pressing.map(|(at, _)| at) {
            given.push((waiting.remove(taken).0, step));
        }
    }
    given
}

/// Every acknowledged operation must have been given an entry.
fn judge(
    history: &History,
    replay: &Replay,
    same: &Same,
    given: &[(usize, usize)],
    report: &mut Report,
) {
    for &at in &same.acknowledged {
        if given.iter().any(|(op, _)| *op == at) {
            continue;
        }
        let op = &history.operations[at];
        let free = same.steps.iter().filter(|step| !given.iter().any(|(_, s)| s == *step));
        let free: Vec<_> = free.map(|&step| &replay.steps[step]).collect();
        let told = show::operation(op);
        match free.first() {
            None if same.steps.is_empty() => {
                report.broken(Rule::Lost, format!("{told}; but it is nowhere in the log"))
            }
            None => report.broken(
                Rule::Lost,
                format!("{told}; but as many as stand in the log were acknowledged to others"),
            ),
            Some(step) => report.broken(Rule::Answer, wrong_answer(op, step)),
        }
    }
}

fn wrong_answer(op: &Operation, step: &Step) -> String {
    let told = match &op.outcome {
        Outcome::Ok(response) => show::response(response),
        other => format!("{other:?}"),
    };
    let right = match &step.answer {
        Ok(response) => show::response(response),
        Err(why) => format!("`{why}`"),
    };
    let (what, index) = (show::operation(op), step.index);
    format!("{what}; told {told}, but entry {index} makes it {right}, or is not in its time")
}

/// What of the entries that nobody was told of: somebody of unknown outcome must have asked, or one that was
/// refused where the entry did nothing. The cluster itself ends leases and compacts.
fn unasked(
    history: &History,
    replay: &Replay,
    evidence: &Evidence<'_>,
    same: &Same,
    report: &mut Report,
) {
    let mut unknown: Vec<usize> = same.unknown.clone();
    let mut refused: Vec<usize> = same.refused.clone();
    for &at in &same.steps {
        let step = &replay.steps[at];
        let Some(request) = &step.request else { continue };
        let own = matches!(request, Request::LeaseRevoke(_) | Request::Compact(_));
        let could = |&op: &usize| {
            let op = &history.operations[op];
            let asked = step.applied_ns.is_none_or(|applied| op.sent_ns <= applied);
            asked && evidence.done_before(op.sent_ns).is_none_or(|done| done < at)
        };
        let by_refused = match &step.answer {
            Err(why) => {
                refused.iter().position(|op| could(op) && says(history, *op, why.message()))
            }
            Ok(_) => None,
        };
        if let Some(by) = by_refused {
            refused.remove(by);
        } else if let Some(by) = unknown.iter().position(could) {
            unknown.remove(by);
            report.checked.unknown_done += 1;
        } else if !own {
            let asked = same.acknowledged.len() + same.unknown.len() + same.refused.len();
            let refused = same.refused.first().map(|&op| show::operation(&history.operations[op]));
            report.broken(
                Rule::Twice,
                format!(
                    "entry {} (revision {}) is one more than was asked for: {}, which stands in the log more often than \
                     its {asked} requests allow{}",
                    step.index,
                    step.after,
                    show::request(request),
                    refused.map(|r| format!("; {r}")).unwrap_or_default()
                ),
            );
        }
    }
}

fn says(history: &History, op: usize, text: &str) -> bool {
    matches!(&history.operations[op].outcome, Outcome::Refused(why) if why == text)
}

/// The order of the log is that of real time.
fn real_time(history: &History, replay: &Replay, evidence: &Evidence<'_>, report: &mut Report) {
    for (op, placed) in history.operations.iter().zip(&evidence.placed) {
        let Some(at) = *placed else { continue };
        let step = &replay.steps[at];
        if let Some(done) = evidence.done_before(op.sent_ns).filter(|done| *done >= at) {
            report.broken(
                Rule::RealTime,
                format!(
                    "{}; it stands at entry {}, but entry {} was known to be done before it was sent",
                    show::operation(op),
                    step.index,
                    replay.steps[done].index
                ),
            );
        }
        let Some(applied) = step.applied_ns else { continue };
        if applied > op.ended_ns || applied < op.sent_ns {
            report.broken(
                Rule::TooSoon,
                format!(
                    "{}; entry {} was first applied at {}",
                    show::operation(op),
                    step.index,
                    show::time(applied)
                ),
            );
        }
        if shown_by(op).is_some_and(|revision| revision > replay.model.revision()) {
            report.broken(
                Rule::Lost,
                format!(
                    "{}; the log ends at revision {}",
                    show::operation(op),
                    replay.model.revision()
                ),
            );
        }
    }
}
