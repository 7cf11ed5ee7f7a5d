//! Leases: never early, over in time, and alive while they are shown. That a lease's keys go with it in one
//! revision is the model's to say, which the writes, reads and watches are held against. Not here: those.

use std::collections::BTreeMap;

use super::evidence::{Evidence, shown_by};
use super::refusal::Window;
use super::{Report, Rule, show};
use crate::history::{History, Operation, Outcome, Request, Response};
use crate::model::replay::{Life, Replay};

/// A member counts in milliseconds, and reads its clock once a turn.
pub const SLACK_NS: u64 = 50_000_000;
/// So much longer than its TTL a lease may live at the most once the world is healed: a new leader gives every
/// lease its TTL anew, and spreads those that would end together.
const LATEST_NS: u64 = 15_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// When a client asked for more of a lease's time, and got it or may have.
#[derive(Clone, Copy)]
struct Renewal {
    sent: u64,
    ended: u64,
    sure: bool,
}

/// Judges all leases.
pub fn check(history: &History, replay: &Replay, evidence: &Evidence<'_>, report: &mut Report) {
    let renewals = renewals(history);
    let none = Vec::new();
    for (id, lives) in &replay.leases {
        for life in lives {
            report.checked.leases += 1;
            let renewed = renewals.get(id).unwrap_or(&none);
            early(history, replay, evidence, (*id, life), renewed, report);
            late(history, (*id, life), renewed, report);
        }
    }
    for op in &history.operations {
        let Outcome::Ok(response) = &op.outcome else { continue };
        match (&op.request, response) {
            (Request::LeaseKeepAlive(asked), Response::LeaseKeepAlive(told)) => {
                let alive = (told.ttl > 0).then_some(told.ttl);
                shown(op, asked.id, alive, None, replay, evidence, report);
            }
            (Request::LeaseTimeToLive(asked), Response::LeaseTimeToLive(told)) => {
                let alive = (told.ttl >= 0).then_some(told.granted_ttl);
                let keys = asked.keys.then_some(&told.keys);
                shown(op, asked.id, alive, keys, replay, evidence, report);
                if told.ttl > told.granted_ttl.saturating_add((LATEST_NS / SECOND) as i64) {
                    let what = show::operation(op);
                    let (ttl, granted) = (told.ttl, told.granted_ttl);
                    let why = format!("{what}; {ttl} s are left of {granted} s");
                    report.broken(Rule::LeaseAlive, why);
                }
            }
            _ => {}
        }
    }
}

fn renewals(history: &History) -> BTreeMap<i64, Vec<Renewal>> {
    let mut all: BTreeMap<i64, Vec<Renewal>> = BTreeMap::new();
    for op in &history.operations {
        let (id, sure) = match (&op.request, &op.outcome) {
            (Request::LeaseGrant(asked), Outcome::Ok(_)) => (asked.id, true),
            (Request::LeaseGrant(asked), Outcome::Unknown) => (asked.id, false),
            (Request::LeaseKeepAlive(asked), Outcome::Ok(Response::LeaseKeepAlive(told))) => {
                if told.ttl <= 0 {
                    continue;
                }
                (asked.id, true)
            }
            (Request::LeaseKeepAlive(asked), Outcome::Unknown) => (asked.id, false),
            _ => continue,
        };
        let renewal = Renewal { sent: op.sent_ns, ended: op.ended_ns, sure };
        all.entry(id).or_default().push(renewal);
    }
    all
}

/// Whether a client asked for the end of a lease, so that its TTL says nothing.
fn was_revoked(history: &History, id: i64) -> bool {
    let asked = |op: &Operation| matches!(&op.request, Request::LeaseRevoke(r) if r.id == id);
    let may = |op: &Operation| !matches!(op.outcome, Outcome::Refused(_));
    history.operations.iter().any(|op| asked(op) && may(op))
}

/// A lease that nobody revoked ends no sooner than its TTL after its last renewal was sent.
fn early(
    history: &History,
    replay: &Replay,
    evidence: &Evidence<'_>,
    (id, life): (i64, &Life),
    renewals: &[Renewal],
    report: &mut Report,
) {
    let Some(ended) = life.ended else { return };
    if was_revoked(history, id) {
        return;
    }
    let Some(at) = evidence.done_by(ended) else { return };
    // One that succeeded found the lease alive, so it came before the end, whenever its answer did.
    let Some(last) = renewals.iter().filter(|r| r.sure && r.sent < at).map(|r| r.sent).max() else {
        return;
    };
    let due = last + life.ttl as u64 * SECOND;
    if at + SLACK_NS + history.clock_ahead_ns < due {
        let (at, last) = (show::time(at), show::time(last));
        let index = replay.steps[ended].index;
        report.broken(
            Rule::LeaseEarly,
            format!(
                "lease {id} of {} s, last renewed at {last}, was over by {at} (entry {index})",
                life.ttl
            ),
        );
    }
}

/// Once the world is healed, a lease that nobody renews ends.
fn late(history: &History, (id, life): (i64, &Life), renewals: &[Renewal], report: &mut Report) {
    let (None, Some(healed)) = (life.ended, history.healed_ns) else { return };
    let last = renewals.iter().map(|r| r.ended).max().unwrap_or(0).max(healed);
    let end = end_of(history);
    if last + life.ttl as u64 * SECOND + LATEST_NS < end {
        let (last, end) = (show::time(last), show::time(end));
        report.broken(
            Rule::LeaseLate,
            format!("lease {id} of {} s, not renewed since {last}, still lives at {end}", life.ttl),
        );
    }
}

/// The last time that the history knows of.
fn end_of(history: &History) -> u64 {
    let operations = history.operations.iter().map(|op| op.ended_ns);
    let observations = history.observations.iter().map(|seen| seen.at_ns);
    let responses = history.watches.iter().flat_map(|w| w.responses.iter().map(|(at, _)| *at));
    operations.chain(observations).chain(responses).max().unwrap_or(0)
}

/// What a member said of a lease must have been so at some time between what was known before it was asked
/// and what could have happened before it answered. `alive` is the TTL that it named.
fn shown(
    op: &Operation,
    id: i64,
    alive: Option<i64>,
    keys: Option<&Vec<bytes::Bytes>>,
    replay: &Replay,
    evidence: &Evidence<'_>,
    report: &mut Report,
) {
    let mut window = Window::of(op, evidence);
    if !evidence.is_alone {
        // Another member than the leader may have answered, from a state that is old.
        window.from = shown_by(op).and_then(|revision| replay.maker_of(revision));
    }
    let none = Vec::new();
    let lives = replay.leases.get(&id).unwrap_or(&none);
    let what = || show::operation(op);
    let Some(ttl) = alive else {
        if lives.iter().any(|life| window.is_all_of(life)) {
            let why = format!("{}; the lease was not found, but it lived", what());
            report.broken(Rule::LeaseAlive, why);
        }
        return;
    };
    let shown = |life: &&Life| window.has_some_of(life) && life.ttl == ttl;
    let Some(life) = lives.iter().find(shown) else {
        let why = format!("{}; a lease of {ttl} s was shown, but there was none", what());
        return report.broken(Rule::LeaseAlive, why);
    };
    let Some(keys) = keys else { return };
    let mut told = keys.clone();
    told.sort();
    if !held(life, &window).any(|held| *held == told) {
        let why = format!("{}; it never held {told:?} at that time", what());
        report.broken(Rule::LeaseAlive, why);
    }
}

/// The sets of keys that a lease held in a window of time.
fn held<'a>(life: &'a Life, window: &Window) -> impl Iterator<Item = &'a [bytes::Bytes]> {
    let (from, to) = (window.from, window.to);
    let before = life.keys.iter().rev().find(|(at, _)| from.is_some_and(|from| *at <= from));
    let first = before.map_or(&[][..], |(_, keys)| &keys[..]);
    let later = life.keys.iter().filter(move |(at, _)| from.is_none_or(|from| *at > from));
    let later = later.filter(move |(at, _)| *at < to).map(|(_, keys)| &keys[..]);
    std::iter::once(first).chain(later)
}
