//! Leases: what is replicated of them (grants, revocations, the keys they hold, checkpoints), and what the
//! leader alone knows (when each one ends).
//!
//! The node thread applies; net threads of the leader renew and ask at the same time, without a hop:
//! a deadline is one atomic. Time is a number of milliseconds of some steady clock that the caller passes
//! in; applying an entry needs none, so that every member does the same.
//!
//! Not here: proposals and who is the leader (`node`), the deletion of a revoked lease's keys (`txn` and
//! `mvcc`, in one revision), permissions.

mod leader;
mod table;
#[cfg(test)]
mod tests;
mod wheel;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::leasepb;
use etch_disk::backend::{Batch, Bucket};
use prost::Message;

use crate::mvcc::LeaseHook;
use crate::watch::Wake;
use leader::Leader;
use table::{EXPIRED, Lease, Table, UNARMED, lock};

pub use leader::RenewError;

/// The largest TTL that a lease can have, in seconds.
pub const MAX_TTL: i64 = 9_000_000_000;

/// How leases are run.
#[derive(Clone, Debug)]
pub struct LessorConfig {
    /// The smallest TTL in seconds; shorter ones are raised to it: 1.5 election timeouts, rounded up.
    pub min_ttl: i64,
    /// After how many milliseconds an expired lease is named again if it is still there.
    pub retry_ms: u64,
    /// How many leases are revoked a second at the most; a new leader spreads what would end together.
    pub revoke_rate: u64,
    /// The time between two checkpoints of a lease's remaining TTL; `None` makes none.
    pub checkpoint_interval_ms: Option<u64>,
}

impl Default for LessorConfig {
    fn default() -> Self {
        Self { min_ttl: 2, retry_ms: 3000, revoke_rate: 1000, checkpoint_interval_ms: None }
    }
}

/// What the metrics show.
#[derive(Debug, Default)]
pub struct Counts {
    /// Leases granted.
    pub granted: AtomicU64,
    /// Leases revoked, expired ones with them.
    pub revoked: AtomicU64,
    /// Leases renewed.
    pub renewed: AtomicU64,
    /// Leases named to be revoked because their time was over.
    pub expired: AtomicU64,
}

/// All leases of a member. Shared: the methods that change replicated state are the node thread's, the
/// others anybody's.
pub struct Lessor {
    config: LessorConfig,
    table: Table,
    /// Which lease a key is attached to.
    items: Mutex<HashMap<Bytes, i64>>,
    /// How many keys are attached: most puts meet none, and need not look.
    attached: AtomicUsize,
    /// Whether this member ends and renews leases.
    primary: AtomicBool,
    leader: Mutex<Leader>,
    ends: Mutex<Ends>,
    /// Whether `ends` names a lease that is revoked and not yet seen to be.
    ending: AtomicBool,
    counts: Counts,
}

/// The ends of leases: for readers a lease ends when its keys are seen to be gone, not when it is revoked.
#[derive(Default)]
struct Ends {
    /// Who waits for the end of an expired lease.
    waiters: HashMap<i64, Vec<Arc<dyn Wake>>>,
    /// Revoked by the batch that is being applied.
    unpublished: Vec<i64>,
}

impl Lessor {
    /// No leases, on a follower.
    pub fn new(config: LessorConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            table: Table::default(),
            items: Mutex::new(HashMap::new()),
            attached: AtomicUsize::new(0),
            primary: AtomicBool::new(false),
            leader: Mutex::new(Leader::default()),
            ends: Mutex::default(),
            ending: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// The figures for the metrics.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Forgets everything, before a snapshot is loaded.
    pub fn clear(&self) {
        self.demote();
        self.table.clear();
        lock(&self.items).clear();
        self.attached.store(0, Ordering::Release);
    }

    /// Takes in a value of the bucket `lease`. Keys are attached afterwards, with
    /// [`attach_key`](Self::attach_key).
    ///
    /// # Errors
    ///
    /// If it is not a lease.
    pub fn load(&self, value: &[u8]) -> Result<(), prost::DecodeError> {
        let row = leasepb::Lease::decode(value)?;
        let ttl = row.ttl.max(self.config.min_ttl);
        self.table.insert(row.id, ttl, row.remaining_ttl);
        Ok(())
    }

    /// Applies a grant: returns the TTL, which may be longer than asked for.
    ///
    /// # Errors
    ///
    /// If the id is taken or 0, or the TTL is too large.
    pub fn grant(&self, id: i64, ttl: i64, batch: &mut Batch) -> Result<i64, Error> {
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if ttl > MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.table.get(id).is_some() {
            return Err(Error::LeaseExist);
        }
        let lease = self.table.insert(id, ttl.max(self.config.min_ttl), 0);
        persist(&lease, batch);
        if self.primary.load(Ordering::Acquire) {
            lock(&self.leader).fresh.push((id, lease.number));
        }
        self.counts.granted.fetch_add(1, Ordering::Relaxed);
        Ok(lease.ttl)
    }

    /// Applies a revocation: the lease is gone, and the keys that it held are returned in order. The
    /// caller deletes them, in the same batch and in one revision, and calls [`published`](Self::published)
    /// when that can be read.
    ///
    /// # Errors
    ///
    /// If there is no such lease.
    pub fn revoke(&self, id: i64, batch: &mut Batch) -> Result<Vec<Bytes>, Error> {
        let lease = self.table.get(id).ok_or(Error::LeaseNotFound)?;
        // From here on no renewal succeeds, not even by one who holds the lease already.
        lease.deadline.store(EXPIRED, Ordering::Release);
        lock(&self.ends).unpublished.push(id);
        self.ending.store(true, Ordering::Release);
        self.table.remove(id);
        self.counts.revoked.fetch_add(1, Ordering::Relaxed);
        batch.delete(Bucket::Lease, id.to_be_bytes());
        let keys: Vec<Bytes> = std::mem::take(&mut *lock(&lease.keys)).into_iter().collect();
        if !keys.is_empty() {
            let mut items = lock(&self.items);
            for key in &keys {
                items.remove(key);
            }
            self.attached.store(items.len(), Ordering::Release);
        }
        Ok(keys)
    }

    /// What was applied is published: whoever waits for the end of a lease that it has revoked is woken.
    pub fn published(&self) {
        if !self.ending.load(Ordering::Acquire) {
            return;
        }
        let mut ends = lock(&self.ends);
        self.ending.store(false, Ordering::Release);
        let Ends { waiters, unpublished } = &mut *ends;
        let ended = unpublished.drain(..).filter_map(|id| waiters.remove(&id));
        let woken: Vec<_> = ended.flatten().collect();
        drop(ends);
        woken.iter().for_each(|waiter| waiter.wake());
    }

    /// Whether the lease is revoked, and its keys may still be seen.
    fn is_ending(&self, id: i64) -> bool {
        self.ending.load(Ordering::Acquire) && lock(&self.ends).unpublished.contains(&id)
    }

    /// Applies a checkpoint: what remained of the lease's TTL when it was made, in seconds; 0 for all.
    /// Unknown leases are passed over. `persist` is whether the agreed cluster version keeps it on disk.
    pub fn checkpoint(&self, id: i64, remaining: i64, persist_it: bool, batch: &mut Batch) {
        let Some(lease) = self.table.get(id) else { return };
        lease.remaining.store(remaining, Ordering::Release);
        if remaining > 0 {
            lease.settle_checkpoint();
        }
        if persist_it {
            persist(&lease, batch);
        }
    }

    /// Whether the lease is granted.
    pub fn exists(&self, id: i64) -> bool {
        self.table.get(id).is_some()
    }

    /// The TTL that a lease was granted, in seconds.
    pub fn granted_ttl(&self, id: i64) -> Option<i64> {
        self.table.get(id).map(|lease| lease.ttl)
    }

    /// The keys that a lease holds, in order.
    pub fn keys(&self, id: i64) -> Option<Vec<Bytes>> {
        self.table.get(id).map(|lease| lock(&lease.keys).iter().cloned().collect())
    }

    /// All leases: those first that end first, and those that end together in the order of their grants.
    pub fn leases(&self, now_ms: u64) -> Vec<i64> {
        let ends = |lease: &Lease| match lease.deadline.load(Ordering::Acquire) {
            UNARMED => now_ms.saturating_add(lease.span_ms()),
            deadline => deadline,
        };
        let mut all: Vec<_> =
            self.table.all().into_iter().map(|l| (ends(&l), l.number, l.id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(.., id)| id).collect()
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no lease.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lease that a key is attached to, or 0.
    pub fn lease_of(&self, key: &[u8]) -> i64 {
        if self.attached.load(Ordering::Acquire) == 0 {
            return 0;
        }
        lock(&self.items).get(key).copied().unwrap_or(0)
    }

    /// Attaches a key to a lease, and takes it off the one that it was attached to. Nothing happens if
    /// there is no such lease.
    pub fn attach_key(&self, id: i64, key: &[u8]) {
        let Some(lease) = self.table.get(id) else { return };
        let mut items = lock(&self.items);
        match items.get_mut(key) {
            Some(current) if *current == id => return,
            Some(current) => {
                if let Some(other) = self.table.get(*current) {
                    lock(&other.keys).remove(key);
                }
            }
            None => {}
        }
        // A copy, for the key at hand is part of a larger piece of memory that would stay with it.
        let key = Bytes::copy_from_slice(key);
        lock(&lease.keys).insert(key.clone());
        items.insert(key, id);
        self.attached.store(items.len(), Ordering::Release);
    }

    /// Takes a key off a lease.
    pub fn detach_key(&self, id: i64, key: &[u8]) {
        let mut items = lock(&self.items);
        if items.get(key) == Some(&id) {
            items.remove(key);
            self.attached.store(items.len(), Ordering::Release);
        }
        if let Some(lease) = self.table.get(id) {
            lock(&lease.keys).remove(key);
        }
    }
}

impl LeaseHook for &Lessor {
    fn exists(&self, lease: i64) -> bool {
        Lessor::exists(self, lease)
    }

    fn lease_of(&self, key: &[u8]) -> i64 {
        Lessor::lease_of(self, key)
    }

    fn attach(&mut self, lease: i64, key: &Bytes) {
        self.attach_key(lease, key);
    }

    fn detach(&mut self, lease: i64, key: &[u8]) {
        self.detach_key(lease, key);
    }
}

/// Puts the lease's row into the batch.
fn persist(lease: &Lease, batch: &mut Batch) {
    let row = leasepb::Lease {
        id: lease.id,
        ttl: lease.ttl,
        remaining_ttl: lease.remaining.load(Ordering::Acquire),
    };
    batch.put(Bucket::Lease, lease.id.to_be_bytes(), row.encode_to_vec().into());
}
