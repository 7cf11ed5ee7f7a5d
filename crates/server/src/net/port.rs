//! One connection: what it speaks, and who answers. Not here: accepting (`accept`), gRPC methods
//! (`services`), and what the pages say (`http`).

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etch_rpc::{Limits, Peer, Protocol, serve_connection, sniff};
use etch_tls::{Acceptor, Refused, SanCheck};
use tokio::sync::watch;

use super::stream::Stream;
use super::{Net, NetHandler};
use crate::gateway::Front;
use crate::http::{Pages, Secured, serve_port};

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

    /// What its traffic is called in logs.
    pub fn traffic(self) -> &'static str {
        match self {
            Offer::Everything => "grpc+http",
            Offer::Grpc => "grpc",
            Offer::Pages | Offer::Metrics | Offer::Peer => "http",
        }
    }

    /// What is logged of a connection that is not let in.
    fn rejected(self) -> &'static str {
        match self {
            Offer::Peer => "rejected connection on peer endpoint",
            _ => "rejected connection on client endpoint",
        }
    }

    /// etcd asks on these ports that a certificate stands for the address it comes from, and on others not.
    fn san(self, skipped_between_peers: bool) -> SanCheck {
        match self {
            Offer::Metrics => SanCheck::Demand,
            Offer::Peer if !skipped_between_peers => SanCheck::Demand,
            _ => SanCheck::Skip,
        }
    }
}

/// A listening socket's side of its connections.
#[derive(Debug)]
pub struct Port {
    /// What is answered.
    pub offer: Offer,
    /// Whether clients may speak plain text.
    pub plain: bool,
    /// Their TLS, if they may speak it.
    pub tls: Option<Arc<Acceptor>>,
    /// `--peer-skip-client-san-verification`.
    pub skip_peer_san: bool,
}

/// A connection that was accepted, on its way to its net thread.
pub struct Accepted {
    /// The socket, not blocking.
    pub socket: Socket,
    /// What the port offers.
    pub port: Arc<Port>,
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
    let Accepted { socket, port } = accepted;
    // A connection that fails concerns nobody but its client.
    let Ok((stream, peer)) = open(socket) else { return };
    let remote = peer.remote;
    let letting_in = let_in(stream, peer, &port, &net);
    let mut stopping = stop.clone();
    let come = tokio::select! {
        come = letting_in => come,
        _ = stopping.wait_for(|stopped| *stopped) => return,
    };
    match come {
        // On the heap, so that who is shaking hands does not take the room of who is served.
        Ok(come) => Box::pin(speak(come, port.offer, net, limits, stop)).await,
        Err(refused) => net.refusals.log(&net.member, port.offer.rejected(), remote, &refused),
    }
}

fn open(socket: Socket) -> io::Result<(Stream, Peer)> {
    match socket {
        Socket::Tcp(tcp) => {
            let peer = Peer {
                remote: tcp.peer_addr().ok(),
                local: tcp.local_addr().ok(),
                ..Peer::default()
            };
            let _ = tcp.set_nodelay(true);
            Ok((Stream::Tcp(tokio::net::TcpStream::from_std(tcp)?), peer))
        }
        Socket::Unix(unix) => {
            Ok((Stream::Unix(tokio::net::UnixStream::from_std(unix)?), Peer::default()))
        }
    }
}

/// A connection that was let in: its bytes in plain, and what is known of who sends them.
struct Come {
    io: etch_rpc::Rewind<Stream>,
    protocol: Protocol,
    peer: Peer,
    secured: Option<Secured>,
}

/// Finds out what is spoken, and shakes hands where that is TLS.
async fn let_in(stream: Stream, peer: Peer, port: &Port, net: &Net) -> Result<Come, Refused> {
    let plain = match &port.tls {
        Some(tls) if !port.plain => return secure(stream, peer, port, tls, net).await,
        tls => tls,
    };
    let (protocol, io) = sniff(stream, SNIFF).await.map_err(|error| went_silent(&error))?;
    match (protocol, plain) {
        (Protocol::Tls, Some(tls)) => {
            secure(Stream::Seen(Box::new(io)), peer, port, tls, net).await
        }
        (Protocol::Tls, None) => Err(Refused {
            why: "tls: the client speaks TLS to a port that does not".to_owned(),
            ..Refused::default()
        }),
        _ => Ok(Come { io, protocol, peer, secured: None }),
    }
}

async fn secure(
    stream: Stream,
    mut peer: Peer,
    port: &Port,
    tls: &Acceptor,
    net: &Net,
) -> Result<Come, Refused> {
    let san = port.offer.san(port.skip_peer_san);
    let secured = tls.accept(stream, peer.remote, &net.gate, san).await?;
    peer.common_name = secured.common_name.filter(|name| !name.is_empty());
    let named = peer.common_name.is_some();
    // What was agreed on by ALPN is what is said first: Go, too, serves those who ask for nothing by that.
    let stream = Stream::Tls(Box::new(secured.io));
    let (protocol, io) = sniff(stream, SNIFF).await.map_err(|error| went_silent(&error))?;
    Ok(Come { io, protocol, peer, secured: Some(Secured { named }) })
}

fn went_silent(error: &io::Error) -> Refused {
    Refused { why: error.to_string(), hung_up: true, ..Refused::default() }
}

async fn speak(
    come: Come,
    offer: Offer,
    net: Rc<Net>,
    limits: Rc<Limits>,
    stop: watch::Receiver<bool>,
) {
    let Come { io, protocol, peer, secured } = come;
    if protocol == Protocol::Http2 {
        let handler = Rc::new(NetHandler { net, offer, secured, stop: stop.clone() });
        serve_connection(io, handler, peer, limits, stopped(stop)).await;
    } else {
        let pages = offer.pages();
        let front = Front::new(Rc::clone(&net), pages, Rc::new(peer), secured, stop.clone());
        let first = async |head, body| front.respond(head, body).await;
        // A connection that fails concerns nobody but its client.
        let _ = serve_port(io, &net.member.site, pages, first, stopped(stop)).await;
    }
}

/// Completes when the server stops.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender goes only when the server has stopped.
    let _ = stop.wait_for(|stopped| *stopped).await;
}
