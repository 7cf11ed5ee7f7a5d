//! One endpoint: a task that keeps one connection to it, and what is known of its health.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::dial::{Dialer, Sender, text_of};
use crate::config::address::Address;

/// The first pause between attempts to connect, the longest one, and its growth.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const PAUSE_GROWTH: f64 = 1.6;
/// How far a pause is varied, so that clients do not come back in step.
const PAUSE_JITTER: f64 = 0.2;
/// A connection that lived this long is made again at once.
const PROVEN: Duration = Duration::from_secs(1);
/// How long an endpoint that answered "unavailable" is asked only if there is no other.
const SUSPECT: Duration = Duration::from_secs(1);
/// One attempt's time limit where the configuration has none.
const DIAL_MAX: Duration = Duration::from_secs(20);

/// An endpoint, with its connection if there is one.
pub(crate) struct Endpoint {
    pub address: Address,
    state: Mutex<State>,
    /// Told at each change; shared by all endpoints of a balancer.
    changed: Arc<Notify>,
    born: Instant,
    /// Milliseconds after `born` until which the endpoint is suspect.
    suspect_until: AtomicU64,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    sender: Option<Sender>,
    /// Why the last attempt failed, or the last connection ended.
    why: String,
}

impl Endpoint {
    /// Starts to connect.
    pub fn start(
        address: Address,
        dialer: Arc<Dialer>,
        limit: Duration,
        changed: Arc<Notify>,
    ) -> Arc<Endpoint> {
        let endpoint = Arc::new(Endpoint {
            address,
            state: Mutex::default(),
            changed,
            born: Instant::now(),
            suspect_until: AtomicU64::new(0),
            task: Mutex::new(None),
        });
        let limit = if limit.is_zero() { DIAL_MAX } else { limit };
        // The task holds no strong reference: the endpoint's end is the task's.
        let keep = keep(Arc::downgrade(&endpoint), endpoint.address.clone(), dialer, limit);
        *endpoint.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(keep));
        endpoint
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if there is one that lives.
    pub fn sender(&self) -> Option<Sender> {
        self.state().sender.clone().filter(|sender| !sender.is_closed())
    }

    /// Why there is no connection.
    pub fn why(&self) -> String {
        self.state().why.clone()
    }

    /// Asks others first for a while: this one just could not serve.
    pub fn suspect(&self) {
        let until = self.born.elapsed() + SUSPECT;
        self.suspect_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether others should be asked first.
    pub fn is_suspect(&self) -> bool {
        self.suspect_until.load(Ordering::Relaxed) > self.born.elapsed().as_millis() as u64
    }

    fn set(&self, sender: Option<Sender>, why: String) {
        *self.state() = State { sender, why };
        self.changed.notify_waiters();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Connects, lives with the connection until it ends, and begins again.
async fn keep(
    endpoint: std::sync::Weak<Endpoint>,
    address: Address,
    dialer: Arc<Dialer>,
    limit: Duration,
) {
    let mut pause = PAUSE_FIRST;
    loop {
        let span = tracing::debug_span!("etch_client.dial", endpoint = address.text);
        let dialed = tokio::time::timeout(limit, dialer.dial(&address)).instrument(span).await;
        let why = match dialed {
            Err(_) => "timed out".to_owned(),
            Ok(Err(error)) => text_of(error),
            Ok(Ok((sender, driver))) => {
                tracing::debug!(endpoint = address.text, "connected");
                metrics::counter!("etch_client_connections_total").increment(1);
                let Some(this) = endpoint.upgrade() else { return };
                this.set(Some(sender), String::new());
                drop(this);
                let since = Instant::now();
                let why = driver.await.err().map_or_else(|| "closed by the server".into(), text_of);
                if since.elapsed() >= PROVEN {
                    pause = Duration::ZERO;
                }
                why
            }
        };
        tracing::debug!(endpoint = address.text, why, "not connected");
        let Some(this) = endpoint.upgrade() else { return };
        this.set(None, why);
        drop(this);
        tokio::time::sleep(jittered(pause)).await;
        pause = longer(pause, limit);
    }
}

/// The pause after this one. A call waits for a connection as long as one attempt may take: it must not be slept through.
fn longer(pause: Duration, limit: Duration) -> Duration {
    pause.mul_f64(PAUSE_GROWTH).clamp(PAUSE_FIRST, (limit / 4).clamp(PAUSE_FIRST, PAUSE_MAX))
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + PAUSE_JITTER * (2.0 * fastrand::f64() - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_waits_sees_several_attempts() {
        for limit in [200, 500, 2000, 5000, 20_000].map(Duration::from_millis) {
            let mut pause = PAUSE_FIRST;
            for _ in 0..50 {
                pause = longer(pause, limit);
            }
            assert!(pause.mul_f64(1.0 + PAUSE_JITTER) * 3 <= limit, "{limit:?}: {pause:?}");
            assert!(pause >= PAUSE_FIRST && pause <= PAUSE_MAX, "{limit:?}: {pause:?}");
        }
    }
}
