//! The client's handle: starts, is cloned, hands out builders. What a call does is in the files of the services.

use std::sync::{Arc, Weak};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;

use crate::bytes::IntoBytes;
use crate::call::{CallOptions, Core};
use crate::config::Config;
use crate::config::address::Address;
use crate::error::{Error, Result};
use crate::kv::{self, Bound, Compact, CoreKv, Delete, Get, Kv, Put, Txn};
use crate::lease::{CoreLease, Lease};
use crate::net::balancer::Balancer;
use crate::net::dial::Dialer;
use crate::net::srv;
use crate::watch::{CoreWatcher, Watcher};

/// How long one auto-sync may take.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// A client. Cloning is cheap, and clones share connections; the last one's drop ends them.
///
/// Dropping a future or a stream that a client gave ends its work, on the server too.
///
/// ```
/// use etch_client::Client;
///
/// # etch_doctest::run(async |served| {
/// let client = Client::connect(["127.0.0.1:2379"]).await?;
/// # let client = served;
/// client.put("greeting", "hello").await?;
/// let answer = client.get("greeting").await?;
/// assert_eq!(answer.kvs[0].value, "hello");
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) lease: Arc<dyn Lease>,
    pub(crate) watcher: Arc<dyn Watcher>,
    pub(crate) options: CallOptions,
}

impl Client {
    /// A client of these endpoints, or of a whole [`Config`].
    ///
    /// Connections are made in the background: this does not wait for them. It waits only where there is something
    /// to ask first: DNS for `srv:` endpoints, a token for a user, versions for `reject_old_cluster`.
    pub async fn connect(config: impl Into<Config>) -> Result<Client> {
        let config = config.into();
        config.check()?;
        let endpoints = srv::expand(&config.endpoints).await?;
        let addresses = addresses(&endpoints, &config)?;
        let balancer = Balancer::new(addresses, Dialer::new(&config), config.dial_timeout);
        let options = CallOptions::default().require_leader(config.require_leader);
        let core = Arc::new(Core::new(config, balancer));
        let kv: Arc<dyn Kv> = Arc::new(CoreKv(core.clone()));
        let lease: Arc<dyn Lease> = Arc::new(CoreLease::new(core.clone()));
        let watcher: Arc<dyn Watcher> = Arc::new(CoreWatcher::new(core.clone()));
        let client = Client { core, kv, lease, watcher, options };
        client.log_in().await?;
        if client.core.config.reject_old_cluster {
            client.check_versions().await?;
        }
        let interval = client.core.config.auto_sync_interval;
        if !interval.is_zero() {
            tokio::spawn(auto_sync(Arc::downgrade(&client.core), interval));
        }
        Ok(client)
    }

    /// Ends the client's calls, streams and connections, whoever else holds a clone.
    pub fn close(&self) {
        self.core.close();
    }

    /// Whether [`Client::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// The same client with a time limit for each of its calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        self.with_options(self.options.clone().timeout(timeout))
    }

    /// The same client; members without a leader shall refuse its calls and end its streams.
    #[must_use]
    pub fn with_require_leader(&self) -> Client {
        self.with_options(self.options.clone().require_leader(true))
    }

    /// The same client with these options for each of its calls.
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Client {
        Client { options, ..self.clone() }
    }

    /// The same client, reading and writing keys through this: how layers are put on.
    #[must_use]
    pub fn with_kv(&self, kv: Arc<dyn Kv>) -> Client {
        Client { kv, ..self.clone() }
    }

    /// What keys are read and written through: for a layer to wrap.
    pub fn kv(&self) -> Arc<dyn Kv> {
        self.kv.clone()
    }

    /// The options of this handle's calls.
    pub fn options(&self) -> &CallOptions {
        &self.options
    }

    fn bound(&self) -> Bound {
        Bound { kv: self.kv.clone(), options: self.options.clone() }
    }

    /// Reads a key, or more.
    pub fn get(&self, key: impl IntoBytes) -> Get<Bound> {
        kv::get(key).bind(self.bound())
    }

    /// Writes a key.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Put<Bound> {
        kv::put(key, value).bind(self.bound())
    }

    /// Deletes a key, or more.
    pub fn delete(&self, key: impl IntoBytes) -> Delete<Bound> {
        kv::delete(key).bind(self.bound())
    }

    /// Compares, then does one thing or the other, at one revision.
    pub fn txn(&self) -> Txn<Bound> {
        kv::txn().bind(self.bound())
    }

    /// Drops the history before this revision.
    pub fn compact(&self, revision: i64) -> Compact<Bound> {
        let request = pb::CompactionRequest { revision, physical: false };
        Compact { to: self.bound(), request }
    }

    /// The endpoints that calls go to now.
    pub fn endpoints(&self) -> Vec<String> {
        self.core.balancer.endpoints().iter().map(|e| e.address.text.clone()).collect()
    }

    /// Sends calls to these endpoints from now on. Those that stay keep their connections; calls and streams on the
    /// others end as if the connection were lost, and resume elsewhere where they can.
    ///
    /// An empty list, or an endpoint that makes no sense, is refused, and changes nothing.
    pub fn set_endpoints<E: Into<String>>(
        &self,
        endpoints: impl IntoIterator<Item = E>,
    ) -> Result<()> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        self.core.set_endpoints(&endpoints)
    }

    /// Asks the cluster for its members, and takes their client URLs as the endpoints. Learners and members that
    /// have not started are left out.
    pub async fn sync(&self) -> Result<()> {
        self.core.sync(&self.options).await
    }

    /// Asks for the first token; a server that hangs must not hold the start up for longer than the dial timeout.
    async fn log_in(&self) -> Result<()> {
        let options = CallOptions::default();
        let asking = self.core.renew_token(&options, 0);
        let limit = self.core.config.dial_timeout;
        if limit.is_zero() {
            return asking.await.map(|_| ());
        }
        let late = Err(Error::Deadline { sent: true });
        tokio::time::timeout(limit, asking).await.unwrap_or(late).map(|_| ())
    }

    async fn check_versions(&self) -> Result<()> {
        for endpoint in self.endpoints() {
            let limit = self.core.config.dial_timeout;
            let asking = if limit.is_zero() { self.clone() } else { self.with_timeout(limit) };
            let version = asking.status(endpoint).await?.version;
            let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
            if (numbers.next(), numbers.next()) < (Some(3), Some(6)) {
                return Err(Error::OldCluster(version));
            }
        }
        Ok(())
    }
}

impl Core {
    /// Sends calls to these endpoints from now on.
    pub fn set_endpoints(&self, endpoints: &[String]) -> Result<()> {
        if endpoints.is_empty() {
            return Err(Error::Invalid("the list of endpoints is empty".into()));
        }
        let addresses = addresses(endpoints, &self.config)?;
        if !self.is_closed() {
            self.balancer.replace(addresses);
        }
        Ok(())
    }

    async fn sync(&self, options: &CallOptions) -> Result<()> {
        let request = pb::MemberListRequest { linearizable: true };
        let answer: pb::MemberListResponse =
            self.call(options, &crate::call::method::MEMBER_LIST, request).await?;
        let started = answer.members.into_iter().filter(|m| !m.name.is_empty() && !m.is_learner);
        let endpoints: Vec<String> = started.flat_map(|member| member.client_ur_ls).collect();
        tracing::debug!(?endpoints, "endpoints from the members");
        self.set_endpoints(&endpoints)
    }
}

impl From<String> for Config {
    fn from(endpoint: String) -> Config {
        Config::new([endpoint])
    }
}

impl From<&str> for Config {
    fn from(endpoint: &str) -> Config {
        Config::new([endpoint])
    }
}

impl<E: Into<String>> From<Vec<E>> for Config {
    fn from(endpoints: Vec<E>) -> Config {
        Config::new(endpoints)
    }
}

impl<E: Into<String>, const N: usize> From<[E; N]> for Config {
    fn from(endpoints: [E; N]) -> Config {
        Config::new(endpoints)
    }
}

fn addresses(endpoints: &[String], config: &Config) -> Result<Vec<Address>> {
    endpoints.iter().map(|e| Address::parse(e, config.tls.is_some())).collect()
}

/// Takes the members' URLs as endpoints again and again, as long as somebody holds the client.
async fn auto_sync(core: Weak<Core>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(core) = core.upgrade() else { return };
        if core.is_closed() {
            return;
        }
        let options = CallOptions::default().timeout(SYNC_LIMIT);
        if let Err(error) = core.sync(&options).await {
            tracing::info!(%error, "the endpoints could not be synchronized");
        }
    }
}
