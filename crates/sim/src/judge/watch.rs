//! The guarantees of a watch, each stream replayed against the log that truly persisted. Not here: who resumed
//! after what; a client that resumes opens a new watch at the revision that it needs, and that one is judged.

use etch_api::KeyRange;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb;
use mvccpb::event::EventType;
use pb::watch_create_request::FilterType;

use super::{Report, Rule, show};
use crate::history::{History, Watch};
use crate::model::Change;
use crate::model::replay::Replay;

/// Judges all watches.
pub fn check(history: &History, replay: &Replay, report: &mut Report) {
    for watch in &history.watches {
        report.checked.watches += 1;
        let mut judge = Judge::new(watch, replay);
        for (at, response) in joined(&watch.responses) {
            report.checked.events += response.events.len();
            if let Err((rule, why)) = judge.response(at, &response) {
                report.broken(rule, format!("{} at {}: {why}", judge.name(), show::time(at)));
                break;
            }
        }
        if judge.is_clean
            && let Err((rule, why)) = judge.end()
        {
            report.broken(rule, format!("{}: {why}", judge.name()));
        }
    }
}

/// The responses with fragments joined; the time is that of the last fragment.
fn joined(responses: &[(u64, pb::WatchResponse)]) -> Vec<(u64, pb::WatchResponse)> {
    let mut all = Vec::new();
    let mut open: Option<pb::WatchResponse> = None;
    for (at, response) in responses {
        let whole = match open.take() {
            Some(mut begun) => {
                begun.events.extend(response.events.iter().cloned());
                begun.fragment = response.fragment;
                begun
            }
            None => response.clone(),
        };
        if whole.fragment { open = Some(whole) } else { all.push((*at, whole)) }
    }
    all
}

type Broken = (Rule, String);

/// One watch under judgement.
struct Judge<'a> {
    watch: &'a Watch,
    replay: &'a Replay,
    range: KeyRange,
    /// Where the watch begins; known once it is created.
    start: Option<i64>,
    /// The changes that must come, in order.
    due: Vec<&'a Change>,
    /// How many of them have come.
    came: usize,
    /// Up to this revision nothing may come any more.
    passed: i64,
    canceled: bool,
    is_clean: bool,
}

impl<'a> Judge<'a> {
    fn new(watch: &'a Watch, replay: &'a Replay) -> Self {
        let request = &watch.request;
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        Judge {
            watch,
            replay,
            range,
            start: None,
            due: Vec::new(),
            came: 0,
            passed: 0,
            canceled: false,
            is_clean: true,
        }
    }

    fn name(&self) -> String {
        let request = &self.watch.request;
        format!(
            "the watch of client {} at member {:x}, asked at {} from revision {} for {:?}",
            self.watch.client,
            self.watch.member,
            show::time(self.watch.sent_ns),
            request.start_revision,
            self.range
        )
    }

    fn response(&mut self, at: u64, response: &pb::WatchResponse) -> Result<(), Broken> {
        let result = self.judge(at, response);
        self.is_clean = result.is_ok();
        result
    }

    fn judge(&mut self, at: u64, response: &pb::WatchResponse) -> Result<(), Broken> {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        if self.canceled {
            return Err((Rule::WatchCreated, "a response came after the cancellation".into()));
        }
        if response.created {
            self.created(header)?;
        } else if self.start.is_none() && !response.canceled {
            return Err((Rule::WatchCreated, "a response came before the creation".into()));
        }
        if response.canceled {
            self.canceled = true;
            return self.end_told(at, response.compact_revision);
        }
        if !response.events.is_empty() {
            return self.events(at, header, &response.events);
        }
        if !response.created {
            return self.progress(header);
        }
        Ok(())
    }

    fn created(&mut self, header: i64) -> Result<(), Broken> {
        if self.start.is_some() {
            return Err((Rule::WatchCreated, "it was created twice".into()));
        }
        let newest = self.replay.model.revision();
        if header > newest {
            return Err((
                Rule::WatchCreated,
                format!("it was created at revision {header}, but the log ends at {newest}"),
            ));
        }
        let asked = self.watch.request.start_revision;
        let start = if asked == 0 { header + 1 } else { asked };
        self.start = Some(start);
        let changes = self.replay.model.changes();
        let from = changes.partition_point(|change| change.revision() < start);
        self.due = changes[from..].iter().filter(|change| self.wants(change)).collect();
        Ok(())
    }

    fn wants(&self, change: &Change) -> bool {
        let filter = if change.deleted { FilterType::Nodelete } else { FilterType::Noput };
        self.range.contains(&change.kv.key)
            && !self.watch.request.filters.contains(&(filter as i32))
    }

    fn events(&mut self, at: u64, header: i64, events: &[mvccpb::Event]) -> Result<(), Broken> {
        let first = revision(&events[0]);
        if let Some(last) = self.last_came()
            && last.revision() == first
            && self.next_due().is_some_and(|due| due.revision() == first)
        {
            return Err((
                Rule::WatchAtomic,
                format!("the events of revision {first} came in several responses"),
            ));
        }
        for event in events {
            self.event(at, event)?;
        }
        let last = revision(&events[events.len() - 1]);
        if header < last {
            return Err((
                Rule::WatchEvent,
                format!("the header says revision {header}, and there is an event of {last}"),
            ));
        }
        Ok(())
    }

    fn last_came(&self) -> Option<&'a Change> {
        Some(self.due[self.came.checked_sub(1)?])
    }

    fn next_due(&self) -> Option<&'a Change> {
        self.due.get(self.came).copied()
    }

    fn event(&mut self, at: u64, event: &mvccpb::Event) -> Result<(), Broken> {
        let what = describe(event);
        let same = |change: &&Change| is_change(change, event);
        while let Some(due) = self.next_due()
            && !same(&due)
            && self.is_undone(at, due)
        {
            self.came += 1;
        }
        if let Some(due) = self.next_due().filter(same) {
            self.came += 1;
            if due.revision() <= self.passed {
                let why = format!("{what} came after a notice of progress to {}", self.passed);
                return Err((Rule::WatchBookmark, why));
            }
            return self.content(at, due, event);
        }
        if self.due[..self.came].iter().any(same) {
            let newest = self.last_came().map_or(0, Change::revision);
            let again = revision(event) == newest;
            let rule = if again { Rule::WatchUnique } else { Rule::WatchOrdered };
            return Err((rule, format!("{what} came again, after events of revision {newest}")));
        }
        if self.due[self.came..].iter().any(same) {
            let due = self.next_due().expect("one more is due");
            let rule = if self.came == 0 { Rule::WatchResumable } else { Rule::WatchReliable };
            let gap = format!("{what} came, but {} was due before it", describe_change(due));
            return Err((rule, gap));
        }
        if self.replay.model.changes().iter().any(|change| is_change(change, event)) {
            return Err((Rule::WatchFilter, format!("{what} came, which was not asked for")));
        }
        Err((Rule::WatchEvent, format!("{what} came, of which the log knows nothing")))
    }

    /// Whether the same transaction changed the key again, and the store is compacted to its very revision: then
    /// only what came of the transaction is left of it.
    fn is_undone(&self, at: u64, due: &Change) -> bool {
        let after =
            self.replay.model.changes().iter().skip_while(|c| !std::ptr::eq(*c, due)).skip(1);
        let mut same = after.take_while(|change| change.revision() == due.revision());
        self.may_be_gone(at, due.revision() - 1) && same.any(|change| change.kv.key == due.kv.key)
    }

    fn content(&self, at: u64, due: &Change, event: &mvccpb::Event) -> Result<(), Broken> {
        let what = describe(event);
        if event.kv.as_ref() != Some(&due.kv) {
            return Err((Rule::WatchEvent, format!("{what} came, but it is {:?}", due.kv)));
        }
        let wanted = self.watch.request.prev_kv && !due.is_create();
        let right = due.previous.as_ref().filter(|_| wanted);
        if event.prev_kv.as_ref() != right
            && !(event.prev_kv.is_none() && self.may_be_gone(at, due.revision() - 1))
        {
            return Err((
                Rule::WatchPrevKv,
                format!("{what} came with {:?} before it, but that was {right:?}", event.prev_kv),
            ));
        }
        let maker = self.replay.maker_of(due.revision());
        let applied = maker.and_then(|step| self.replay.steps[step].applied_ns);
        if applied.is_some_and(|applied| applied > at) {
            return Err((Rule::TooSoon, format!("{what} came before it was applied")));
        }
        Ok(())
    }

    /// Whether a revision may have been compacted away by `at`.
    fn may_be_gone(&self, at: u64, revision: i64) -> bool {
        let steps = self.replay.steps.iter();
        let done = steps.take_while(|step| step.applied_ns.is_none_or(|applied| applied <= at));
        done.last().is_some_and(|step| revision < step.compacted)
    }

    fn progress(&mut self, header: i64) -> Result<(), Broken> {
        if let Some(due) = self.next_due().filter(|due| due.revision() <= header) {
            return Err((
                Rule::WatchBookmark,
                format!("a notice of progress to {header} came before {}", describe_change(due)),
            ));
        }
        self.passed = self.passed.max(header);
        Ok(())
    }

    /// The server ended it. For a compaction it must have had a reason: something that was due may be gone.
    fn end_told(&self, at: u64, compacted: i64) -> Result<(), Broken> {
        if compacted <= 0 {
            return Ok(());
        }
        let asked = self.watch.request.start_revision;
        let seen = self.last_came().map_or(0, |change| change.revision() + 1);
        let needs = self.start.unwrap_or(asked).max(seen).max(self.passed + 1);
        let steps = &self.replay.steps;
        let real = steps.iter().any(|step| step.compacted == compacted);
        if !real || !self.may_be_gone(at, needs) || needs >= compacted {
            return Err((
                Rule::WatchResumable,
                format!(
                    "it ended because of a compaction to {compacted}, but revision {needs} was next"
                ),
            ));
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Broken> {
        if !self.watch.drained || self.canceled {
            return Ok(());
        }
        if self.start.is_none() {
            return Err((Rule::WatchCreated, "it was never created".into()));
        }
        match self.next_due() {
            Some(due) => Err((Rule::WatchReliable, format!("{} never came", describe_change(due)))),
            None => Ok(()),
        }
    }
}

fn revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Whether an event tells of a change, whatever else it says of it. One that happens to a key several times
/// in a revision is told by its version.
fn is_change(change: &Change, event: &mvccpb::Event) -> bool {
    event.kv.as_ref().is_some_and(|kv| {
        (event.r#type == EventType::Delete as i32) == change.deleted
            && kv.mod_revision == change.revision()
            && kv.key == change.kv.key
    })
}

fn describe(event: &mvccpb::Event) -> String {
    let kind = if event.r#type == EventType::Delete as i32 { "the deletion" } else { "the put" };
    let key = event.kv.as_ref().map(|kv| kv.key.escape_ascii().to_string()).unwrap_or_default();
    format!("{kind} of {key} at revision {}", revision(event))
}

fn describe_change(change: &Change) -> String {
    let kind = if change.deleted { "the deletion" } else { "the put" };
    format!("{kind} of {} at revision {}", change.kv.key.escape_ascii(), change.revision())
}
