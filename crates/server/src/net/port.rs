//! One connection: what it speaks, and who answers. Not here: accepting (`accept`), gRPC methods
//! (`services`), and what the pages say (`http`).

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use etch_rpc::{Limits, Peer, Protocol, serve_connection, sniff};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::{Net, NetHandler};
use crate::http::{Pages, serve_pages};

/// What a listening socket offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// gRPC and the pages: a client URL.
    Everything,
    /// gRPC alone: a client URL where the pages have their own.
    Grpc,
    /// The pages alone: `--listen-client-http-urls`.
    Pages,
    /// Metrics and health alone: `--listen-metrics-urls`.
    Metrics,
    /// What peers ask over HTTP.
    Peer,
}

impl Offer {
    /// True if gRPC calls are answered.
    pub fn has_grpc(self) -> bool {
        matches!(self, Offer::Everything | Offer::Grpc)
    }

    /// Which pages are answered.
    pub fn pages(self) -> Pages {
        match self {
            Offer::Everything | Offer::Pages => Pages::Client,
            Offer::Grpc => Pages::None,
            Offer::Metrics => Pages::Metrics,
            Offer::Peer => Pages::Peer,
        }
    }
}

/// A connection that was accepted, on its way to its net thread.
pub struct Accepted {
    /// The socket, not blocking.
    pub socket: Socket,
    /// What the port offers.
    pub offer: Offer,
}

/// A socket of either kind.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Time for a client to say what it speaks.
const SNIFF: Duration = Duration::from_secs(30);

/// Serves a connection until it ends.
pub async fn serve(
    accepted: Accepted,
    net: Rc<Net>,
    limits: Rc<Limits>,
    stop: watch::Receiver<bool>,
) {
    let Accepted { socket, offer } = accepted;
    // A connection that fails concerns nobody but its client.
    let _ = match socket {
        Socket::Tcp(tcp) => {
            let peer = Peer {
                remote: tcp.peer_addr().ok(),
                local: tcp.local_addr().ok(),
                ..Peer::default()
            };
            let _ = tcp.set_nodelay(true);
            match tokio::net::TcpStream::from_std(tcp) {
                Ok(io) => speak(io, peer, offer, net, limits, stop).await,
                Err(error) => Err(error),
            }
        }
        Socket::Unix(unix) => match tokio::net::UnixStream::from_std(unix) {
            Ok(io) => speak(io, Peer::default(), offer, net, limits, stop).await,
            Err(error) => Err(error),
        },
    };
}

async fn speak<IO: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: IO,
    peer: Peer,
    offer: Offer,
    net: Rc<Net>,
    limits: Rc<Limits>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (protocol, io) = sniff(io, SNIFF).await?;
    match protocol {
        Protocol::Http2 => {
            let handler = Rc::new(NetHandler { net, offer });
            serve_connection(io, handler, peer, limits, stopped(stop)).await;
            Ok(())
        }
        Protocol::Http1 => serve_pages(io, &net.member.site, offer.pages(), stopped(stop)).await,
    }
}

/// Completes when the server stops.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender goes only when the server has stopped.
    let _ = stop.wait_for(|stopped| *stopped).await;
}
