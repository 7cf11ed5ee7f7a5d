//! Connections of clients: accepted, let in over TLS where that is asked for, and served in what they speak. Not
//! here: what is answered (`forward`, `pages`).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etch_host::{UnixSocket, log_warn};
use etch_rpc::{Peer, Protocol, serve_connection, sniff};
use etch_tls::{Acceptor, Gate, SanCheck};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Proxy;
use super::forward::Front;
use super::pages;
use crate::sockets;

/// After an error of accept (no file descriptors left, say) the port rests for so long.
const REST: Duration = Duration::from_millis(50);
/// Time for a client to say what it speaks.
const SNIFF: Duration = Duration::from_secs(30);

/// What a port offers.
pub(super) struct Port {
    /// TLS, where it is spoken; then nothing else is.
    pub(super) tls: Option<Arc<Acceptor>>,
    /// Where handshakes enter.
    pub(super) gate: Rc<Gate>,
    /// Whether gRPC is not served.
    pub(super) pages_only: bool,
}

/// Where connections come in.
pub(super) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, whose file goes with it.
    Unix { listener: UnixListener, _file: UnixSocket },
}

enum Come {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Listens on a Unix socket.
    ///
    /// # Errors
    /// Go's text.
    pub(super) fn unix(path: &str) -> Result<Self, String> {
        let failed = |error: io::Error| {
            format!("listen unix {path}: bind: {}", etch_host::os_error_text(&error))
        };
        let socket = UnixSocket::bind(Path::new(path)).map_err(failed)?;
        let listener = socket.listener().and_then(UnixListener::from_std).map_err(failed)?;
        Ok(Self::Unix { listener, _file: socket })
    }

    async fn accept(&self) -> io::Result<Come> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Come::Tcp(stream, remote)
            }
            Listener::Unix { listener, .. } => Come::Unix(listener.accept().await?.0),
        })
    }
}

/// Serves a port's connections until the proxy stops.
pub(super) async fn serve(proxy: Rc<Proxy>, port: Rc<Port>, listener: Listener) {
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok(come) => {
                    let open = Open::new(&proxy);
                    let (proxy, port) = (Rc::clone(&proxy), Rc::clone(&port));
                    tokio::task::spawn_local(async move {
                        let _open = open;
                        match come {
                            Come::Tcp(stream, remote) => {
                                sockets::tune(&stream);
                                let local = stream.local_addr().ok();
                                let peer = Peer { remote: Some(remote), local, ..Peer::default() };
                                connection(proxy, &port, stream, peer).await;
                            }
                            Come::Unix(stream) => {
                                connection(proxy, &port, stream, Peer::default()).await;
                            }
                        }
                    });
                }
                Err(error) => {
                    log_warn!(proxy.log, "accept failed", "error" => error.to_string());
                    tokio::time::sleep(REST).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = proxy.stopped() => {}
    }
}

/// Counts a connection for as long as it lives.
struct Open(Rc<Proxy>);

impl Open {
    fn new(proxy: &Rc<Proxy>) -> Self {
        proxy.connections.set(proxy.connections.get() + 1);
        Self(Rc::clone(proxy))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.one_less.notify_one();
    }
}

async fn connection<IO>(proxy: Rc<Proxy>, port: &Port, stream: IO, peer: Peer)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = &port.tls else {
        return speak(proxy, port, stream, peer).await;
    };
    let letting_in = tls.accept(stream, peer.remote, &port.gate, SanCheck::Skip);
    let come = tokio::select! {
        come = letting_in => come,
        () = proxy.stopped() => return,
    };
    match come {
        Ok(secured) => Box::pin(speak(proxy, port, secured.io, peer)).await,
        Err(refused) if refused.hung_up => {}
        Err(refused) => {
            log_warn!(proxy.log, "rejected connection on client endpoint", "remote-addr" => peer.remote.map(|remote| remote.to_string()).unwrap_or_default(), "server-name" => refused.server_name, "error" => refused.why);
        }
    }
}

/// Serves a connection in what its first bytes say.
async fn speak<IO>(proxy: Rc<Proxy>, port: &Port, io: IO, peer: Peer)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // A connection that fails concerns nobody but its client.
    let sniffed = tokio::select! {
        sniffed = sniff(io, SNIFF) => sniffed,
        () = proxy.stopped() => return,
    };
    let Ok((protocol, io)) = sniffed else { return };
    let (stopped, limits) = (proxy.stopped(), Rc::clone(&proxy.limits));
    let front = Rc::new(Front { proxy, pages_only: port.pages_only });
    match protocol {
        Protocol::Http2 => {
            serve_connection(io, front, peer, limits, stopped).await;
        }
        Protocol::Http1 => pages::serve(io, front, Rc::new(peer), stopped).await,
        // Whoever speaks TLS to a port that does not, will notice.
        Protocol::Tls => {}
    }
}
