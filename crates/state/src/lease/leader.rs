//! What the leader alone knows of leases: when each one ends. Renewals and questions come from net
//! threads, the rest from the node thread. Not here: anything replicated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etch_disk::mutants::{self, Mutant};

use super::Lessor;
use super::table::{EXPIRED, Lease, UNARMED, lock};
use super::wheel::{Entry, Wheel};
use crate::watch::Wake;

/// Why a lease was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewError {
    /// There is no such lease, as far as this member has applied.
    NotFound,
    /// This member does not run leases: another one is the leader.
    NotPrimary,
    /// Its time is over, and it is about to be revoked. The answer is not known before it is:
    /// [`Lessor::wait_revoked`], then ask again.
    Expired,
    /// A checkpoint says that less than its TTL remains, or is about to. A checkpoint of 0 has to be applied
    /// first, else a later leader would cut the renewed lease short.
    Checkpointed,
}

/// The clockwork of the node thread.
#[derive(Default)]
pub(super) struct Leader {
    wheel: Option<Box<Wheel>>,
    /// Leases whose wheel entry came up and that were not looked at yet.
    due: VecDeque<Entry>,
    /// Granted since the last look at the clock: their time starts with the next.
    pub(super) fresh: Vec<Entry>,
    checkpoints: Option<Box<Wheel>>,
    due_checkpoints: VecDeque<Entry>,
}

impl Lessor {
    /// Whether this member runs the leases' time.
    pub fn is_primary(&self) -> bool {
        self.primary.load(Ordering::Acquire)
    }

    /// Starts the time of all leases: this member leads. Each one gets its TTL anew, or what the last
    /// checkpoint left of it, and `extend_ms` for the time without a leader. Leases that would end
    /// together faster than they can be revoked are spread out.
    pub fn promote(&self, now_ms: u64, extend_ms: u64) {
        let mut guard = lock(&self.leader);
        *guard = Leader { wheel: Some(Wheel::new(now_ms)), ..Leader::default() };
        let leader = &mut *guard;
        leader.checkpoints = self.config.checkpoint_interval_ms.map(|_| Wheel::new(now_ms));
        let mut all = self.table.all();
        all.sort_unstable_by_key(|lease| (lease.span_ms(), lease.number));
        let spans = all.iter().map(|lease| lease.span_ms().saturating_add(extend_ms)).collect();
        let delays = spread(spans, self.config.revoke_rate);
        let wheel = leader.wheel.as_mut().expect("it was just made");
        for (lease, delay) in all.iter().zip(delays) {
            let deadline = now_ms.saturating_add(lease.span_ms() + extend_ms + delay);
            lease.deadline.store(deadline, Ordering::Release);
            // What was named in an earlier term is applied by now, or lost.
            lease.named.store(0, Ordering::SeqCst);
            wheel.insert(deadline, (lease.id, lease.number));
            self.plan_checkpoint(lease, now_ms, &mut leader.checkpoints);
        }
        self.primary.store(true, Ordering::Release);
    }

    /// Stops the time of all leases: this member leads no more.
    pub fn demote(&self) {
        self.primary.store(false, Ordering::Release);
        *lock(&self.leader) = Leader::default();
        for lease in self.table.all() {
            lease.deadline.store(UNARMED, Ordering::Release);
        }
        for waiter in std::mem::take(&mut lock(&self.ends).waiters).into_values().flatten() {
            waiter.wake();
        }
    }

    /// Renews a lease: it ends no sooner than its TTL from now. Returns the TTL in seconds.
    ///
    /// Any thread may call it. A lease that was named by [`expired`](Self::expired) is never renewed.
    ///
    /// # Errors
    ///
    /// If it cannot be renewed, here or now.
    pub fn renew(&self, id: i64, now_ms: u64) -> Result<i64, RenewError> {
        if !self.is_primary() {
            return Err(RenewError::NotPrimary);
        }
        let Some(lease) = self.table.get(id) else {
            // One that was revoked a moment ago is there for as long as its keys are.
            let why = if self.is_ending(id) { RenewError::Expired } else { RenewError::NotFound };
            return Err(why);
        };
        let mut deadline = lease.deadline.load(Ordering::Acquire);
        loop {
            if deadline <= now_ms && !mutants::on(Mutant::I14758) {
                return Err(RenewError::Expired);
            }
            if lease.is_checkpointed() {
                return Err(RenewError::Checkpointed);
            }
            let whole = now_ms.saturating_add(lease.span_ms());
            // The caller's clock may be a little behind that of an earlier renewal.
            let longer = if deadline == UNARMED { whole } else { deadline.max(whole) };
            let swap = lease.deadline.compare_exchange_weak(
                deadline,
                longer,
                Ordering::SeqCst,
                Ordering::Acquire,
            );
            match swap {
                // A checkpoint that is being named has seen the new deadline, or is seen here.
                Ok(_) if lease.is_checkpointed() => return Err(RenewError::Checkpointed),
                Ok(_) => {
                    self.counts.renewed.fetch_add(1, Ordering::Relaxed);
                    return Ok(lease.ttl);
                }
                Err(now_there) => deadline = now_there,
            }
        }
    }

    /// The seconds that a lease has left, rounded down; `None` if there is no such lease. Only the leader
    /// knows; elsewhere, and for a lease that was just granted, it is the TTL.
    pub fn time_to_live(&self, id: i64, now_ms: u64) -> Option<i64> {
        let lease = self.table.get(id)?;
        Some(match lease.deadline.load(Ordering::Acquire) {
            UNARMED => (lease.span_ms() / 1000) as i64,
            deadline => (deadline.saturating_sub(now_ms) / 1000) as i64,
        })
    }

    /// Asks for a call of `wake` when the expired lease is revoked, or this member leads no more. Says
    /// `false`, and will not call, if that is so already.
    pub fn wait_revoked(&self, id: i64, wake: Arc<dyn Wake>) -> bool {
        let mut ends = lock(&self.ends);
        let there = self.exists(id) || ends.unpublished.contains(&id);
        let waits = self.is_primary() && there;
        if waits {
            ends.waiters.entry(id).or_default().push(wake);
        }
        waits
    }

    /// The leases whose time is over, `max` at the most, to be revoked by a proposal. Each is named once,
    /// and again after the retry interval if it is still there. Called regularly by the node thread: the
    /// time of a new lease starts with the first call after its grant.
    pub fn expired(&self, now_ms: u64, max: usize) -> Vec<i64> {
        let mut guard = lock(&self.leader);
        let leader = &mut *guard;
        let Some(wheel) = leader.wheel.as_mut() else {
            return Vec::new();
        };
        let due = &mut leader.due;
        wheel.advance(now_ms, |entry| due.push_back(entry));
        for (id, number) in leader.fresh.drain(..) {
            let Some(lease) = self.table.get_exact(id, number) else { continue };
            let whole = now_ms.saturating_add(lease.span_ms());
            // Unless it was renewed in between.
            let _ = lease.deadline.compare_exchange(
                UNARMED,
                whole,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            wheel.insert(whole, (id, number));
            self.plan_checkpoint(&lease, now_ms, &mut leader.checkpoints);
        }
        let mut out = Vec::new();
        while out.len() < max
            && let Some((id, number)) = leader.due.pop_front()
        {
            let Some(lease) = self.table.get_exact(id, number) else { continue };
            match lease.give_up(now_ms) {
                Ok(()) => {
                    out.push(id);
                    self.counts.expired.fetch_add(1, Ordering::Relaxed);
                    wheel.insert(now_ms + self.config.retry_ms, (id, number));
                }
                Err(deadline) => wheel.insert(deadline, (id, number)),
            }
        }
        out
    }

    /// The checkpoints that are due, `max` at the most, to be proposed: leases and the seconds that each
    /// has left. None unless the configuration sets an interval. Until one is applied, or
    /// [`forgotten`](Self::forget_checkpoints), its lease is not renewed.
    pub fn due_checkpoints(&self, now_ms: u64, max: usize) -> Vec<(i64, i64)> {
        let mut guard = lock(&self.leader);
        let leader = &mut *guard;
        if let Some(wheel) = leader.checkpoints.as_mut() {
            let due = &mut leader.due_checkpoints;
            wheel.advance(now_ms, |entry| due.push_back(entry));
        }
        let mut out = Vec::new();
        while out.len() < max
            && let Some((id, number)) = leader.due_checkpoints.pop_front()
        {
            let Some(lease) = self.table.get_exact(id, number) else { continue };
            self.plan_checkpoint(&lease, now_ms, &mut leader.checkpoints);
            // Renewals look for this behind their change of the deadline, and so one of both sees the other.
            lease.named.fetch_add(1, Ordering::SeqCst);
            let deadline = lease.deadline.load(Ordering::SeqCst);
            let left = deadline.saturating_sub(now_ms).div_ceil(1000);
            if left > 0 && left < lease.ttl as u64 {
                out.push((id, left as i64));
            } else {
                lease.settle_checkpoint();
            }
        }
        out
    }

    /// Checkpoints that were due and could not be proposed: no renewal needs to wait for them.
    pub fn forget_checkpoints(&self, due: &[(i64, i64)]) {
        for lease in due.iter().filter_map(|(id, _)| self.table.get(*id)) {
            lease.settle_checkpoint();
        }
    }

    /// Plans the next checkpoint of a lease that lives long enough to need one.
    fn plan_checkpoint(&self, lease: &Lease, now_ms: u64, wheel: &mut Option<Box<Wheel>>) {
        if let (Some(interval), Some(wheel)) = (self.config.checkpoint_interval_ms, wheel)
            && lease.ttl as u64 * 1000 > interval
        {
            wheel.insert(now_ms + interval, (lease.id, lease.number));
        }
    }
}

impl Lease {
    /// Ends the lease's time for good if it is over; else says when it will be. In one step, so that a
    /// renewal comes either before it or not at all.
    fn give_up(&self, now_ms: u64) -> Result<(), u64> {
        let over = |deadline| (deadline <= now_ms).then_some(EXPIRED);
        self.deadline.fetch_update(Ordering::AcqRel, Ordering::Acquire, over).map(|_| ())
    }
}

/// How much longer than its span each lease lives, so that they end no faster than three quarters of what
/// can be revoked a second. The spans, in milliseconds, are sorted.
fn spread(spans: Vec<u64>, rate: u64) -> Vec<u64> {
    let mut delays = vec![0; spans.len()];
    if (spans.len() as u64) < rate {
        return delays;
    }
    let a_second = (rate * 3 / 4).max(1);
    let (mut window, mut end, mut count) = (spans[0], spans[0] + 1000, 0);
    for (span, delay) in spans.into_iter().zip(&mut delays) {
        if span > end {
            (window, end, count) = (span, span + 1000, 1);
            continue;
        }
        count += 1;
        if count <= a_second {
            continue;
        }
        *delay = (1000 * count / a_second).saturating_sub(span - window);
        end = window + *delay;
    }
    delays
}
