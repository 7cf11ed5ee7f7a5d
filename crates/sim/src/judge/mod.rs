//! Is what clients saw what etcd's guarantees allow? [`check`] reads a history and says what it judged, or every
//! violation that it found. Deterministic, and quick: a history of a few thousand operations takes milliseconds.
//!
//! Linearizability is judged twice.
//!
//! *Against the log* (`writes`, `reads`): the log says in which order everything happened, so the one legal
//! order is known and nothing has to be searched. A model replays it; each acknowledged write must stand in it
//! once with that very answer, one of unknown outcome at most once, a refused one never; the order of real
//! time must be the log's; and a read must show the model at its revision, which lies between what was
//! known before it was sent and what could exist when it ended. This finds everything that is wrong with the
//! answers, but believes the log.
//!
//! *Without the log* (`search`): an own checker after Wing, Gong and Lowe, with the memo of Lowe and Porcupine on
//! the set of operations placed and the hash of the state. An operation of unknown outcome forks: it may take
//! its place at any time from when it was sent, or never; and so may the end of a lease. It is our own and not
//! a port of Porcupine because the headers carry the store's revision: an acknowledged operation can only be
//! placed where its revision is, which leaves nothing to choose but the operations of unknown outcome that
//! fill the gaps between. Porcupine does not know that, and would need the state split by keys, which
//! transactions over several keys do not allow. It judges histories whose log is unknown, and is a check on
//! the other judge: a log that was rewritten cannot fool it.
//!
//! Here: what is judged, and the results. The rules: `writes`, `reads`, `refusal`, `watch`, `lease`, `member`, `search`;
//! what was known when is in `evidence`, what was seen of single revisions in `sightings`, and
//! what must come of that in `outlook`. Not here: the model (`model`).

mod evidence;
mod lease;
mod member;
mod outlook;
mod reads;
mod refusal;
mod search;
mod show;
mod sightings;
#[cfg(test)]
mod tests;
mod values;
mod watch;
mod writes;

use std::fmt;

use crate::history::{History, Outcome};
use crate::model::replay::Replay;
use evidence::Evidence;

macro_rules! rules {
    ($($name:ident $what:literal)*) => {
        /// What must hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $what] $name,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// The rule in a few words.
            pub const fn what(self) -> &'static str {
                match self { $(Rule::$name => $what,)* }
            }
        }
    };
}

rules! {
    Log "the log can be read, and its indexes and terms never fall"
    Lost "what was acknowledged stands in the log"
    Answer "a write is answered as the log says"
    Twice "a write stands in the log once, if it was acknowledged; at most once, if its fate is unknown; never, if it was refused"
    RealTime "what ended before something else was sent comes before it in the log"
    TooSoon "nothing is acknowledged before it is applied, or applied before it is asked"
    Read "a read shows the keys as they were at its revision"
    StaleRead "a linearizable read shows all that was known before it was sent"
    FutureRead "a read shows nothing that comes later"
    Compaction "what is compacted is gone for good, and nothing else is"
    Refusal "a refusal has its reason"
    RevisionFell "a member's revision never falls, nor does what it is compacted to"
    Keys "a member at rest holds the keys of the log, and none of a lease that ended"
    Hash "HashKV of the same revision is the same everywhere, before a restart and after, and that of the log's keys"
    LeaseEarly "a lease does not end before its time"
    LeaseLate "a lease ends, once nobody renews it"
    LeaseAlive "a lease is renewed and shown only while it lives, with its keys"
    WatchCreated "a watch begins with its creation and ends with its cancellation"
    WatchOrdered "events come in the order of their revisions"
    WatchUnique "no event comes twice"
    WatchReliable "no event is left out"
    WatchAtomic "the events of a revision come together"
    WatchResumable "a watch begins at the revision that was asked for, or says that it is compacted"
    WatchBookmark "after a notice of progress comes nothing that is older"
    WatchFilter "only what was asked for comes"
    WatchPrevKv "an event shows what was before its revision, if that was asked for"
    WatchEvent "an event shows what the log says"
    Linearizable "some order of the operations explains every answer"
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What happened: who, when, at which revision, and what should have been.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.rule, self.rule.what(), self.what)
    }
}

/// What was judged, where nothing was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Requests that were answered.
    pub answered: usize,
    /// Requests that were refused.
    pub refused: usize,
    /// Requests whose outcome their clients do not know.
    pub unknown: usize,
    /// Of those, the ones that stand in the log.
    pub unknown_done: usize,
    /// Acknowledged writes found in the log.
    pub writes: usize,
    /// Reads compared with the model.
    pub reads: usize,
    /// Watches replayed.
    pub watches: usize,
    /// Events that came over them.
    pub events: usize,
    /// Leases followed.
    pub leases: usize,
    /// Hashes compared with the model's.
    pub hashes: usize,
    /// Observations of members.
    pub observations: usize,
    /// The last revision of the log.
    pub revision: i64,
    /// Steps of the search without the log.
    pub steps: usize,
    /// The search gave up: too many operations of unknown outcome.
    pub undecided: bool,
}

/// Where the rules report to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub checked: Checked,
    pub violations: Vec<Violation>,
}

impl Report {
    pub fn broken(&mut self, rule: Rule, what: String) {
        self.violations.push(Violation { rule, what });
    }

    fn done(self) -> Result<Checked, Vec<Violation>> {
        if self.violations.is_empty() { Ok(self.checked) } else { Err(self.violations) }
    }
}

/// Judges a history by every rule. One without a log is judged by what needs none.
pub fn check(history: &History) -> Result<Checked, Vec<Violation>> {
    let mut report = Report::default();
    count(history, &mut report.checked);
    if history.log.is_empty() {
        member::hashes_agree(history, None, &mut report);
    } else {
        against_log(history, &mut report);
    }
    member::monotone(history, &mut report);
    search::check(history, &mut report);
    report.done()
}

/// Judges a history by the search alone, without its log.
pub fn check_without_log(history: &History) -> Result<Checked, Vec<Violation>> {
    let mut report = Report::default();
    count(history, &mut report.checked);
    search::check(history, &mut report);
    report.done()
}

fn against_log(history: &History, report: &mut Report) {
    let replay = Replay::of(history);
    for damage in &replay.damage {
        report.broken(Rule::Log, damage.clone());
    }
    report.checked.revision = replay.model.revision();
    let mut evidence = Evidence::new(history, &replay);
    writes::check(history, &replay, &mut evidence, report);
    reads::check(history, &replay, &evidence, report);
    refusal::check(history, &replay, &evidence, report);
    watch::check(history, &replay, report);
    lease::check(history, &replay, &evidence, report);
    member::check(history, &replay, report);
    member::hashes_agree(history, Some(&replay), report);
}

fn count(history: &History, checked: &mut Checked) {
    for op in &history.operations {
        match op.outcome {
            Outcome::Ok(_) => checked.answered += 1,
            Outcome::Refused(_) => checked.refused += 1,
            Outcome::Unknown => checked.unknown += 1,
        }
    }
    checked.observations = history.observations.len();
}
