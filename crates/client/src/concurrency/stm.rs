//! Transactions over memory: a function that reads and writes keys is run again until nothing that it stands on has
//! changed meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use etch_api::pb::mvccpb::KeyValue;

use crate::bytes::IntoBytes;
use crate::client::Client;
use crate::error::{Error, EtcdError, Result};
use crate::header::HasHeader;
use crate::kv::{Compare, Comparison, Get, Op, delete, get, put};
use crate::pb::{self, response_op::Response};

/// How much a transaction is kept apart from others.
///
/// ```
/// use etch_client::concurrency::Isolation;
///
/// # etch_doctest::run(async |client| {
/// let stm = client.stm().isolation(Isolation::RepeatableReads);
/// let (value, _) = stm.run(|tx| async move { tx.get("a").await }).await?;
/// # let _ = value;
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All reads are of one revision, and neither what was read nor what is written has changed since.
    #[default]
    SerializableSnapshot,
    /// All reads are of one revision, and nothing of what was read has changed since.
    Serializable,
    /// A key that was read twice reads the same, and nothing of what was read has changed since.
    RepeatableReads,
    /// What was read was committed; it may have changed since.
    ReadCommitted,
}

/// A transaction to be run.
///
/// ```
/// use etch_client::Error;
///
/// # etch_doctest::run(async |client| {
/// client.put("accounts/a", "100").await?;
/// let (left, _) = client
///     .stm()
///     .run(|tx| async move {
///         let from = tx.get("accounts/a").await?;
///         let balance: i64 = std::str::from_utf8(&from).ok().and_then(|b| b.parse().ok()).unwrap_or(0);
///         if balance < 10 {
///             return Err(Error::Invalid("not enough".into()));
///         }
///         tx.put("accounts/a", (balance - 10).to_string());
///         tx.put("accounts/b", "10");
///         Ok(balance - 10)
///     })
///     .await?;
/// assert_eq!(left, 90);
/// # Ok(())
/// # });
/// ```
#[must_use = "nothing happens until it is run"]
pub struct StmBuilder {
    client: Client,
    isolation: Isolation,
    prefetch: Vec<Bytes>,
    attempts: u32,
}

impl StmBuilder {
    /// Keeps it apart from others to this degree.
    pub fn isolation(mut self, isolation: Isolation) -> StmBuilder {
        self.isolation = isolation;
        self
    }

    /// Reads these keys in one go before the function runs.
    pub fn prefetch<K: IntoBytes>(mut self, keys: impl IntoIterator<Item = K>) -> StmBuilder {
        self.prefetch.extend(keys.into_iter().map(IntoBytes::into_bytes));
        self
    }

    /// Gives up with [`Error::OutOfOrder`] after this many attempts that others were quicker than.
    pub fn attempts(mut self, attempts: u32) -> StmBuilder {
        self.attempts = attempts.max(1);
        self
    }

    /// Runs the function until its transaction goes through; what the function returned then, and the answer.
    ///
    /// An error that the function returns ends it, and nothing is written. An error of the commit ends it too: if
    /// that [may have happened](Error::may_have_happened), running again could do it twice.
    pub async fn run<T, F, R>(self, mut apply: F) -> Result<(T, pb::TxnResponse)>
    where
        F: FnMut(Stm) -> R,
        R: Future<Output = Result<T>>,
    {
        let mut known = BTreeMap::new();
        for _ in 0..self.attempts {
            let tx = Stm {
                client: self.client.clone(),
                isolation: self.isolation,
                state: Arc::new(Mutex::new(State { known, ..State::default() })),
            };
            known = BTreeMap::new();
            let applied = match tx.fetch(&self.prefetch).await {
                Ok(()) => apply(tx.clone()).await,
                Err(error) => Err(error),
            };
            let value = match applied {
                Ok(value) => value,
                // The revision that the reads are of went away: begin with a newer one.
                Err(error) if error.is(EtcdError::Compacted) && tx.lock().base > 0 => continue,
                Err(error) => return Err(error),
            };
            match tx.commit().await? {
                Ok(answer) => return Ok((value, answer)),
                Err(read) => known = read,
            }
        }
        Err(Error::OutOfOrder)
    }
}

impl Client {
    /// A transaction over memory.
    pub fn stm(&self) -> StmBuilder {
        StmBuilder {
            client: self.clone(),
            isolation: Isolation::default(),
            prefetch: Vec::new(),
            attempts: u32::MAX,
        }
    }
}

/// A key as it was read.
#[derive(Clone)]
struct Read {
    /// The store's revision.
    at: i64,
    kv: Option<KeyValue>,
}

/// A transaction that is running: a handle, to be cloned at will.
///
/// ```
/// # etch_doctest::run(async |client| {
/// client
///     .stm()
///     .run(|tx| async move {
///         let n = tx.get("counter").await?.len();
///         tx.put("counter", "x".repeat(n + 1));
///         Ok(n)
///     })
///     .await?;
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct Stm {
    client: Client,
    isolation: Isolation,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    reads: BTreeMap<Bytes, Read>,
    /// Read together when the last attempt failed, all at one revision; a read of them costs nothing.
    known: BTreeMap<Bytes, Read>,
    writes: BTreeMap<Bytes, Option<(Bytes, i64)>>,
    /// The revision that all reads are of; zero before the first, or where they are not of one.
    base: i64,
}

impl Stm {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key's value; empty if there is no such key.
    pub async fn get(&self, key: impl IntoBytes) -> Result<Bytes> {
        let key = key.into_bytes();
        let written = self.lock().writes.get(&key).cloned();
        match written {
            Some(write) => Ok(write.map(|(value, _)| value).unwrap_or_default()),
            None => Ok(self.stored(key).await?.map(|kv| kv.value).unwrap_or_default()),
        }
    }

    /// The key as it is stored, without what this transaction writes.
    pub async fn stored(&self, key: impl IntoBytes) -> Result<Option<KeyValue>> {
        let key = key.into_bytes();
        self.fetch(std::slice::from_ref(&key)).await?;
        Ok(self.lock().reads.get(&key).and_then(|read| read.kv.clone()))
    }

    /// The revision at which the key was last written; zero if there is no such key.
    pub async fn rev(&self, key: impl IntoBytes) -> Result<i64> {
        Ok(self.stored(key).await?.map_or(0, |kv| kv.mod_revision))
    }

    /// Writes a key when the transaction goes through.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) {
        self.put_with_lease(key, value, 0);
    }

    /// Writes a key that goes with a lease.
    pub fn put_with_lease(&self, key: impl IntoBytes, value: impl IntoBytes, lease: i64) {
        self.lock().writes.insert(key.into_bytes(), Some((value.into_bytes(), lease)));
    }

    /// Deletes a key when the transaction goes through.
    pub fn delete(&self, key: impl IntoBytes) {
        self.lock().writes.insert(key.into_bytes(), None);
    }

    fn one_revision(&self) -> bool {
        matches!(self.isolation, Isolation::SerializableSnapshot | Isolation::Serializable)
    }

    /// Reads keys that were not read yet, all in one go.
    async fn fetch(&self, keys: &[Bytes]) -> Result<()> {
        let mut wanted = Vec::new();
        let base = {
            let mut state = self.lock();
            for key in keys {
                if state.reads.contains_key(key) {
                    continue;
                }
                let known = state.known.remove(key);
                // All reads are of one revision: what is known of another does not count.
                match known.filter(|read| state.base == 0 || read.at == state.base) {
                    Some(read) => state.note(key.clone(), read, self.one_revision()),
                    None => wanted.push(key.clone()),
                }
            }
            state.base
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let asked = self.ask(&wanted, base, true).await;
        let answer = match asked {
            // The member that was asked does not have that revision yet.
            Err(error) if error.is(EtcdError::FutureRev) => self.ask(&wanted, base, false).await?,
            other => other?,
        };
        let mut state = self.lock();
        for (key, read) in wanted.into_iter().zip(reads(&answer)) {
            state.note(key, read?, self.one_revision());
        }
        Ok(())
    }

    async fn ask(&self, keys: &[Bytes], base: i64, local: bool) -> Result<pb::TxnResponse> {
        // The first read of a snapshot says which revision it is, so it asks for the newest; later ones, and those
        // of the weaker kinds, may be any member's own.
        let local = local && (base > 0 || !self.one_revision());
        let read = |key: &Bytes| -> Get {
            let read = get(key).rev(base);
            if local { read.serializable() } else { read }
        };
        self.client.txn().then_all(keys.iter().map(read)).await
    }

    /// Writes, or learns what has changed.
    async fn commit(self) -> Result<Result<pb::TxnResponse, BTreeMap<Bytes, Read>>> {
        let (txn, keys) = {
            let state = self.lock();
            let writes = state.writes.iter().map(|(key, write)| -> Op {
                match write {
                    Some((value, lease)) => put(key, value).lease(*lease).into(),
                    None => delete(key).into(),
                }
            });
            let again = self.one_revision();
            let keys: Vec<Bytes> = state.reads.keys().filter(|_| again).cloned().collect();
            let txn = self.client.txn().when_all(state.conflicts(self.isolation)).then_all(writes);
            (txn.otherwise_all(keys.iter().map(get)), keys)
        };
        let answer = txn.await?;
        if answer.succeeded {
            return Ok(Ok(answer));
        }
        let read = keys.into_iter().zip(reads(&answer));
        read.map(|(key, read)| Ok((key, read?))).collect::<Result<_>>().map(Err)
    }
}

impl State {
    fn note(&mut self, key: Bytes, read: Read, one_revision: bool) {
        if self.base == 0 && one_revision {
            self.base = read.at;
        }
        self.reads.insert(key, read);
    }

    /// What must hold for the transaction to go through.
    fn conflicts(&self, isolation: Isolation) -> Vec<Comparison> {
        let mut out = Vec::new();
        if isolation == Isolation::ReadCommitted {
            return out;
        }
        for (key, read) in &self.reads {
            let revision = read.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            out.push(Compare::mod_revision(key).equal(revision));
        }
        if isolation == Isolation::SerializableSnapshot && self.base > 0 {
            let unread = self.writes.keys().filter(|key| !self.reads.contains_key(*key));
            out.extend(unread.map(|key| Compare::mod_revision(key).less(self.base + 1)));
        }
        out
    }
}

/// What a transaction's reads read.
fn reads(answer: &pb::TxnResponse) -> impl Iterator<Item = Result<Read>> + '_ {
    let at = answer.revision();
    answer.responses.iter().map(move |op| match &op.response {
        Some(Response::ResponseRange(range)) => Ok(Read { at, kv: range.kvs.first().cloned() }),
        _ => Err(Error::Malformed("the answer to a transaction's read".into())),
    })
}
