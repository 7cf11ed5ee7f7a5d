//! Linearizability without the log: is there an order of the operations that explains every answer? `judge` says
//! what kind of checker this is, and why.
//!
//! The order is built revision by revision. At each one, all answers that show it are compared with the model;
//! then comes what makes the next one: the acknowledged operation whose answer says so, or, where there is
//! none, an operation of unknown outcome. Those are the forks, tried one after another, and a state that was
//! met before with the same forks taken is not tried again, nor is one of two forks that ask the same. A value
//! that somebody saw tells its fork's revision (`values`), and whatever anybody saw of a revision (`sightings`) must
//! be in what made it. An operation may come next only if none that is still to come had ended before it was sent.
//!
//! Left out, since other rules judge them: compactions, and whether a lease was there to be found. A revocation
//! counts as a fork even if it was acknowledged, and so does the end of each lease's time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use etch_api::pb::etcdserverpb as pb;
use pb::response_op::Response as Told;

use super::evidence::{is_write, shown_by};
use super::outlook::Outlook;
use super::sightings::Sightings;
use super::values::Values;
use super::writes::same_answer;
use super::{Report, Rule, show};
use crate::history::{History, Operation, Outcome, Request, Response};
use crate::model::{Mark, Model, is_read_only, is_serializable};

/// After so many steps the search begins anew, and tries forks in another order: a wrong one that was taken early
/// costs all that is tried after it.
const STEPS_MAX: usize = 20_000;
/// So often it begins; then it gives up.
const ATTEMPTS: u64 = 3;

/// An operation that may have happened.
struct Fork {
    request: Request,
    sent: u64,
    /// The revision that it made, where somebody saw its value.
    made: Option<i64>,
    /// The revision that it made unless another one kept its value there.
    likely: Option<i64>,
    /// The first fork that asks the same: it makes no difference which of them is taken.
    like: usize,
}

/// Why an order cannot be.
enum Stuck<'a> {
    /// Two operations claim one revision.
    Two(i64, &'a Operation, &'a Operation),
    /// Something later than this revision, which the operation shows, had ended before it was sent.
    TooLate(i64, &'a Operation),
    /// Another answer would have been right.
    Wrong(&'a Operation, &'a Response, Box<Result<Response, etch_api::Error>>),
    /// Something else was seen of this revision than what the operation does.
    Unseen(i64, &'a Operation),
}

/// The acknowledged operations that show one revision.
#[derive(Default)]
struct Row<'a> {
    makers: Vec<&'a Operation>,
    others: Vec<&'a Operation>,
    /// Shows a later one, and what stood here.
    looks_back: Vec<(i64, &'a Operation)>,
}

/// A choice that can be taken back.
struct Branch {
    mark: Mark,
    taken: usize,
    granted: usize,
    options: Vec<usize>,
}

struct Search<'a> {
    rows: BTreeMap<i64, Row<'a>>,
    /// For each revision: the earliest end of an operation that shows it or a later one.
    earliest_end: BTreeMap<i64, u64>,
    forks: Vec<Fork>,
    /// By the time they were sent.
    grants: Vec<(u64, Request)>,
    last: i64,
    sightings: Sightings,
    outlook: Outlook,
    model: Model,
    /// The forks that were taken, in order.
    taken: Vec<usize>,
    /// How many grants were done.
    granted: usize,
    seen: BTreeSet<(u64, u64)>,
    steps: usize,
    /// Decides about the order in which forks are tried.
    attempt: u64,
    /// The farthest that any order came, and what stopped it.
    farthest: (i64, String),
}

/// Searches for an order that explains all answers.
pub fn check(history: &History, report: &mut Report) {
    let mut search = Search::new(history);
    for attempt in 0..ATTEMPTS {
        search.begin(attempt);
        let found = search.run();
        report.checked.steps += search.steps;
        match found {
            Some(true) => return,
            Some(false) => {
                return report.broken(Rule::Linearizable, search.farthest.1.clone());
            }
            None => {}
        }
    }
    report.checked.undecided = true;
}

impl<'a> Search<'a> {
    fn new(history: &'a History) -> Self {
        let mut rows: BTreeMap<i64, Row<'a>> = BTreeMap::new();
        for op in &history.operations {
            let Some(revision) = shown_by(op) else { continue };
            let row = rows.entry(revision).or_default();
            match &op.outcome {
                Outcome::Ok(response) if makes_revision(response) => row.makers.push(op),
                Outcome::Ok(Response::Range(_) | Response::Txn(_) | Response::DeleteRange(_)) => {
                    row.others.push(op);
                }
                _ => {}
            }
            if let (Request::Range(asked), Outcome::Ok(Response::Range(_))) =
                (&op.request, &op.outcome)
                && asked.revision > 0
                && asked.revision < revision
            {
                let row = rows.entry(asked.revision).or_default();
                row.looks_back.push((revision, op));
            }
        }
        rows.retain(|_, row| {
            !(row.makers.is_empty() && row.others.is_empty() && row.looks_back.is_empty())
        });
        let mut earliest_end = BTreeMap::new();
        let mut earliest = u64::MAX;
        for (revision, row) in rows.iter().rev() {
            let ends = row.makers.iter().chain(&row.others).map(|op| op.ended_ns);
            earliest = ends.fold(earliest, u64::min);
            earliest_end.insert(*revision, earliest);
        }
        let mut grants: Vec<_> =
            grants(history).map(|op| (op.sent_ns, op.request.clone())).collect();
        grants.sort_by_key(|(sent, _)| *sent);
        let last = rows.last_key_value().map_or(1, |(revision, _)| *revision);
        let (sightings, forks) = (Sightings::new(history), forks(history));
        let pinned = forks.iter().filter_map(|fork| Some((fork.made?, &fork.request)));
        let mut known: BTreeMap<i64, &Request> = pinned.collect();
        for (revision, row) in &rows {
            known.extend(row.makers.first().map(|maker| (*revision, &maker.request)));
        }
        let outlook = Outlook::new(history, &sightings, &known, last);
        Search {
            rows,
            earliest_end,
            forks,
            grants,
            last,
            sightings,
            outlook,
            model: Model::new(0),
            taken: Vec::new(),
            granted: 0,
            seen: BTreeSet::new(),
            steps: 0,
            attempt: 0,
            farthest: (0, String::new()),
        }
    }

    /// From the beginning, with an order of its own.
    fn begin(&mut self, attempt: u64) {
        (self.model, self.attempt) = (Model::new(0), attempt);
        self.taken.clear();
        self.seen.clear();
        (self.granted, self.steps, self.farthest) = (0, 0, (0, String::new()));
    }

    /// Whether there is an order; none if there were too many to try.
    fn run(&mut self) -> Option<bool> {
        let mut branches: Vec<Branch> = Vec::new();
        loop {
            if self.steps > STEPS_MAX {
                return None;
            }
            let stuck = match self.advance() {
                Ok(Next::Done) => return Some(true),
                Ok(Next::Revision) => continue,
                Ok(Next::Fork(options)) => {
                    branches.push(Branch {
                        mark: self.model.mark(),
                        taken: self.taken.len(),
                        granted: self.granted,
                        options,
                    });
                    None
                }
                Err(why) => Some(why),
            };
            if let Some(why) = stuck
                && self.model.revision() > self.farthest.0
            {
                self.farthest = (self.model.revision(), why.to_string());
            }
            if !self.take_next(&mut branches) {
                return Some(false);
            }
        }
    }

    /// Takes the next option of the last branch that has one.
    fn take_next(&mut self, branches: &mut Vec<Branch>) -> bool {
        while let Some(branch) = branches.last_mut() {
            self.model.back_to(&branch.mark);
            self.taken.truncate(branch.taken);
            self.granted = branch.granted;
            let Some(fork) = branch.options.pop() else {
                let next = self.model.revision() + 1;
                if next > self.farthest.0 {
                    let why = format!("nothing that anybody asked can have made revision {next}");
                    self.farthest = (next, why);
                }
                branches.pop();
                continue;
            };
            self.steps += 1;
            let before = self.model.revision();
            let done = self.model.apply(&self.forks[fork].request).is_ok();
            if !done || self.model.revision() != before + 1 || !self.is_as_seen() {
                continue;
            }
            self.taken.push(fork);
            if self.seen.insert((self.taken_hash(), self.model.fingerprint())) {
                return true;
            }
        }
        false
    }

    fn taken_hash(&self) -> u64 {
        let mut taken: Vec<usize> = self.taken.iter().map(|at| self.forks[*at].like).collect();
        taken.sort_unstable();
        let mut hasher = DefaultHasher::new();
        taken.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the newest revision is what everybody saw of it, and can become what was seen later.
    fn is_as_seen(&self) -> bool {
        let (revision, changes) = (self.model.revision(), self.model.changes());
        let first = changes.iter().rposition(|change| change.revision() < revision);
        self.sightings.allow(revision, &changes[first.map_or(0, |at| at + 1)..])
            && self.outlook.has_hope(&self.model)
    }

    /// Compares what shows the model's revision, and goes on to the next one.
    fn advance(&mut self) -> Result<Next, Stuck<'a>> {
        let revision = self.model.revision();
        self.compare(revision)?;
        if revision >= self.last {
            return Ok(Next::Done);
        }
        let next = revision + 1;
        let limit = self.limit(next);
        while let Some((sent, grant)) = self.grants.get(self.granted)
            && *sent <= limit
        {
            // One that was refused is no lease.
            let _ = self.model.apply(grant);
            self.granted += 1;
        }
        let makers = self.rows.get(&next).map_or(&[][..], |row| &row.makers);
        match *makers {
            [] => Ok(Next::Fork(self.options(next, limit))),
            [maker] => self.make(maker, next).map(|()| Next::Revision),
            [one, two, ..] => Err(Stuck::Two(next, one, two)),
        }
    }

    /// The earliest end of what is still to come from a revision on.
    fn limit(&self, revision: i64) -> u64 {
        self.earliest_end.range(revision..).next().map_or(u64::MAX, |(_, end)| *end)
    }

    fn make(&mut self, maker: &'a Operation, revision: i64) -> Result<(), Stuck<'a>> {
        self.steps += 1;
        // What else shows the revision comes after its maker.
        let others = self.rows.get(&revision).map_or(&[][..], |row| &row.others);
        let later = others.iter().map(|op| op.ended_ns).fold(self.limit(revision + 1), u64::min);
        if later < maker.sent_ns {
            return Err(Stuck::TooLate(revision, maker));
        }
        let mark = self.model.mark();
        let right = self.model.apply(&maker.request);
        let Outcome::Ok(told) = &maker.outcome else { unreachable!("only answers are in rows") };
        if !matches!(&right, Ok(right) if same_answer(told, right)) {
            self.model.back_to(&mark);
            return Err(Stuck::Wrong(maker, told, Box::new(right)));
        }
        if self.is_as_seen() { Ok(()) } else { Err(Stuck::Unseen(revision, maker)) }
    }

    /// Everything else that shows a revision, against the model.
    fn compare(&mut self, revision: i64) -> Result<(), Stuck<'a>> {
        let Some(row) = self.rows.get(&revision) else { return Ok(()) };
        let later = self.limit(revision + 1);
        for &(shown, op) in &row.looks_back {
            let (Request::Range(request), Outcome::Ok(told)) = (&op.request, &op.outcome) else {
                unreachable!("only answered ranges look back")
            };
            let right = self.model.range(request, shown, false).map(Response::Range);
            if !matches!(&right, Ok(right) if same_answer(told, right)) {
                return Err(Stuck::Wrong(op, told, Box::new(right)));
            }
        }
        for &op in &row.others {
            self.steps += 1;
            let Outcome::Ok(told) = &op.outcome else { unreachable!("only answers are in rows") };
            if !may_be_old(&op.request) && later < op.sent_ns {
                return Err(Stuck::TooLate(revision, op));
            }
            let right = match &op.request {
                Request::Range(request) => {
                    self.model.range(request, revision, false).map(Response::Range)
                }
                Request::Txn(request) if is_read_only(request) => {
                    self.model.read_txn(request, revision).map(Response::Txn)
                }
                request => {
                    let mark = self.model.mark();
                    let right = self.model.apply(request);
                    self.model.back_to(&mark);
                    right
                }
            };
            if !matches!(&right, Ok(right) if same_answer(told, right)) {
                return Err(Stuck::Wrong(op, told, Box::new(right)));
            }
        }
        Ok(())
    }

    /// The forks that may have made a revision. The last is tried first.
    fn options(&self, revision: i64, limit: u64) -> Vec<usize> {
        let ends = |fork: &Fork| match &fork.request {
            Request::LeaseRevoke(asked) => self.sightings.may_end(asked.id, revision),
            _ => true,
        };
        let may = |fork: &Fork| fork.sent <= limit && ends(fork);
        let free = |at: &usize| !self.taken.contains(at) && may(&self.forks[*at]);
        let all: Vec<usize> = (0..self.forks.len()).filter(free).collect();
        let seen: Vec<usize> =
            all.iter().copied().filter(|&at| self.forks[at].made == Some(revision)).collect();
        if !seen.is_empty() {
            return seen;
        }
        let mut likes = BTreeSet::new();
        let is_first = |at: &usize| likes.insert(self.forks[*at].like);
        let unseen = all.into_iter().filter(|&at| self.forks[at].made.is_none());
        let mut options: Vec<usize> = unseen.filter(is_first).collect();
        // The oldest first, then the newest, then by chance; before them what was likely here, and behind them what was
        // likely elsewhere.
        match self.attempt {
            0 => options.reverse(),
            1 => {}
            attempt => options.sort_by_cached_key(|at| {
                let mut hasher = DefaultHasher::new();
                (attempt, revision, at).hash(&mut hasher);
                hasher.finish()
            }),
        }
        options.sort_by_key(|&at| match self.forks[at].likely {
            Some(likely) if likely == revision => 2,
            Some(_) => 0,
            None => 1,
        });
        options
    }
}

enum Next {
    Done,
    Revision,
    Fork(Vec<usize>),
}

impl fmt::Display for Stuck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stuck::Two(revision, one, two) => {
                let (one, two) = (show::operation(one), show::operation(two));
                write!(f, "two made revision {revision}: {one}; {two}")
            }
            Stuck::TooLate(revision, op) => {
                let op = show::operation(op);
                write!(
                    f,
                    "{op}; but something later than revision {revision} had ended before it was sent"
                )
            }
            Stuck::Wrong(op, told, right) => {
                let right = match &**right {
                    Ok(response) => show::response(response),
                    Err(why) => format!("`{why}`"),
                };
                let (op, told) = (show::operation(op), show::response(told));
                write!(f, "{op}; told {told}, but right is {right}")
            }
            Stuck::Unseen(revision, op) => {
                let op = show::operation(op);
                write!(f, "{op}; but something else was seen of revision {revision}")
            }
        }
    }
}

/// Whether an answer says that its operation changed a key, and so made the revision that it shows.
fn makes_revision(response: &Response) -> bool {
    match response {
        Response::Put(_) => true,
        Response::DeleteRange(told) => told.deleted > 0,
        Response::Txn(told) => changed(told),
        _ => false,
    }
}

fn changed(told: &pb::TxnResponse) -> bool {
    told.responses.iter().any(|op| match &op.response {
        Some(Told::ResponsePut(_)) => true,
        Some(Told::ResponseDeleteRange(told)) => told.deleted > 0,
        Some(Told::ResponseTxn(told)) => changed(told),
        _ => false,
    })
}

fn may_be_old(request: &Request) -> bool {
    match request {
        Request::Range(range) => range.serializable,
        Request::Txn(txn) => is_read_only(txn) && is_serializable(txn),
        _ => false,
    }
}

fn grants(history: &History) -> impl Iterator<Item = &Operation> {
    history.operations.iter().filter(|op| {
        matches!(op.request, Request::LeaseGrant(_)) && !matches!(op.outcome, Outcome::Refused(_))
    })
}

fn forks(history: &History) -> Vec<Fork> {
    let values = Values::new(history);
    let mut forks = Vec::new();
    for op in &history.operations {
        let open = match (&op.request, &op.outcome) {
            (Request::LeaseRevoke(_), Outcome::Ok(_)) => true,
            (Request::LeaseGrant(_) | Request::Compact(_), _) => false,
            (request, Outcome::Unknown) => is_write(request),
            _ => false,
        };
        if open {
            let (made, likely) = values.revision_of(&op.request);
            forks.push(Fork {
                request: op.request.clone(),
                sent: op.sent_ns,
                made,
                likely,
                like: 0,
            });
        }
    }
    for op in grants(history) {
        if let Request::LeaseGrant(grant) = &op.request {
            let span = u64::try_from(grant.ttl).unwrap_or(0).saturating_mul(1_000_000_000);
            let request = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: grant.id });
            let early = history.clock_ahead_ns + super::lease::SLACK_NS;
            let sent = op.sent_ns.saturating_add(span).saturating_sub(early).max(op.sent_ns);
            forks.push(Fork { request, sent, made: None, likely: None, like: 0 });
        }
    }
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (at, fork) in forks.iter_mut().enumerate() {
        fork.like = *first.entry(format!("{:?}", fork.request)).or_insert(at);
    }
    forks
}
