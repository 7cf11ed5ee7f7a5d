//! A lock that many readers share, or one writer has alone, in the order in which they came.

use bytes::Bytes;

use super::unique_key;
use crate::bytes::IntoBytes;
use crate::concurrency::{Cleanup, Session, wait_for_older};
use crate::error::{Error, Result};

/// A read-write lock over the whole cluster. A writer that waits holds later readers back.
///
/// ```
/// use etch_client::concurrency::Session;
/// use etch_client::recipes::RwLock;
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// let lock = RwLock::new(&session, "catalog");
/// let reading = lock.read().await?;
/// reading.unlock().await?;
/// # Ok(())
/// # });
/// ```
pub struct RwLock {
    session: Session,
    prefix: Bytes,
}

/// The lock, held. Dropping it lets it go in the background.
///
/// ```
/// use etch_client::concurrency::Session;
/// use etch_client::recipes::RwLock;
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// let lock = RwLock::new(&session, "catalog");
/// let writing = lock.write().await?;
/// println!("{}", writing.fencing());
/// writing.unlock().await?;
/// # Ok(())
/// # });
/// ```
#[must_use = "dropping it unlocks"]
pub struct RwGuard {
    created: i64,
    cleanup: Cleanup,
}

impl RwLock {
    /// The lock of this name.
    pub fn new(session: &Session, name: impl IntoBytes) -> RwLock {
        let prefix = [&name.into_bytes()[..], b"/"].concat().into();
        RwLock { session: session.clone(), prefix }
    }

    /// Waits until no writer that came before is left.
    pub async fn read(&self) -> Result<RwGuard> {
        self.acquire("read", "write").await
    }

    /// Waits until nobody that came before is left.
    pub async fn write(&self) -> Result<RwGuard> {
        self.acquire("write", "").await
    }

    async fn acquire(&self, kind: &str, wait_for: &str) -> Result<RwGuard> {
        let client = self.session.client();
        let under = |name: &str| Bytes::from([&self.prefix[..], name.as_bytes()].concat());
        let lease = self.session.lease();
        let (key, created) = unique_key(client, &under(kind), Bytes::new(), lease).await?;
        let guard = RwGuard { created, cleanup: Cleanup::new(client, key.clone(), created) };
        wait_for_older(&self.session, &under(wait_for), created - 1).await?;
        match client.get(&key).await?.kvs.first() {
            Some(kv) if kv.create_revision == created => Ok(guard),
            _ => Err(Error::LeaseLost(lease)),
        }
    }
}

impl RwGuard {
    /// A number that grows with each holder.
    pub fn fencing(&self) -> i64 {
        self.created
    }

    /// Lets the lock go, and waits until it is.
    pub async fn unlock(self) -> Result<()> {
        self.cleanup.now().await
    }
}
