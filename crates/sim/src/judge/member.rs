//! What members say of themselves: their revision never falls, they hold the log's keys, and their hashes are
//! those of the log. Not here: answers to single requests.
//!
//! That a member's revision never falls holds over restarts as well where it is alone: it answers only once it has
//! applied what it had applied before. One of several may come back behind, and catch up.

use std::collections::BTreeMap;

use super::evidence::shown_by;
use super::{Report, Rule, show};
use crate::history::{History, Observation, Outcome, Response};
use crate::model::replay::Replay;
use etch_api::KeyRange;

/// A life of a member: its id, and how often it has started. One that is alone has one life.
type Life = (u64, usize);

/// What a member showed of itself at some time: `(from, to, revision)`.
type Shown = (u64, u64, i64);

/// The life of a member at a time.
fn life(history: &History, member: u64, at: u64) -> Life {
    let of = |start: &&(u64, u64)| start.0 == member && start.1 <= at;
    let alone = history.starts.iter().all(|(other, _)| *other == member);
    (member, if alone { 0 } else { history.starts.iter().filter(of).count() })
}

/// The revision that a member shows never falls from one answer to the next.
pub fn monotone(history: &History, report: &mut Report) {
    let mut by_life: BTreeMap<Life, Vec<Shown>> = BTreeMap::new();
    for op in &history.operations {
        if let Some(revision) = shown_by(op) {
            let life = life(history, op.member, op.ended_ns);
            by_life.entry(life).or_default().push((op.sent_ns, op.ended_ns, revision));
        }
    }
    for seen in &history.observations {
        let shown = (seen.at_ns, seen.at_ns, seen.revision);
        by_life.entry(life(history, seen.member, seen.at_ns)).or_default().push(shown);
    }
    for ((member, _), mut shown) in by_life {
        let mut ended: Vec<_> = shown.iter().map(|&(_, end, revision)| (end, revision)).collect();
        ended.sort_unstable();
        shown.sort_unstable();
        let (mut next, mut highest) = (0, (0, 0));
        for (sent, _, revision) in shown {
            while next < ended.len() && ended[next].0 < sent {
                let (at, revision) = ended[next];
                if revision > highest.1 {
                    highest = (at, revision);
                }
                next += 1;
            }
            if revision < highest.1 {
                let (asked, before) = (show::time(sent), show::time(highest.0));
                report.broken(
                    Rule::RevisionFell,
                    format!(
                        "member {member:x} showed revision {revision} to what was asked at {asked}, and {} before, at {before}",
                        highest.1
                    ),
                );
                break;
            }
        }
    }
    compactions_monotone(history, report);
}

fn compactions_monotone(history: &History, report: &mut Report) {
    let mut highest: BTreeMap<Life, i64> = BTreeMap::new();
    for seen in &history.observations {
        let (member, now) = (seen.member, seen.compact_revision);
        let life = life(history, member, seen.at_ns);
        let last = highest.entry(life).or_insert(now);
        if now < *last {
            let at = show::time(seen.at_ns);
            report.broken(
                Rule::RevisionFell,
                format!("member {member:x} was compacted to {last}, and at {at} to {now}"),
            );
        }
        *last = now.max(*last);
    }
}

/// A hash that was told: of which revision, over which compaction, by whom.
struct Told {
    revision: i64,
    compacted: i64,
    hash: u32,
    who: String,
}

fn hashes(history: &History) -> Vec<Told> {
    let mut all = Vec::new();
    for op in &history.operations {
        if let Outcome::Ok(Response::HashKv(told)) = &op.outcome {
            let who = show::operation(op);
            let (revision, compacted) = (told.hash_revision, told.compact_revision);
            all.push(Told { revision, compacted, hash: told.hash, who });
        }
    }
    for seen in &history.observations {
        if let Some((revision, compacted, hash)) = seen.hash {
            let who = format!("member {:x} at {}", seen.member, show::time(seen.at_ns));
            all.push(Told { revision, compacted, hash, who });
        }
    }
    all
}

/// The same keys have the same hash, whoever tells it and whenever.
/// Where no key is alive they depend on how far compactions have come, as in etcd: what is told then is compared
/// with nothing, if the log says so.
pub fn hashes_agree(history: &History, replay: Option<&Replay>, report: &mut Report) {
    let mut first: BTreeMap<(i64, i64), (u32, String)> = BTreeMap::new();
    let depends = |told: &Told| {
        replay.is_some_and(|r| r.model.hash_kv(told.revision, told.compacted).is_none())
    };
    for told in hashes(history).into_iter().filter(|told| !depends(told)) {
        let same = first
            .entry((told.revision, told.compacted))
            .or_insert_with(|| (told.hash, told.who.clone()));
        if same.0 != told.hash {
            report.broken(
                Rule::Hash,
                format!(
                    "at revision {} over compaction {}: {:08x} by {}, {:08x} by {}",
                    told.revision, told.compacted, told.hash, told.who, same.0, same.1
                ),
            );
        }
    }
}

/// Judges observations and hashes against the log.
pub fn check(history: &History, replay: &Replay, report: &mut Report) {
    for told in hashes(history) {
        let right = replay.model.hash_kv(told.revision, told.compacted);
        report.checked.hashes += usize::from(right.is_some());
        if let Some(right) = right.filter(|right| *right != told.hash) {
            report.broken(
                Rule::Hash,
                format!(
                    "{} told {:08x} of revision {} over compaction {}; the log's keys make {right:08x}",
                    told.who, told.hash, told.revision, told.compacted
                ),
            );
        }
    }
    for seen in &history.observations {
        if let Some((rule, why)) = observed(seen, replay) {
            let (member, at) = (seen.member, show::time(seen.at_ns));
            report.broken(rule, format!("member {member:x} at {at}: {why}"));
        }
    }
}

fn observed(seen: &Observation, replay: &Replay) -> Option<(Rule, String)> {
    let newest = replay.model.revision();
    if seen.revision > newest {
        let why = format!("it is at revision {}, but the log ends at {newest}", seen.revision);
        return Some((Rule::Log, why));
    }
    let compacted = seen.compact_revision;
    if compacted > 0 && !replay.steps.iter().any(|step| step.compacted == compacted) {
        return Some((Rule::Compaction, format!("nobody compacted it to {compacted}")));
    }
    let keys = seen.keys.as_ref()?;
    let right = replay.model.range_at(&KeyRange::All, seen.revision);
    if keys.iter().eq(right.iter().copied()) {
        return None;
    }
    let wrong = keys.iter().find(|kv| !right.contains(kv));
    let missing = right.iter().find(|kv| !keys.contains(kv));
    Some((
        Rule::Keys,
        format!(
            "at revision {} it has {} keys, the log {}; one too many is {wrong:?}, one missing {missing:?}",
            seen.revision,
            keys.len(),
            right.len()
        ),
    ))
}
