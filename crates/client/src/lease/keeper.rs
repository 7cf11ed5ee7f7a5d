//! Keeping leases alive: when each is due, sent, and lost. A value: time comes in, and no connection is seen.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use tokio::time::Instant;

use super::handle::Slot;
use crate::error::Error;

/// What is known of one lease.
struct Kept {
    /// When something has to be done: ask, or give up.
    due: Instant,
    /// Until when the lease surely lives, by the last answer; before the first, how long we wait for it.
    deadline: Instant,
    /// When the request that is under way was sent on this stream.
    sent: Option<Instant>,
    /// Whether the server ever answered for it.
    answered: bool,
    /// How long to wait for its answer before another endpoint is asked.
    patience: Duration,
    slots: Vec<Weak<Slot>>,
}

/// All leases of one stream.
#[derive(Default)]
pub(super) struct Keeper {
    kept: HashMap<i64, Kept>,
    due: BTreeSet<(Instant, i64)>,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Ask for these.
    pub ask: Vec<i64>,
    /// The stream does not answer: try another.
    pub stuck: bool,
}

impl Keeper {
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// When [`Keeper::due`] has something.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Keeps a lease for one more holder.
    pub fn add(&mut self, id: i64, slot: &Arc<Slot>, now: Instant, first: Duration) {
        let slot = Arc::downgrade(slot);
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.slots.push(slot);
            return;
        }
        let kept = Kept {
            due: now,
            deadline: now + first,
            sent: None,
            answered: false,
            patience: first / 3,
            slots: vec![slot],
        };
        self.kept.insert(id, kept);
        self.due.insert((now, id));
    }

    /// Forgets holders that are gone, and the lease with the last of them.
    pub fn release(&mut self, id: i64) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        kept.slots.retain(|slot| slot.strong_count() > 0);
        if kept.slots.is_empty() {
            self.due.remove(&(kept.due, id));
            self.kept.remove(&id);
        }
    }

    /// What is to be done now. Leases that could not be kept are lost by this.
    ///
    /// Leases that would be asked for in a moment are asked for as well: many in one frame cost what one alone does,
    /// here and at the server.
    pub fn due(&mut self, now: Instant) -> Due {
        let mut out = Due::default();
        if self.next().is_none_or(|at| at > now) {
            return out;
        }
        let soon: Vec<_> = self.due.range(..=(now + TOGETHER, i64::MAX)).copied().collect();
        for (at, id) in soon {
            let Some(kept) = self.kept.get_mut(&id) else { continue };
            if at > now && (kept.sent.is_some() || at >= kept.deadline) {
                continue;
            }
            self.due.remove(&(at, id));
            if kept.deadline <= now {
                let sent = kept.sent.is_some();
                let unknown = Error::Deadline { sent };
                let error = if kept.answered { Error::LeaseLost(id) } else { unknown };
                self.lose(id, &error);
                continue;
            }
            if kept.sent.is_some_and(|sent| now >= sent + kept.patience) {
                out.stuck = true;
            } else if kept.sent.is_none() {
                kept.sent = Some(now);
                out.ask.push(id);
            }
            kept.due = (now + kept.patience).min(kept.deadline);
            self.due.insert((kept.due, id));
        }
        out
    }

    /// The stream is gone, and with it every request that was under way.
    pub fn broke(&mut self, now: Instant) {
        for (id, kept) in &mut self.kept {
            if kept.sent.take().is_some() {
                self.due.remove(&(kept.due, *id));
                kept.due = now;
                self.due.insert((now, *id));
            }
        }
    }

    /// The server's answer.
    pub fn answer(&mut self, response: pb::LeaseKeepAliveResponse, now: Instant, jitter: f64) {
        let id = response.id;
        if response.ttl <= 0 {
            return self.lose(id, &Error::LeaseLost(id));
        }
        let Some(kept) = self.kept.get_mut(&id) else { return };
        // Counted from when we asked: the server's clock began between then and now.
        let asked = kept.sent.take().unwrap_or(now);
        let ttl = Duration::from_secs(response.ttl.unsigned_abs().min(MAX_TTL));
        kept.deadline = asked + ttl;
        kept.answered = true;
        kept.patience = (ttl / 3).max(Duration::from_millis(100));
        self.due.remove(&(kept.due, id));
        // Leases that were granted together shall not all be due together for ever.
        let next = now + (ttl / 3).mul_f64(1.0 - 0.1 * jitter);
        // An answer that was long on its way, or read by a process that slept, may tell of a time that is over.
        kept.due = next.min(kept.deadline);
        self.due.insert((kept.due, id));
        for slot in kept.slots.iter().filter_map(Weak::upgrade) {
            slot.alive(response);
        }
    }

    fn lose(&mut self, id: i64, error: &Error) {
        let Some(kept) = self.kept.remove(&id) else { return };
        self.due.remove(&(kept.due, id));
        for slot in kept.slots.iter().filter_map(Weak::upgrade) {
            slot.lost(error.clone());
        }
    }

    /// Ends everything with this error.
    pub fn lose_all(&mut self, error: &Error) {
        for id in self.kept.keys().copied().collect::<Vec<_>>() {
            self.lose(id, error);
        }
    }
}

/// How much earlier than it is due a lease is asked for, if another is due.
const TOGETHER: Duration = Duration::from_millis(100);

/// etcd's largest TTL, so that adding it to a time cannot overflow.
const MAX_TTL: u64 = 9_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn alive(id: i64, ttl: i64) -> pb::LeaseKeepAliveResponse {
        pb::LeaseKeepAliveResponse { header: None, id, ttl }
    }

    fn ask(ids: &[i64]) -> Due {
        Due { ask: ids.to_vec(), stuck: false }
    }

    #[test]
    fn the_pace_is_a_third_of_the_ttl_and_requests_do_not_pile_up() {
        let (mut keeper, t) = (Keeper::default(), Instant::now());
        let slot = Slot::new();
        keeper.add(7, &slot, t, 6 * S);
        assert_eq!(keeper.due(t), ask(&[7]));
        assert_eq!(keeper.due(t + S), ask(&[]));
        keeper.answer(alive(7, 30), t + S, 0.0);
        assert_eq!(keeper.next(), Some(t + 11 * S));
        assert_eq!(keeper.due(t + 10 * S), ask(&[]));
        assert_eq!(keeper.due(t + 11 * S), ask(&[7]));
        assert_eq!(keeper.due(t + 12 * S), ask(&[]));
    }

    #[test]
    fn leases_that_are_due_soon_are_asked_for_together() {
        let (mut keeper, t) = (Keeper::default(), Instant::now());
        let slots = [7, 8, 9].map(|id| (id, Slot::new()));
        for (id, slot) in &slots {
            keeper.add(*id, slot, t, 6 * S);
        }
        assert_eq!(keeper.due(t), ask(&[7, 8, 9]));
        keeper.answer(alive(7, 30), t, 0.0);
        keeper.answer(alive(8, 30), t + TOGETHER, 0.0);
        keeper.answer(alive(9, 30), t + 2 * TOGETHER, 0.0);
        // Nobody is due: nobody is asked for.
        assert_eq!(keeper.due(t + 10 * S - TOGETHER / 2), ask(&[]));
        assert_eq!(keeper.due(t + 10 * S), ask(&[7, 8]));
        assert_eq!(keeper.next(), Some(t + 10 * S + 2 * TOGETHER));
        // What waits for its answer is not given up early.
        keeper.answer(alive(9, 30), t + 10 * S - TOGETHER, 0.0);
        keeper.answer(alive(7, 30), t + 10 * S + TOGETHER / 2, 0.0);
        assert_eq!(keeper.due(t + 20 * S - TOGETHER), ask(&[9]));
    }

    #[test]
    fn silence_is_noticed_and_the_deadline_counts_from_when_we_asked() {
        let (mut keeper, t) = (Keeper::default(), Instant::now());
        let slot = Slot::new();
        keeper.add(7, &slot, t, 6 * S);
        keeper.due(t);
        keeper.answer(alive(7, 9), t + 2 * S, 0.0);
        assert_eq!(keeper.due(t + 5 * S), ask(&[7]));
        assert_eq!(keeper.due(t + 8 * S), Due { ask: vec![], stuck: true });
        keeper.broke(t + 8 * S);
        assert_eq!(keeper.due(t + 8 * S), ask(&[7]));
        // Nine seconds after the request that was answered: at t, not at t + 2.
        keeper.due(t + 9 * S);
        assert!(keeper.is_empty());
        assert_eq!(slot.take_lost(), Some(Error::LeaseLost(7)));
    }

    #[test]
    fn a_clock_that_jumps_loses_what_is_over_and_keeps_the_rest() {
        let (mut keeper, t) = (Keeper::default(), Instant::now());
        let (short, long) = (Slot::new(), Slot::new());
        keeper.add(7, &short, t, 6 * S);
        keeper.add(8, &long, t, 6 * S);
        keeper.due(t);
        keeper.answer(alive(7, 9), t, 0.0);
        keeper.answer(alive(8, 90), t, 0.0);
        // Asleep for a minute: one is over, and the other is late.
        assert_eq!(keeper.due(t + 60 * S), ask(&[8]));
        assert_eq!(short.take_lost(), Some(Error::LeaseLost(7)));
        // Asleep again, before the answer was read: it speaks of a time that is over.
        keeper.answer(alive(8, 90), t + 160 * S, 0.0);
        assert_eq!(keeper.due(t + 160 * S), ask(&[]));
        assert_eq!(long.take_lost(), Some(Error::LeaseLost(8)));
        assert!(keeper.is_empty() && keeper.next().is_none());
    }

    #[test]
    fn a_lease_that_the_server_does_not_know_is_lost() {
        let (mut keeper, t) = (Keeper::default(), Instant::now());
        let slot = Slot::new();
        keeper.add(7, &slot, t, 6 * S);
        keeper.due(t);
        keeper.answer(alive(7, 0), t, 0.0);
        assert!(keeper.is_empty() && keeper.next().is_none());
        assert_eq!(slot.take_lost(), Some(Error::LeaseLost(7)));
    }

    #[test]
    fn the_last_holder_takes_the_lease_along() {
        let (mut keeper, t) = (Keeper::default(), Instant::now());
        let (one, two) = (Slot::new(), Slot::new());
        keeper.add(7, &one, t, 6 * S);
        keeper.add(7, &two, t, 6 * S);
        drop(one);
        keeper.release(7);
        assert!(!keeper.is_empty());
        drop(two);
        keeper.release(7);
        assert!(keeper.is_empty() && keeper.next().is_none());
    }
}
