//! Listening: one thread accepts for all ports and hands each connection to the net thread that has the
//! fewest. Not here: what a connection says (`port`).

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etch_host::UnixSocket;
use tokio::sync::{mpsc, watch};

use super::port::{Accepted, Port, Socket};
use crate::log_warn;
use crate::logging::Logger;

/// A bound socket and what it offers.
pub struct Listener {
    socket: Bound,
    /// What its connections get.
    pub port: Arc<Port>,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// Connections that the kernel may have accepted and we have not yet; its own limit is below this, if at all.
const BACKLOG: i32 = 4096;
/// After an error of accept (no file descriptors left, say) the port rests for so long.
const REST: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds `host:port`.
    pub fn tcp(address: &str, port: Arc<Port>) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        let socket = TcpListener::bind(&addresses[..])?;
        // std asks for 128, which is too few when everybody comes back at once.
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Bound::Tcp(socket), port })
    }

    /// Binds a Unix socket.
    pub fn unix(path: &Path, port: Arc<Port>) -> io::Result<Self> {
        Ok(Self { socket: Bound::Unix(UnixSocket::bind(path)?), port })
    }

    /// Where it listens, as people read it.
    pub fn address(&self) -> String {
        match &self.socket {
            Bound::Tcp(socket) => {
                socket.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string())
            }
            Bound::Unix(socket) => socket.path().display().to_string(),
        }
    }
}

/// The way to one net thread, and how many connections it has.
#[derive(Clone)]
pub struct Lane {
    /// Connections for it.
    pub sender: mpsc::UnboundedSender<Accepted>,
    /// How many it has, those on their way with them.
    pub connections: Arc<AtomicUsize>,
}

/// Accepts on all ports until the server stops. Runs on a thread of its own.
pub fn run(listeners: Vec<Listener>, lanes: Vec<Lane>, log: Logger, stop: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|e| panic!("no runtime for accepting: {e}"));
    runtime.block_on(async move {
        let lanes = Arc::new(lanes);
        let mut ports = Vec::new();
        for listener in listeners {
            ports.push(tokio::spawn(accept(
                listener,
                Arc::clone(&lanes),
                log.clone(),
                stop.clone(),
            )));
        }
        for port in ports {
            let _ = port.await;
        }
    });
}

async fn accept(
    listener: Listener,
    lanes: Arc<Vec<Lane>>,
    log: Logger,
    mut stop: watch::Receiver<bool>,
) {
    let serving = async {
        if let Err(error) = accept_all(&listener, &lanes, &log).await {
            log_warn!(log, "cannot listen", "address" => listener.address(), "error" => error.to_string());
        }
    };
    tokio::select! {
        () = serving => {}
        _ = stop.wait_for(|stopped| *stopped) => {}
    }
}

async fn accept_all(listener: &Listener, lanes: &[Lane], log: &Logger) -> io::Result<()> {
    match &listener.socket {
        Bound::Tcp(socket) => {
            let socket = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
            loop {
                match socket.accept().await.and_then(|(tcp, _)| tcp.into_std()) {
                    Ok(tcp) => hand_over(Socket::Tcp(tcp), &listener.port, lanes),
                    Err(error) => rest(&error, log).await,
                }
            }
        }
        Bound::Unix(socket) => {
            let socket = tokio::net::UnixListener::from_std(socket.listener()?)?;
            loop {
                match socket.accept().await.and_then(|(unix, _)| unix.into_std()) {
                    Ok(unix) => hand_over(Socket::Unix(unix), &listener.port, lanes),
                    Err(error) => rest(&error, log).await,
                }
            }
        }
    }
}

async fn rest(error: &io::Error, log: &Logger) {
    log_warn!(log, "accept failed", "error" => error.to_string());
    tokio::time::sleep(REST).await;
}

fn hand_over(socket: Socket, port: &Arc<Port>, lanes: &[Lane]) {
    let lane = lanes.iter().min_by_key(|l| l.connections.load(Ordering::Relaxed));
    let Some(lane) = lane else { return };
    lane.connections.fetch_add(1, Ordering::Relaxed);
    // A thread that is gone has stopped, and so do we.
    let _ = lane.sender.send(Accepted { socket, port: Arc::clone(port) });
}
