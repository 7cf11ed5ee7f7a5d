//! What was known when: from answers and events follows how far the store must have come by a time, and from
//! later requests how far it cannot have been. Not here: rules.

use crate::history::{History, Operation, Outcome, Request, Response};
use crate::model::replay::{Replay, Step};

/// Positions among the log's steps that follow from what clients saw, by time.
pub struct Evidence<'a> {
    replay: &'a Replay,
    /// By the time from which it was known: the last step that must have been done by then. Running maximum.
    known: Vec<(u64, usize)>,
    /// By the time before which it was not even asked: the first step that cannot have been done. Running
    /// minimum, latest first.
    unasked: Vec<(u64, usize)>,
    /// The step of each operation that was found in the log.
    pub placed: Vec<Option<usize>>,
    /// Whether one member answered everything: what it answers from its own state is never old.
    pub is_alone: bool,
}

/// The revision in an answer's header.
pub fn revision_of(response: &Response) -> Option<i64> {
    response.header().map(|header| header.revision).filter(|revision| *revision > 0)
}

/// The revision that an operation's answer showed.
pub fn shown_by(op: &Operation) -> Option<i64> {
    match &op.outcome {
        Outcome::Ok(response) => revision_of(response),
        _ => None,
    }
}

/// Whether an operation changes things, and so goes through the log.
pub fn is_write(request: &Request) -> bool {
    match request {
        Request::Put(_)
        | Request::DeleteRange(_)
        | Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_) => true,
        Request::Txn(txn) => !crate::model::is_read_only(txn),
        _ => false,
    }
}

impl<'a> Evidence<'a> {
    /// What follows from revisions in answers and events. Writes are added as they are found in the log.
    pub fn new(history: &History, replay: &'a Replay) -> Self {
        let mut known = Vec::new();
        let mut saw = |at: u64, revision: Option<i64>| {
            known.extend(revision.and_then(|r| replay.maker_of(r)).map(|step| (at, step)));
        };
        for op in &history.operations {
            saw(op.ended_ns, shown_by(op));
        }
        for watch in &history.watches {
            for (at, response) in &watch.responses {
                saw(
                    *at,
                    response.events.iter().filter_map(|e| Some(e.kv.as_ref()?.mod_revision)).max(),
                );
            }
        }
        let placed = vec![None; history.operations.len()];
        let first = history.operations.first().map(|op| op.member);
        let is_alone = history.operations.iter().all(|op| Some(op.member) == first);
        let mut evidence = Self { replay, known, unasked: Vec::new(), placed, is_alone };
        evidence.settle();
        evidence
    }

    /// Notes where operations were found, `(operation, step)`.
    pub fn place(&mut self, history: &History, found: &[(usize, usize)]) {
        for &(op, step) in found {
            self.placed[op] = Some(step);
            let op = &history.operations[op];
            self.known.push((op.ended_ns, step));
            self.unasked.push((op.sent_ns, step));
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.known.sort_unstable();
        let mut highest = 0;
        for (_, step) in &mut self.known {
            highest = highest.max(*step);
            *step = highest;
        }
        self.unasked.sort_unstable_by_key(|&(at, step)| (std::cmp::Reverse(at), step));
        let mut lowest = usize::MAX;
        for (_, step) in &mut self.unasked {
            lowest = lowest.min(*step);
            *step = lowest;
        }
    }

    /// The last step that must have been done before `at`.
    pub fn done_before(&self, at: u64) -> Option<usize> {
        let seen = self.known.partition_point(|(ended, _)| *ended < at);
        Some(self.known[seen.checked_sub(1)?].1)
    }

    /// The first step that cannot have been done by `at`: it was asked later, or is known to have been applied
    /// later. The number of steps if there is none.
    pub fn not_before(&self, at: u64) -> usize {
        let later = self.unasked.partition_point(|(sent, _)| *sent > at);
        let asked = later.checked_sub(1).map_or(usize::MAX, |i| self.unasked[i].1);
        let steps = &self.replay.steps;
        let applied = steps.partition_point(|step: &Step| step.applied_ns.is_none_or(|t| t <= at));
        asked.min(applied)
    }

    /// The earliest time at which a step is known to have been done.
    pub fn done_by(&self, step: usize) -> Option<u64> {
        if let Some(applied) = self.replay.steps[step].applied_ns {
            return Some(applied);
        }
        let at = self.known.partition_point(|(_, done)| *done < step);
        self.known.get(at).map(|(time, _)| *time)
    }
}
