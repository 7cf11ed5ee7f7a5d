//! A lock over the whole cluster.

use bytes::Bytes;
use etch_api::line;

use super::{Cleanup, Session, wait_for_older};
use crate::bytes::IntoBytes;
use crate::error::{Error, Result};
use crate::header::HasHeader;
use crate::kv::{Compare, Comparison, SortTarget, get, put};
use crate::pb::{self, response_op::Response};

/// A lock: whoever's key under the prefix is the oldest holds it. A session counts once, however often it locks.
///
/// A lock keeps others out only as long as the session's lease lives, and a process that was asleep does not notice at
/// once that it is over. So whatever the lock protects should be told the [`Guard::fencing`] revision and refuse
/// smaller ones than it has seen, or be written within etcd under [`Guard::is_owner`].
///
/// ```
/// use etch_client::concurrency::{Mutex, Session};
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// let guard = Mutex::new(&session, "locks/printer").lock().await?;
/// println!("print, with {}", guard.fencing());
/// guard.unlock().await?;
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct Mutex {
    session: Session,
    prefix: Bytes,
}

/// The lock, held. Dropping it lets it go in the background; [`Guard::unlock`] waits for that.
///
/// ```
/// use etch_client::concurrency::{Mutex, Session};
/// use etch_client::put;
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// let guard = Mutex::new(&session, "lock").lock().await?;
/// // Done only as long as the lock is held.
/// session.client().txn().when(guard.is_owner()).then(put("a", "1")).await?;
/// guard.unlock().await?;
/// # Ok(())
/// # });
/// ```
#[must_use = "dropping it unlocks"]
pub struct Guard {
    key: Bytes,
    created: i64,
    header: pb::ResponseHeader,
    cleanup: Cleanup,
}

impl Mutex {
    /// A lock of this name.
    pub fn new(session: &Session, name: impl IntoBytes) -> Mutex {
        let prefix = line::prefix(&name.into_bytes());
        Mutex { session: session.clone(), prefix }
    }

    /// Waits for the lock. Dropping the future leaves the line.
    ///
    /// Fails when the session is lost, even if the turn comes at that moment (11456, 9921).
    pub async fn lock(&self) -> Result<Guard> {
        let (mut guard, is_first) = self.join().await?;
        if is_first {
            return Ok(guard);
        }
        wait_for_older(&self.session, &self.prefix, guard.created - 1).await?;
        // The turn counts only if the key that waited is still there.
        let mine = self.session.client().get(&guard.key).await?;
        match mine.kvs.first() {
            Some(kv) if kv.create_revision == guard.created => {
                guard.header = mine.header.unwrap_or_default();
                Ok(guard)
            }
            _ => Err(Error::LeaseLost(self.session.lease())),
        }
    }

    /// Takes the lock if it is free; [`Error::Locked`] if not.
    pub async fn try_lock(&self) -> Result<Guard> {
        let (guard, is_first) = self.join().await?;
        if is_first {
            return Ok(guard);
        }
        guard.cleanup.now().await?;
        Err(Error::Locked)
    }

    /// Stands in line; whether at its head.
    async fn join(&self) -> Result<(Guard, bool)> {
        if self.session.is_lost() {
            return Err(Error::LeaseLost(self.session.lease()));
        }
        let client = self.session.client();
        let lease = self.session.lease();
        let key = line::key(&self.prefix, lease);
        let owner = || get(&self.prefix).first(SortTarget::Create);
        let answer = client
            .txn()
            .when(Compare::create_revision(&key).equal(0))
            .then(put(&key, "").lease(lease))
            .then(owner())
            .otherwise(get(&key))
            .otherwise(owner())
            .await?;
        let created = match answer.succeeded {
            true => answer.revision(),
            false => first_created(&answer, 0)?,
        };
        let is_first = first_created(&answer, 1)? == created;
        let cleanup = Cleanup::new(client, key.clone(), created);
        let header = answer.header.unwrap_or_default();
        Ok((Guard { key, created, header, cleanup }, is_first))
    }
}

/// The create revision of the first key in one of the transaction's reads.
fn first_created(answer: &pb::TxnResponse, read: usize) -> Result<i64> {
    match answer.responses.get(read).and_then(|r| r.response.as_ref()) {
        Some(Response::ResponseRange(range)) if !range.kvs.is_empty() => {
            Ok(range.kvs[0].create_revision)
        }
        _ => Err(Error::Malformed("the answer to a lock's transaction".into())),
    }
}

impl Guard {
    /// The key that holds the lock.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// A number that grows with each holder.
    pub fn fencing(&self) -> i64 {
        self.created
    }

    /// The header of the answer that gave the lock.
    pub fn header(&self) -> &pb::ResponseHeader {
        &self.header
    }

    /// Holds in a transaction as long as this lock does.
    pub fn is_owner(&self) -> Comparison {
        Compare::create_revision(&self.key).equal(self.created)
    }

    /// Lets the lock go, and waits until it is.
    pub async fn unlock(self) -> Result<()> {
        self.cleanup.now().await
    }

    /// Keeps the lock until the session ends: nothing lets it go before.
    pub fn keep(mut self) {
        self.cleanup.disarm();
    }
}
