//! A session: a lease that is kept alive as long as somebody holds it.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::kv::BoxFuture;

/// How many seconds a session's lease lasts without renewal, if nobody says otherwise.
const TTL: i64 = 60;

/// A lease that is kept alive. Keys that are bound to it go when it ends: when it is closed, when its last clone is
/// dropped, or when it can no longer be kept ([`Session::lost`]).
///
/// ```
/// use etch_client::concurrency::Session;
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// client.put("workers/7", "busy").lease(session.lease()).await?;
/// # async fn work() {}
/// tokio::select! {
///     () = work() => {}
///     why = session.lost() => eprintln!("stop at once: {why}"),
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    client: Client,
    lease: i64,
    ttl: i64,
    lost: watch::Receiver<Option<Error>>,
    /// Dropped to stop keeping the lease.
    keeping: tokio::task::AbortHandle,
    /// Whether the end of this value ends the lease too.
    revoke: std::sync::atomic::AtomicBool,
}

/// A session to be. Await it.
///
/// ```
/// use etch_client::concurrency::Session;
///
/// # etch_doctest::run(async |client| {
/// # client.lease_grant(10).id(7587862094).await?;
/// // The lease of a process before this one, taken over.
/// let session = Session::new(&client).ttl(10).lease(7587862094).await?;
/// # let _ = session;
/// # Ok(())
/// # });
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct SessionBuilder {
    client: Client,
    ttl: i64,
    lease: Option<i64>,
}

impl SessionBuilder {
    /// How many seconds the lease lasts without renewal: what a crash costs those who wait.
    pub fn ttl(mut self, seconds: i64) -> SessionBuilder {
        self.ttl = seconds;
        self
    }

    /// Takes over this lease instead of making one, for instance that of a process before this one.
    pub fn lease(mut self, id: i64) -> SessionBuilder {
        self.lease = Some(id);
        self
    }
}

impl IntoFuture for SessionBuilder {
    type Output = Result<Session>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let SessionBuilder { client, ttl, lease } = self;
            if ttl <= 0 {
                return Err(Error::Invalid("a session's TTL must be positive".into()));
            }
            let lease = match lease {
                Some(lease) => lease,
                None => client.lease_grant(ttl).await?.id,
            };
            let mut kept = match client.lease_keep_alive(lease).await {
                Ok(kept) => kept,
                Err(error) => {
                    // Best effort: it runs out by itself otherwise.
                    let _ = client.lease_revoke(lease).await;
                    return Err(error);
                }
            };
            let (tell, lost) = watch::channel(None);
            let keeping = tokio::spawn(async move {
                let error = kept.lost().await;
                tell.send_replace(Some(error));
            });
            let revoke = std::sync::atomic::AtomicBool::new(true);
            let keeping = keeping.abort_handle();
            Ok(Session(Arc::new(Inner { client, lease, ttl, lost, keeping, revoke })))
        })
    }
}

impl Session {
    /// A new session.
    #[allow(clippy::new_ret_no_self)] // Awaiting what it returns gives one.
    pub fn new(client: &Client) -> SessionBuilder {
        SessionBuilder { client: client.clone(), ttl: TTL, lease: None }
    }

    /// Runs something within a session of its own: the session ends with it, and if the session is lost first, this is
    /// the error, and the rest is not run.
    ///
    /// ```
    /// use etch_client::concurrency::{Mutex, Session};
    ///
    /// # etch_doctest::run(async |client| {
    /// let done = Session::scope(&client, 10, async |session| {
    ///     let lock = Mutex::new(&session, "job").lock().await?;
    ///     Ok(lock.fencing())
    /// })
    /// .await?;
    /// # let _ = done;
    /// # Ok(())
    /// # });
    /// ```
    pub async fn scope<T>(
        client: &Client,
        ttl: i64,
        run: impl AsyncFnOnce(Session) -> Result<T>,
    ) -> Result<T> {
        let session = Session::new(client).ttl(ttl).await?;
        let result = tokio::select! {
            result = run(session.clone()) => result,
            why = session.lost() => Err(why),
        };
        let closed = session.close().await;
        let value = result?;
        closed.map(|()| value)
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The lease.
    pub fn lease(&self) -> i64 {
        self.0.lease
    }

    /// Whether the lease is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.0.lost.borrow().is_some()
    }

    /// Resolves when the lease is lost, with the reason.
    pub async fn lost(&self) -> Error {
        let mut lost = self.0.lost.clone();
        let told = lost.wait_for(Option::is_some).await;
        told.ok().and_then(|why| why.clone()).unwrap_or(Error::LeaseLost(self.0.lease))
    }

    /// No longer keeps the lease, without ending it: its keys stay until it runs out, or somebody else takes it over.
    pub fn orphan(self) {
        self.0.revoke.store(false, std::sync::atomic::Ordering::Relaxed);
        self.0.keeping.abort();
    }

    /// Ends the session: the lease is revoked, and its keys are deleted.
    pub async fn close(self) -> Result<()> {
        self.0.revoke.store(false, std::sync::atomic::Ordering::Relaxed);
        self.0.keeping.abort();
        // If it takes longer than that, the lease has run out by itself.
        let limit = Duration::from_secs(self.0.ttl.unsigned_abs());
        let revoked = self.0.client.with_timeout(limit).lease_revoke(self.0.lease).await;
        match revoked {
            Err(error) if error.is(crate::EtcdError::LeaseNotFound) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeping.abort();
        if *self.revoke.get_mut() && self.lost.borrow().is_none() {
            let (client, lease, ttl) = (self.client.clone(), self.lease, self.ttl);
            super::Cleanup::run(async move {
                let limit = Duration::from_secs(ttl.unsigned_abs());
                let _ = client.with_timeout(limit).lease_revoke(lease).await;
            });
        }
    }
}
