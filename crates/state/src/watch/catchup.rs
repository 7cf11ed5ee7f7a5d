//! Watchers that are behind: they read history at the pace of their stream's reader, and join the queue
//! where it begins. Not here: what the queue brings (`deliver`).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use etch_api::KeyRange;
use etch_disk::mutants::{self, Mutant};

use super::deliver::{batch, send};
use super::hub::Hub;
use super::message::OutMessage;
use super::queue::lock;
use super::stream::StreamState;
use super::{HistoryError, HistorySource};
use crate::mvcc::{Event, History};

/// What a read of history counts against the budget of a poll, beside what it finds: something for the
/// read, and something for each revision that it passes by.
const READ_COST: usize = 512;
const REVISION_COST: usize = 8;
/// How many pieces of history are kept for others who follow.
const KEPT_SCANS: usize = 8;

/// A piece of history that somebody read.
struct Scan {
    range: KeyRange,
    from: i64,
    history: Arc<History>,
}

/// The pieces of history that were read last, for the many watchers of one range that fall behind at
/// once. Bounded by count and by the budget of one read; empty while no watcher is behind.
#[derive(Default)]
pub(super) struct Scans {
    kept: Mutex<VecDeque<Scan>>,
}

impl Scans {
    pub(super) fn clear(&self) {
        lock(&self.kept).clear();
    }

    /// A kept piece of this range's history that covers revision `from`.
    fn find(&self, range: &KeyRange, from: i64) -> Option<Arc<History>> {
        let kept = lock(&self.kept);
        let covers =
            |scan: &&Scan| scan.from <= from && from < scan.history.next && scan.range == *range;
        kept.iter().find(covers).map(|scan| Arc::clone(&scan.history))
    }

    fn keep(&self, range: &KeyRange, from: i64, history: &Arc<History>) {
        let scan = Scan { range: range.clone(), from, history: Arc::clone(history) };
        let mut kept = lock(&self.kept);
        kept.truncate(KEPT_SCANS - 1);
        kept.push_front(scan);
    }
}

impl Hub {
    /// One watcher fewer reads history.
    pub(super) fn left_history(&self) {
        if self.counters().slow_watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.scans().clear();
        }
    }
}

/// The cost of a read that came this many revisions further. A single key's history is found by the key.
fn cost(range: &KeyRange, revisions: i64) -> usize {
    match range {
        KeyRange::Single(_) => READ_COST,
        _ => READ_COST + REVISION_COST * usize::try_from(revisions).unwrap_or(0),
    }
}

/// What became of a watcher after a step through history.
enum Step {
    /// There is more to read.
    Behind,
    /// The queue brings the rest.
    Synced,
    /// What it needs is compacted.
    Compacted(i64),
}

impl StreamState {
    /// Lets each watcher that is behind take a step, as far as the budget goes.
    pub(super) fn catch_up(
        &mut self,
        source: &dyn HistorySource,
        left: &mut usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<()> {
        for _ in 0..self.unsynced.len() {
            if *left == 0 {
                break;
            }
            let at = *self.unsynced.front().expect("as many are behind as were counted");
            let step = self.step(at, source, left, out)?;
            self.unsynced.pop_front();
            match step {
                Step::Behind => self.unsynced.push_back(at),
                Step::Synced => self.hub.left_history(),
                Step::Compacted(revision) => self.end(at, revision, out),
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        at: u32,
        source: &dyn HistorySource,
        left: &mut usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<Step> {
        let compacted = source.compact_revision();
        if mutants::on(Mutant::I17529) {
            self.watcher_mut(at).next = self.watcher(at).next.max(compacted);
        }
        if self.watcher(at).next < compacted {
            return Ok(Step::Compacted(compacted));
        }
        let current = source.revision();
        if let Some(revision) = self.read(at, current, source, left, out)? {
            return Ok(Step::Compacted(revision));
        }
        if self.watcher(at).next <= current {
            return Ok(Step::Behind);
        }
        self.join(at, source, left, out)
    }

    /// Joins the queue of the watcher's range. What happened between the last read and the first event
    /// that the queue brings is read first; if that is too much for the budget, the watcher stays behind.
    fn join(
        &mut self,
        at: u32,
        source: &dyn HistorySource,
        left: &mut usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<Step> {
        let range = self.watcher(at).range.clone();
        let subscription = self.subscribe(&range);
        let joined = self.subscriptions[subscription as usize].as_ref();
        let since = joined.expect("a subscription was just made").since;
        let again = i64::from(mutants::on(Mutant::I15248));
        let first = since.max(self.delivered + 1);
        let step = self.read(at, first - 1, source, left, out).map(|compacted| match compacted {
            Some(revision) => Step::Compacted(revision),
            None if self.watcher(at).next < first => Step::Behind,
            None => Step::Synced,
        });
        match step {
            Ok(Step::Synced) => {
                self.watcher_mut(at).next -= again;
                self.enlist(at, subscription);
            }
            _ => self.release(subscription),
        }
        step
    }

    /// Sends a watcher history up to revision `to`, or less if the budget runs out. Returns the compacted
    /// revision if the history is gone.
    fn read(
        &mut self,
        at: u32,
        to: i64,
        source: &dyn HistorySource,
        left: &mut usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<Option<i64>> {
        let watcher = self.watcher(at);
        let from = watcher.next;
        if from > to {
            return Ok(None);
        }
        let history = match self.history(&watcher.range, from, to, source) {
            Ok(history) => history,
            Err(HistoryError::Compacted(revision)) => return Ok(Some(revision)),
            Err(HistoryError::Io(error)) => return Err(error),
        };
        let start = history.events.partition_point(|event| event.revision.main < from);
        let end = history.events.partition_point(|event| event.revision.main <= to);
        let events: &[Arc<Event>] = &history.events[start..end];
        let batch = batch(events.iter(), watcher.shape, source)?;
        let watcher = self.watchers[at as usize].as_mut().expect("it was just looked at");
        watcher.next = history.next.min(to + 1);
        *left = left.saturating_sub(cost(&watcher.range, watcher.next - from));
        if let Some(batch) = batch {
            *left = left.saturating_sub(batch.len);
            let sent = batch.pieces.len() as u64;
            self.hub.counters().events_total.fetch_add(sent, Ordering::Relaxed);
            send(watcher, batch, to, &self.config, out);
        }
        Ok(None)
    }

    /// History from `from` to `to`, perhaps beyond: what somebody else read, or what the store says.
    fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        source: &dyn HistorySource,
    ) -> Result<Arc<History>, HistoryError> {
        let scans = self.hub.scans();
        if let Some(found) = scans.find(range, from) {
            return Ok(found);
        }
        let history = Arc::new(source.history(range, from, to, self.config.history)?);
        scans.keep(range, from, &history);
        Ok(history)
    }

    /// Ends a watcher whose history is compacted.
    fn end(&mut self, at: u32, compacted: i64, out: &mut Vec<OutMessage>) {
        let id = self.watcher(at).id;
        self.ids.remove(&id);
        self.ended.insert(id);
        self.remove(at);
        out.push(OutMessage {
            watch_id: id,
            canceled: true,
            compact_revision: compacted,
            ..OutMessage::default()
        });
    }
}
