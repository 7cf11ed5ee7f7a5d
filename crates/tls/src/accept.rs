//! One handshake: within its time, in its turn, by the rules for whoever connects. Not here: the rules
//! (`verifier`, `san`) and the bounds (`gate`).

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use rustls::server::Acceptor as Hello;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::acceptor::Acceptor;
use crate::gate::Gate;
use crate::leaf::Leaf;
use crate::reasons;
use crate::san;

/// What was agreed on to be spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
    /// Nothing: the client has not asked.
    None,
}

/// Whether a client's certificate must stand for the address that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanCheck {
    /// It need not: etcd's client ports.
    Skip,
    /// It must, where it names any address or host: etcd's peer and metrics ports.
    Demand,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Secured<IO> {
    /// What is spoken over.
    pub io: TlsStream<IO>,
    /// In which protocol.
    pub alpn: Alpn,
    /// The common name in the client's certificate, which was checked.
    pub common_name: Option<String>,
}

/// A connection that was not let in, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Why, in a sentence for the log.
    pub why: String,
    /// The client has just gone away, which is worth no warning.
    pub hung_up: bool,
    /// The name that it wanted to talk to.
    pub server_name: String,
    /// The addresses in its certificate.
    pub ip_addresses: Vec<String>,
    /// The names in its certificate.
    pub dns_names: Vec<String>,
}

impl Refused {
    fn because(mut self, why: impl Into<String>) -> Refused {
        self.why = why.into();
        self
    }

    fn by_io(self, error: &io::Error) -> Refused {
        Refused { hung_up: reasons::hung_up(error), ..self.because(reasons::of_io(error)) }
    }
}

impl Acceptor {
    /// Shakes hands with a client. What it needs is on the heap only for as long as it takes.
    pub async fn accept<IO>(
        &self,
        io: IO,
        remote: Option<SocketAddr>,
        gate: &Rc<Gate>,
        san: SanCheck,
    ) -> Result<Secured<IO>, Refused>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let (_place, pushed_out) = gate.enter();
        let handshake = Box::pin(self.handshake(io, remote, gate, san));
        tokio::select! {
            biased;
            done = tokio::time::timeout(gate.time(), handshake) => done.unwrap_or_else(|_| {
                let why = format!("tls: the handshake has taken longer than {:?}", gate.time());
                Err(Refused::default().because(why))
            }),
            // The sender is dropped, never used.
            _ = pushed_out => {
                Err(Refused::default().because("tls: too many handshakes at a time"))
            }
        }
    }

    async fn handshake<IO>(
        &self,
        io: IO,
        remote: Option<SocketAddr>,
        gate: &Rc<Gate>,
        san: SanCheck,
    ) -> Result<Secured<IO>, Refused>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let refused = Refused::default();
        let start = match LazyConfigAcceptor::new(Hello::default(), io).await {
            Ok(start) => start,
            Err(error) => return Err(refused.by_io(&error)),
        };
        let server_name = start.client_hello().server_name().unwrap_or_default().to_owned();
        let refused = Refused { server_name, ..refused };
        let mut accept = pin!(start.into_stream(self.current()));
        // The signature is made by the first step; what follows is cheap beside it.
        let first = async || poll_fn(|cx| Poll::Ready(accept.as_mut().poll(cx))).await;
        let done = match gate.take_turn(first).await {
            Poll::Ready(done) => done,
            Poll::Pending => accept.await,
        };
        let io = match done {
            Ok(io) => io,
            Err(error) => return Err(refused.by_io(&error)),
        };
        let leaf = match io.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(der) => Some(Leaf::parse(der).map_err(|why| refused.clone().because(why))?),
            None => None,
        };
        if let (Some(leaf), Some(remote), SanCheck::Demand) = (&leaf, remote, san)
            && let Err(why) = san::check(leaf, remote.ip()).await
        {
            let ip_addresses = leaf.addresses.iter().map(ToString::to_string).collect();
            let dns_names = leaf.dns_names.clone();
            return Err(Refused { ip_addresses, dns_names, ..refused.because(why) });
        }
        let alpn = match io.get_ref().1.alpn_protocol() {
            Some(b"h2") => Alpn::Http2,
            Some(_) => Alpn::Http1,
            None => Alpn::None,
        };
        Ok(Secured { io, alpn, common_name: leaf.map(|leaf| leaf.common_name) })
    }
}
