//! Names for services: each endpoint of a service is a key under the service's name, in the form that Go's
//! `naming/endpoints` writes, so that programs in both languages find each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use etch_api::pb::mvccpb::KeyValue;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::{Error, EtcdError, Result};
use crate::header::HasHeader;
use crate::kv::{BoxStream, Op, delete, put};
use crate::watch::WatchStream;
use crate::{Event, EventType};

/// Where a service can be reached.
///
/// ```
/// use etch_client::naming::Endpoint;
///
/// let mut endpoint = Endpoint::new("10.0.0.1:8080");
/// endpoint.metadata = serde_json::json!({ "zone": 7 });
/// assert_eq!(endpoint.addr, "10.0.0.1:8080");
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Endpoint {
    /// The address.
    pub addr: String,
    /// Whatever else is known of it.
    pub metadata: serde_json::Value,
}

impl Endpoint {
    /// An endpoint without metadata.
    pub fn new(addr: impl Into<String>) -> Endpoint {
        Endpoint { addr: addr.into(), metadata: serde_json::Value::Null }
    }
}

/// A change of a service's endpoints.
///
/// ```
/// use etch_client::naming::{Endpoint, Manager, Update};
///
/// # etch_doctest::run(async |client| {
/// let service = Manager::new(&client, "search")?;
/// let moved = [
///     Update::Delete("search/old".into()),
///     Update::Add("search/new".into(), Endpoint::new("10.0.0.2:8080")),
/// ];
/// service.update(moved, 0).await?;
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The endpoint under this key is there, or another than before.
    Add(String, Endpoint),
    /// The endpoint under this key is gone.
    Delete(String),
}

/// As it is stored. `Op` is always zero; it is there for old readers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    #[serde(default)]
    op: u8,
    #[serde(default)]
    addr: String,
    #[serde(default)]
    metadata: serde_json::Value,
}

/// The endpoints of one service.
///
/// ```
/// use etch_client::naming::{Endpoint, Manager};
///
/// # etch_doctest::run(async |client| {
/// let service = Manager::new(&client, "services/search")?;
/// let lease = client.lease_grant(10).await?.id;
/// let _alive = client.lease_keep_alive(lease).await?;
/// service.add("services/search/host-1", Endpoint::new("10.0.0.1:8080"), lease).await?;
/// for (key, endpoint) in service.list().await? {
///     println!("{key}: {}", endpoint.addr);
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct Manager {
    client: Client,
    prefix: String,
}

impl Manager {
    /// The service of this name.
    pub fn new(client: &Client, target: impl Into<String>) -> Result<Manager> {
        let target = target.into();
        if target.is_empty() {
            return Err(Error::Invalid("a service needs a name".into()));
        }
        Ok(Manager { client: client.clone(), prefix: target + "/" })
    }

    /// Adds an endpoint, or replaces it. With a lease other than zero it goes with the lease.
    pub async fn add(&self, key: impl Into<String>, endpoint: Endpoint, lease: i64) -> Result<()> {
        self.update([Update::Add(key.into(), endpoint)], lease).await
    }

    /// Removes an endpoint.
    pub async fn delete(&self, key: impl Into<String>) -> Result<()> {
        self.update([Update::Delete(key.into())], 0).await
    }

    /// Makes several changes at once.
    pub async fn update(
        &self,
        updates: impl IntoIterator<Item = Update>,
        lease: i64,
    ) -> Result<()> {
        let ops: Result<Vec<Op>> = updates.into_iter().map(|u| self.op(u, lease)).collect();
        self.client.txn().then_all(ops?).await.map(|_| ())
    }

    fn op(&self, update: Update, lease: i64) -> Result<Op> {
        let (Update::Add(key, _) | Update::Delete(key)) = &update;
        if !key.starts_with(&self.prefix) {
            let why = format!(
                "endpoints: endpoint key should be prefixed with '{}' got: '{key}'",
                self.prefix
            );
            return Err(Error::Invalid(why));
        }
        match update {
            Update::Delete(key) => Ok(delete(key).into()),
            Update::Add(key, Endpoint { addr, metadata }) => {
                let stored = serde_json::to_vec(&Stored { op: 0, addr, metadata })
                    .map_err(|e| Error::Invalid(e.to_string()))?;
                Ok(put(key, stored).lease(lease).into())
            }
        }
    }

    /// The endpoints that there are. What is no endpoint is passed over.
    pub async fn list(&self) -> Result<BTreeMap<String, Endpoint>> {
        self.read().await.map(|(endpoints, _)| endpoints)
    }

    async fn read(&self) -> Result<(BTreeMap<String, Endpoint>, i64)> {
        let read = self.client.get(&self.prefix).prefix().await?;
        let revision = read.revision();
        Ok((read.kvs.iter().filter_map(endpoint_of).collect(), revision))
    }

    /// What changes, from now on or, with a revision, from then on.
    pub async fn watch(&self, from: Option<i64>) -> Result<BoxStream<Result<Vec<Update>>>> {
        let watch = self.client.watch(&self.prefix).prefix().rev(from.unwrap_or(0)).await?;
        Ok(Box::pin(
            watch.map(|response| Ok(response?.events.into_iter().filter_map(update_of).collect())),
        ))
    }

    /// All endpoints now, and all of them again after each change: what a balancer needs. Survives compaction.
    ///
    /// ```
    /// use etch_client::naming::{Endpoint, Manager};
    /// use futures_util::StreamExt;
    ///
    /// # etch_doctest::run(async |client| {
    /// let service = Manager::new(&client, "search")?;
    /// service.add("search/host-1", Endpoint::new("10.0.0.1:8080"), 0).await?;
    /// let mut sets = service.resolve();
    /// while let Some(endpoints) = sets.next().await {
    ///     println!("{} endpoints", endpoints?.len());
    ///     # break;
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub fn resolve(&self) -> BoxStream<Result<BTreeMap<String, Endpoint>>> {
        let resolver = Resolver { manager: self.clone(), endpoints: BTreeMap::new(), watch: None };
        Box::pin(futures_util::stream::unfold(Some(resolver), |resolver| async {
            let mut resolver = resolver?;
            match resolver.next().await {
                Ok(()) => Some((Ok(resolver.endpoints.clone()), Some(resolver))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// Lets a client's endpoints follow this service's, until the service cannot be watched any longer or the client
    /// is closed. While the service has no endpoints, the client keeps those that it had.
    pub async fn follow(&self, client: &Client) -> Result<()> {
        let mut sets = self.resolve();
        while let Some(endpoints) = sets.next().await {
            let mut addresses: Vec<String> = endpoints?.into_values().map(|e| e.addr).collect();
            addresses.sort_unstable();
            addresses.dedup();
            if client.is_closed() {
                return Err(Error::Closed);
            }
            if let Err(error) = client.set_endpoints(addresses) {
                tracing::warn!(%error, "the service's endpoints were not taken");
            }
        }
        Ok(())
    }
}

struct Resolver {
    manager: Manager,
    endpoints: BTreeMap<String, Endpoint>,
    watch: Option<WatchStream>,
}

impl Resolver {
    /// Waits for the next set.
    async fn next(&mut self) -> Result<()> {
        loop {
            let Some(watch) = &mut self.watch else {
                let (endpoints, revision) = self.manager.read().await?;
                let watch = self.manager.client.watch(&self.manager.prefix).prefix();
                self.watch = Some(watch.rev(revision + 1).await?);
                self.endpoints = endpoints;
                return Ok(());
            };
            let events = match watch.next().await.unwrap_or(Err(Error::Closed)) {
                Ok(response) => response.events,
                Err(error) if error.is(EtcdError::Compacted) => {
                    self.watch = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut changed = false;
            for update in events.into_iter().filter_map(update_of) {
                changed = true;
                match update {
                    Update::Add(key, endpoint) => _ = self.endpoints.insert(key, endpoint),
                    Update::Delete(key) => _ = self.endpoints.remove(&key),
                }
            }
            if changed {
                return Ok(());
            }
        }
    }
}

fn text(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn endpoint_of(kv: &KeyValue) -> Option<(String, Endpoint)> {
    let stored: Stored = serde_json::from_slice(&kv.value)
        .inspect_err(|error| tracing::warn!(key = ?kv.key, %error, "no endpoint under this key"))
        .ok()?;
    Some((text(&kv.key), Endpoint { addr: stored.addr, metadata: stored.metadata }))
}

fn update_of(event: Event) -> Option<Update> {
    let deleted = event.r#type() == EventType::Delete;
    let kv = event.kv?;
    if deleted {
        return Some(Update::Delete(text(&kv.key)));
    }
    endpoint_of(&kv).map(|(key, endpoint)| Update::Add(key, endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_go_s() {
        let stored = Stored { op: 0, addr: "a:1".into(), metadata: serde_json::Value::Null };
        let text = serde_json::to_string(&stored).expect("JSON");
        assert_eq!(text, r#"{"Op":0,"Addr":"a:1","Metadata":null}"#);
        let value = Bytes::from_static(br#"{"Op":0,"Addr":"b:2","Metadata":{"zone":7}}"#);
        let kv = KeyValue { key: "s/x".into(), value, ..Default::default() };
        let (key, endpoint) = endpoint_of(&kv).expect("an endpoint");
        assert_eq!((&key[..], &endpoint.addr[..]), ("s/x", "b:2"));
        assert_eq!(endpoint.metadata["zone"], 7);
        let broken = KeyValue { value: Bytes::from_static(b"nonsense"), ..Default::default() };
        assert_eq!(endpoint_of(&broken), None);
    }
}
