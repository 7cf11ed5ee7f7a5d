//! Which endpoint a call takes: round robin over those that are connected, those that lately could not serve last; for a
//! while after a login the one that it was made at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::dial::{Dialer, Sender};
use super::endpoint::Endpoint;
use crate::config::address::Address;
use crate::error::{Error, Result};

/// A member knows a token that it gave. Others know it once they have applied what gave it: within a heartbeat where
/// they keep up.
const PREFERENCE: Duration = Duration::from_secs(2);

/// The endpoints of a client.
pub(crate) struct Balancer {
    endpoints: RwLock<Arc<[Arc<Endpoint>]>>,
    next: AtomicUsize,
    /// Where calls go first, and until when.
    preferred: Mutex<Option<(Arc<Endpoint>, Instant)>>,
    changed: Arc<Notify>,
    dialer: Arc<Dialer>,
    dial_timeout: Duration,
}

/// An endpoint with its connection.
pub(crate) struct Picked {
    pub endpoint: Arc<Endpoint>,
    pub sender: Sender,
}

impl Balancer {
    pub fn new(addresses: Vec<Address>, dialer: Dialer, dial_timeout: Duration) -> Balancer {
        let balancer = Balancer {
            endpoints: RwLock::new(Arc::new([])),
            // Clients that start together shall not all begin with the first endpoint.
            next: AtomicUsize::new(fastrand::usize(..1 << 16)),
            preferred: Mutex::default(),
            changed: Arc::new(Notify::new()),
            dialer: Arc::new(dialer),
            dial_timeout,
        };
        balancer.replace(addresses);
        balancer
    }

    /// The endpoints as they are now.
    pub fn endpoints(&self) -> Arc<[Arc<Endpoint>]> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes these endpoints from now on. Those that stay keep their connections.
    pub fn replace(&self, addresses: Vec<Address>) {
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Endpoint>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if next.iter().any(|e| e.address == address) {
                continue;
            }
            let known = endpoints.iter().find(|e| e.address == address).cloned();
            next.push(known.unwrap_or_else(|| self.start(address)));
        }
        *endpoints = next.into();
        drop(endpoints);
        self.changed.notify_waiters();
    }

    /// An endpoint by its name, whether it is one of ours or not. Another's connection ends with the last reference.
    pub fn named(&self, address: Address) -> Arc<Endpoint> {
        let known = self.endpoints().iter().find(|e| e.address == address).cloned();
        known.unwrap_or_else(|| self.start(address))
    }

    fn start(&self, address: Address) -> Arc<Endpoint> {
        let changed = self.changed.clone();
        Endpoint::start(address, self.dialer.clone(), self.dial_timeout, changed)
    }

    /// Waits for an endpoint, up to the dial timeout. `avoid` is taken only if there is no other.
    pub async fn pick(&self, avoid: Option<&Arc<Endpoint>>) -> Result<Picked> {
        self.wait(|| self.pick_now(avoid), || self.whys()).await
    }

    /// For a while calls go to this endpoint, as long as it serves.
    pub fn prefer(&self, endpoint: Arc<Endpoint>) {
        *self.preferred.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((endpoint, Instant::now() + PREFERENCE));
    }

    fn preferred(&self) -> Option<Picked> {
        let mut preferred = self.preferred.lock().unwrap_or_else(PoisonError::into_inner);
        preferred.take_if(|(_, until)| *until <= Instant::now());
        let (endpoint, _) = preferred.as_ref()?;
        let ours = self.endpoints().iter().any(|e| Arc::ptr_eq(e, endpoint));
        let sender = endpoint.sender().filter(|_| ours && !endpoint.is_suspect())?;
        Some(Picked { endpoint: endpoint.clone(), sender })
    }

    /// Waits for this very endpoint, up to the dial timeout.
    pub async fn pick_one(&self, endpoint: &Arc<Endpoint>) -> Result<Picked> {
        let now = || {
            let sender = endpoint.sender()?;
            Some(Picked { endpoint: endpoint.clone(), sender })
        };
        self.wait(now, || why_of(endpoint)).await
    }

    async fn wait(
        &self,
        now: impl Fn() -> Option<Picked>,
        why: impl Fn() -> String,
    ) -> Result<Picked> {
        if let Some(picked) = now() {
            return Ok(picked);
        }
        let limit = (!self.dial_timeout.is_zero()).then(|| Instant::now() + self.dial_timeout);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a change between the two is not missed.
            changed.as_mut().enable();
            if let Some(picked) = now() {
                return Ok(picked);
            }
            match limit {
                None => changed.await,
                Some(limit) => {
                    if tokio::time::timeout_at(limit, changed).await.is_err() {
                        return Err(Error::NoEndpoint(why()));
                    }
                }
            }
        }
    }

    fn pick_now(&self, avoid: Option<&Arc<Endpoint>>) -> Option<Picked> {
        let avoided =
            |endpoint: &Arc<Endpoint>| avoid.is_some_and(|avoid| Arc::ptr_eq(avoid, endpoint));
        if let Some(preferred) = self.preferred()
            && !avoided(&preferred.endpoint)
        {
            return Some(preferred);
        }
        let endpoints = self.endpoints();
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut second = None;
        let mut last = None;
        for at in 0..endpoints.len() {
            let endpoint = &endpoints[(start.wrapping_add(at)) % endpoints.len()];
            let Some(sender) = endpoint.sender() else { continue };
            let picked = Picked { endpoint: endpoint.clone(), sender };
            if avoided(endpoint) {
                last = Some(picked);
            } else if endpoint.is_suspect() {
                second.get_or_insert(picked);
            } else {
                return Some(picked);
            }
        }
        second.or(last)
    }

    fn whys(&self) -> String {
        let endpoints = self.endpoints();
        if endpoints.is_empty() {
            return "the list of endpoints is empty".into();
        }
        endpoints.iter().map(why_of).collect::<Vec<_>>().join("; ")
    }
}

fn why_of(endpoint: &Arc<Endpoint>) -> String {
    let why = endpoint.why();
    let why = if why.is_empty() { "not connected yet" } else { &why };
    format!("{}: {why}", endpoint.address.text)
}
