//! Leases: the trait that layers share, and the calls. Keeping them alive: one task a stream (`stream`), the times of
//! each lease (`keeper`), and what a holder sees (`handle`).

mod handle;
mod keeper;
mod stream;

use std::future::IntoFuture;
use std::sync::Arc;

use etch_api::pb::etcdserverpb as pb;

use crate::call::hub::Hub;
use crate::call::method::{LEASE_GRANT, LEASE_LEASES, LEASE_REVOKE, LEASE_TIME_TO_LIVE};
use crate::call::{CallOptions, Core};
use crate::client::Client;
use crate::error::{Error, EtcdError, Result};
use crate::kv::BoxFuture;
pub use handle::KeepAlive;

/// The calls of etcd's Lease service.
///
/// ```
/// # etch_doctest::run(async |client| {
/// // What goes through the trait is what the builders of a client ask.
/// let request = etch_client::pb::LeaseLeasesRequest {};
/// let all = client.lease().leases(client.options().clone(), request).await?;
/// println!("{} leases", all.leases.len());
/// # Ok(())
/// # });
/// ```
pub trait Lease: Send + Sync + 'static {
    /// Makes a lease.
    fn grant(
        &self,
        options: CallOptions,
        request: pb::LeaseGrantRequest,
    ) -> BoxFuture<Result<pb::LeaseGrantResponse>>;

    /// Ends a lease, and deletes its keys.
    fn revoke(
        &self,
        options: CallOptions,
        request: pb::LeaseRevokeRequest,
    ) -> BoxFuture<Result<pb::LeaseRevokeResponse>>;

    /// How long a lease has left, and its keys.
    fn time_to_live(
        &self,
        options: CallOptions,
        request: pb::LeaseTimeToLiveRequest,
    ) -> BoxFuture<Result<pb::LeaseTimeToLiveResponse>>;

    /// All leases.
    fn leases(
        &self,
        options: CallOptions,
        request: pb::LeaseLeasesRequest,
    ) -> BoxFuture<Result<pb::LeaseLeasesResponse>>;

    /// Keeps a lease alive. Resolves with the first answer.
    fn keep_alive(&self, options: CallOptions, id: i64) -> BoxFuture<Result<KeepAlive>>;
}

/// Asks the server.
pub(crate) struct CoreLease {
    core: Arc<Core>,
    hub: Arc<Hub<stream::Command>>,
}

impl CoreLease {
    pub fn new(core: Arc<Core>) -> CoreLease {
        CoreLease { core, hub: Arc::default() }
    }
}

macro_rules! unary {
    ($($name:ident $method:ident $request:ident $response:ident;)*) => {
        $(fn $name(
            &self,
            options: CallOptions,
            request: pb::$request,
        ) -> BoxFuture<Result<pb::$response>> {
            let core = self.core.clone();
            Box::pin(async move { core.call(&options, &$method, request).await })
        })*
    };
}

impl Lease for CoreLease {
    unary! {
        grant LEASE_GRANT LeaseGrantRequest LeaseGrantResponse;
        revoke LEASE_REVOKE LeaseRevokeRequest LeaseRevokeResponse;
        time_to_live LEASE_TIME_TO_LIVE LeaseTimeToLiveRequest LeaseTimeToLiveResponse;
        leases LEASE_LEASES LeaseLeasesRequest LeaseLeasesResponse;
    }

    fn keep_alive(&self, options: CallOptions, id: i64) -> BoxFuture<Result<KeepAlive>> {
        let limit = options.timeout;
        let mut kept = stream::keep(&self.hub, &self.core, options, id);
        Box::pin(async move {
            let first = kept.next();
            let answer = match limit {
                None => first.await,
                Some(limit) => match tokio::time::timeout(limit, first).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(Error::Deadline { sent: true }),
                },
            };
            match answer {
                Some(Ok(response)) => {
                    kept.first = response;
                    Ok(kept)
                }
                // A lease that never was alive here is one that there is not.
                Some(Err(Error::LeaseLost(_))) | None => Err(EtcdError::LeaseNotFound.into()),
                Some(Err(error)) => Err(error),
            }
        })
    }
}

/// A lease to be made. Await it.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let lease = client.lease_grant(30).await?;
/// client.put("here", "yes").lease(lease.id).await?;
/// # Ok(())
/// # });
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct Grant {
    client: Client,
    request: pb::LeaseGrantRequest,
}

impl Grant {
    /// Gives the lease this id, instead of one that the server picks.
    pub fn id(mut self, id: i64) -> Grant {
        self.request.id = id;
        self
    }
}

impl IntoFuture for Grant {
    type Output = Result<pb::LeaseGrantResponse>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.client.lease.grant(self.client.options.clone(), self.request)
    }
}

/// Calls of the Lease service.
impl Client {
    /// Makes a lease that ends this many seconds after it was last kept alive.
    pub fn lease_grant(&self, ttl_seconds: i64) -> Grant {
        let request = pb::LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        Grant { client: self.clone(), request }
    }

    /// Ends a lease; its keys are deleted.
    pub async fn lease_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse> {
        self.lease.revoke(self.options.clone(), pb::LeaseRevokeRequest { id }).await
    }

    /// How many seconds a lease has left: -1 if there is no such lease.
    pub async fn lease_time_to_live(&self, id: i64) -> Result<pb::LeaseTimeToLiveResponse> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: false };
        self.lease.time_to_live(self.options.clone(), request).await
    }

    /// The same, with the lease's keys.
    pub async fn lease_keys(&self, id: i64) -> Result<pb::LeaseTimeToLiveResponse> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        self.lease.time_to_live(self.options.clone(), request).await
    }

    /// All leases.
    pub async fn leases(&self) -> Result<pb::LeaseLeasesResponse> {
        self.lease.leases(self.options.clone(), pb::LeaseLeasesRequest {}).await
    }

    /// Keeps a lease alive for as long as what this gives is held. All leases of a client share a stream; each is
    /// renewed when a third of its time has passed.
    ///
    /// Fails with "lease not found" if there is no such lease, or nobody answers for it in time.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<KeepAlive> {
        self.lease.keep_alive(self.options.clone(), id).await
    }

    /// Keeps a lease alive for one more TTL; how many seconds that is.
    pub async fn lease_keep_alive_once(&self, id: i64) -> Result<i64> {
        let once = self.lease.keep_alive(self.options.clone(), id).await?;
        Ok(once.first().ttl)
    }

    /// The same client, with leases through this: how layers are put on.
    #[must_use]
    pub fn with_lease(&self, lease: Arc<dyn Lease>) -> Client {
        Client { lease, ..self.clone() }
    }

    /// What leases go through: for a layer to wrap.
    pub fn lease(&self) -> Arc<dyn Lease> {
        self.lease.clone()
    }
}
