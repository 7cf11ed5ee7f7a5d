//! The table of leases, cut into shards so that threads that renew do not meet. Not here: what a deadline
//! means (`leader`).

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use etch_disk::mutants::{self, Mutant};

const SHARDS: usize = 64;

/// The deadline of a lease whose time does not run: on a follower, and on the leader between the grant
/// and its next look at the clock.
pub(super) const UNARMED: u64 = u64::MAX;
/// The deadline of a lease that was given up for revocation. It does not come back.
pub(super) const EXPIRED: u64 = 0;

/// One lease.
pub(super) struct Lease {
    pub id: i64,
    /// Grants are numbered; a lease that is granted again is another one.
    pub number: u64,
    /// In seconds.
    pub ttl: i64,
    /// From the last checkpoint, in seconds; 0 if none was made since the last renewal.
    pub remaining: AtomicI64,
    /// Checkpoints of less than the TTL that were named and are not applied yet.
    pub named: AtomicU32,
    /// When it ends, in milliseconds; [`UNARMED`] or [`EXPIRED`].
    pub deadline: AtomicU64,
    pub keys: Mutex<BTreeSet<Bytes>>,
}

impl Lease {
    /// What is left of the TTL as far as the log knows, in milliseconds.
    pub(super) fn span_ms(&self) -> u64 {
        let remaining = self.remaining.load(Ordering::Acquire);
        let seconds = if remaining > 0 { remaining } else { self.ttl };
        seconds.max(0) as u64 * 1000
    }

    /// Whether a later leader may be told, now or soon, that less than the TTL remains.
    pub(super) fn is_checkpointed(&self) -> bool {
        let named = self.named.load(Ordering::SeqCst) > 0 && !mutants::on(Mutant::LateCheckpoint);
        named || self.remaining.load(Ordering::Acquire) > 0
    }

    /// A checkpoint that was named is applied, or will never be.
    pub(super) fn settle_checkpoint(&self) {
        let one_less = |named: u32| named.checked_sub(1);
        let _ = self.named.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
    }
}

type Shard = HashMap<i64, Arc<Lease>>;

pub(super) struct Table {
    shards: [RwLock<Shard>; SHARDS],
    granted: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| RwLock::default());
        Self { shards, granted: AtomicU64::new(0) }
    }
}

impl Table {
    fn shard(&self, id: i64) -> &RwLock<Shard> {
        // Ids count upwards in their low bits, and are the client's to choose: the product's top bits
        // spread both.
        let spread = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        &self.shards[spread as usize % SHARDS]
    }

    pub(super) fn get(&self, id: i64) -> Option<Arc<Lease>> {
        read(self.shard(id)).get(&id).cloned()
    }

    /// The lease of this id if it is the one with this number.
    pub(super) fn get_exact(&self, id: i64, number: u64) -> Option<Arc<Lease>> {
        self.get(id).filter(|lease| lease.number == number)
    }

    /// Adds a lease whose time does not run yet.
    pub(super) fn insert(&self, id: i64, ttl: i64, remaining: i64) -> Arc<Lease> {
        let lease = Arc::new(Lease {
            id,
            number: self.granted.fetch_add(1, Ordering::Relaxed),
            ttl,
            remaining: AtomicI64::new(remaining),
            named: AtomicU32::new(0),
            deadline: AtomicU64::new(UNARMED),
            keys: Mutex::default(),
        });
        write(self.shard(id)).insert(id, Arc::clone(&lease));
        lease
    }

    pub(super) fn remove(&self, id: i64) {
        write(self.shard(id)).remove(&id);
    }

    pub(super) fn clear(&self) {
        self.shards.iter().for_each(|shard| write(shard).clear());
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).len()).sum()
    }

    /// All leases, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Lease>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(read(shard).values().cloned());
        }
        all
    }
}

/// A lock whose holder panicked guards data that is still whole: all writers move complete values.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
