//! A thread that carries connections: it takes those that were accepted, finds each an endpoint, and relays.
//! Not here: accepting (`mod`), which endpoint (`remotes`).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use etch_host::log_warn;
use etch_host::logging::Logger;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::flow::Lent;
use super::relay::{Relay, Relays};
use super::remotes::Remotes;
use crate::sockets;

/// An endpoint has so long to take a connection.
pub(super) const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Connections that wait for their thread; beyond that, accepting waits.
const WAITING: usize = 1024;

/// What all threads know.
pub(super) struct Shared {
    pub(super) remotes: Remotes,
    pub(super) retry: Duration,
    pub(super) log: Logger,
}

/// The way to a thread.
pub(super) struct Lane {
    sender: mpsc::Sender<std::net::TcpStream>,
    connections: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Lane {
    /// Starts a thread. It ends when its lane is closed and its connections are over.
    pub(super) fn start(number: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
            let carrier = Carrier {
                shared,
                connections: counter,
                lent: Rc::default(),
                relays: Rc::default(),
            };
            LocalSet::new().block_on(&runtime, Rc::new(carrier).run(receiver));
        })?;
        Ok(Self { sender, connections, thread })
    }

    /// How many connections the thread has, those on their way with them.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands a connection over.
    pub(super) async fn send(&self, client: TcpStream) {
        let Ok(client) = client.into_std() else { return };
        self.connections.fetch_add(1, Ordering::Relaxed);
        // A thread that is gone has stopped, and so do we.
        let _ = self.sender.send(client).await;
    }

    /// Takes no more connections and lets those that there are come to their end.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.thread
    }
}

/// The thread's own things.
struct Carrier {
    shared: Arc<Shared>,
    connections: Arc<AtomicUsize>,
    lent: Rc<Lent>,
    relays: Rc<Relays>,
}

impl Carrier {
    async fn run(self: Rc<Self>, mut receiver: mpsc::Receiver<std::net::TcpStream>) {
        while let Some(client) = receiver.recv().await {
            let carrier = Rc::clone(&self);
            // Its own task, so that what is only needed to reach an endpoint is gone afterwards.
            tokio::task::spawn_local(async move {
                let one = One(Arc::clone(&carrier.connections));
                let Ok(client) = TcpStream::from_std(client) else { return };
                sockets::tune(&client);
                if let Some(server) = carrier.reach().await {
                    carrier.relays.run(Relay::new(client, server, Rc::clone(&carrier.lent), one));
                }
            });
        }
        self.relays.drain().await;
    }

    /// Connects with an endpoint; each that fails is set aside.
    async fn reach(&self) -> Option<TcpStream> {
        let Shared { remotes, retry, log } = &*self.shared;
        while let Some(place) = remotes.pick() {
            let address = remotes.address(place);
            match sockets::dial(address, DIAL_WITHIN).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    if remotes.set_aside(place) {
                        log_warn!(log, "deactivated endpoint", "address" => address, "interval" => *retry, "error" => error.to_string());
                    }
                }
            }
        }
        None
    }
}

/// Counts a connection for as long as it lives.
#[derive(Default)]
pub(super) struct One(Arc<AtomicUsize>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
