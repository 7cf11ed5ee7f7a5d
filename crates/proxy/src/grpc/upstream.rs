//! The cluster, as the proxy calls it: one HTTP/2 connection to each endpoint, calls and streams as bytes. Not
//! here: what the bytes say, and gRPC's frames (`wire`).
//!
//! A connection is used once the other side has answered a ping on it, and for as long as it answers the
//! question how it is in time: a process that is stopped takes connections and says nothing. A member that has no
//! leader is asked only where no other is connected.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::StatusResponse;
use etch_client::Tls;
use etch_host::logging::Logger;
use etch_host::{log_info, log_warn};
use etch_rpc::{Code, Status};
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri};
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Upwards;
use super::wire::{Answer, Incoming, Outgoing};
use crate::sockets;

/// An attempt to connect may take so long.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Between attempts to connect, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often an endpoint is asked how it is, and how long it may take to say so.
const CHECK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
/// A call waits so long for an endpoint.
const WAIT: Duration = Duration::from_secs(10);
/// Windows that one stream may fill without starving the others.
const WINDOWS: (u32, u32) = (1 << 20, 16 << 20);

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `host:port`.
    pub(crate) authority: Authority,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

/// All endpoints.
pub(crate) struct Upstream {
    upwards: Upwards,
    log: Logger,
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
    next: Cell<usize>,
    changed: Notify,
}

/// One of them.
pub(crate) struct Endpoint {
    address: Address,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    /// Whether it has a leader, as far as is known.
    led: Cell<bool>,
    /// Held by whoever has a call under way.
    busy: Rc<()>,
    task: RefCell<Option<AbortHandle>>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

/// How an attempt failed.
pub(crate) enum Failed {
    /// The other side surely has not looked at it.
    Unseen(String),
    /// Nobody knows what became of it.
    Lost(String),
    /// It said no.
    Refused(Status),
}

impl Upstream {
    /// Begins to connect with these.
    pub(crate) fn new(upwards: Upwards, addresses: Vec<Address>, log: Logger) -> Rc<Self> {
        let upstream = Rc::new(Self {
            upwards,
            log,
            endpoints: RefCell::default(),
            next: Cell::new(0),
            changed: Notify::new(),
        });
        upstream.replace(addresses);
        upstream
    }

    /// Takes these endpoints from now on; those that stay keep their connections.
    pub(crate) fn replace(self: &Rc<Self>, addresses: Vec<Address>) {
        let known = std::mem::take(&mut *self.endpoints.borrow_mut());
        let wanted = addresses.into_iter().map(|address| {
            let same = known.iter().find(|endpoint| endpoint.address == address);
            same.cloned().unwrap_or_else(|| self.begin_endpoint(address))
        });
        let wanted = wanted.collect();
        *self.endpoints.borrow_mut() = wanted;
    }

    fn begin_endpoint(self: &Rc<Self>, address: Address) -> Rc<Endpoint> {
        let endpoint = Rc::new(Endpoint {
            address,
            sender: RefCell::default(),
            led: Cell::new(true),
            busy: Rc::default(),
            task: RefCell::default(),
        });
        let kept = keep(Rc::downgrade(self), Rc::downgrade(&endpoint));
        let task = tokio::task::spawn_local(kept).abort_handle();
        *endpoint.task.borrow_mut() = Some(task);
        endpoint
    }

    /// One message each way. A call that may be repeated goes to another endpoint if one fails in the middle of
    /// it; any other only if it surely was not looked at.
    pub(crate) async fn unary(
        &self,
        path: &'static str,
        headers: &HeaderMap,
        message: &Bytes,
        repeatable: bool,
    ) -> Result<Answer, Status> {
        self.check(message)?;
        let tries = self.endpoints.borrow().len() + 1;
        let mut last = Status::new(Code::Unavailable, "");
        for _ in 0..tries {
            let endpoint = self.pick().await?;
            last = match self.attempt(&endpoint, path, headers, message).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Refused(status)) if repeatable && status.code == Code::Unavailable => {
                    status
                }
                Err(Failed::Unseen(why)) => Status::new(Code::Unavailable, why),
                Err(Failed::Lost(why)) if repeatable => Status::new(Code::Unavailable, why),
                Err(failed) => return Err(failed.status()),
            };
        }
        Err(last)
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        path: &'static str,
        headers: &HeaderMap,
        message: &Bytes,
    ) -> Result<Answer, Failed> {
        let (mut out, incoming) = self.begin(endpoint, path, headers).await?;
        out.send_whole(message).map_err(|error| Failed::Lost(error.to_string()))?;
        incoming.whole().await
    }

    /// Messages in either direction.
    pub(crate) async fn stream(
        &self,
        path: &'static str,
        headers: &HeaderMap,
    ) -> Result<(Outgoing, Incoming), Status> {
        let tries = self.endpoints.borrow().len() + 1;
        let mut why = String::new();
        for _ in 0..tries {
            let endpoint = self.pick().await?;
            match self.begin(&endpoint, path, headers).await {
                Ok(both) => return Ok(both),
                Err(Failed::Refused(status)) => return Err(status),
                Err(Failed::Lost(text) | Failed::Unseen(text)) => why = text,
            }
        }
        Err(Status::new(Code::Unavailable, why))
    }

    async fn begin(
        &self,
        endpoint: &Endpoint,
        path: &'static str,
        headers: &HeaderMap,
    ) -> Result<(Outgoing, Incoming), Failed> {
        let unseen = |error: h2::Error| Failed::Unseen(error.to_string());
        let Some(sender) = endpoint.sender.borrow().clone() else {
            return Err(Failed::Unseen("the connection has ended".to_owned()));
        };
        let mut sender = sender.ready().await.map_err(unseen)?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if endpoint.address.tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(endpoint.address.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        let uri = Uri::from_parts(parts)
            .map_err(|error| Failed::Refused(Status::new(Code::Internal, error.to_string())))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        let (answer, out) = sender.send_request(request, false).map_err(unseen)?;
        let busy = Rc::clone(&endpoint.busy);
        Ok((Outgoing::new(out), Incoming::new(answer, self.upwards.max_recv, busy)))
    }

    /// Refuses what is too large to be sent.
    pub(crate) fn check(&self, message: &Bytes) -> Result<(), Status> {
        let (len, max) = (message.len(), self.upwards.max_send);
        if len <= max {
            return Ok(());
        }
        let why = format!("trying to send message larger than max ({len} vs. {max})");
        Err(Status::new(Code::ResourceExhausted, why))
    }

    /// The next endpoint that is connected; waits for one.
    async fn pick(&self) -> Result<Rc<Endpoint>, Status> {
        if let Some(found) = self.connected() {
            return Ok(found);
        }
        let found = timeout(WAIT, async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = self.connected() {
                    return found;
                }
                changed.await;
            }
        });
        found.await.map_err(|_| {
            Status::new(Code::Unavailable, "no endpoint of the cluster can be reached")
        })
    }

    /// Each in turn; those without a leader only where there is no other.
    fn connected(&self) -> Option<Rc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        let first = self.next.get();
        self.next.set(first.wrapping_add(1));
        let turns = (0..endpoints.len())
            .map(|offset| &endpoints[first.wrapping_add(offset) % endpoints.len()])
            .filter(|endpoint| endpoint.sender.borrow().is_some());
        let found = turns.clone().find(|endpoint| endpoint.led.get());
        found.or_else(|| turns.clone().next()).cloned()
    }

    /// Whether any endpoint is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.endpoints.borrow().iter().any(|endpoint| endpoint.sender.borrow().is_some())
    }

    /// A page of any endpoint's, over a connection of its own.
    pub(crate) async fn page(&self, path: &str) -> io::Result<Bytes> {
        let addresses: Vec<Address> =
            self.endpoints.borrow().iter().map(|endpoint| endpoint.address.clone()).collect();
        let address = addresses
            .get(fastrand::usize(..addresses.len().max(1)))
            .ok_or_else(|| io::Error::other("no endpoints"))?;
        match reach(address, self.upwards.tls.as_ref(), b"http/1.1").await? {
            Reached::Plain(io) => super::relay::get(io, &address.authority, path).await,
            Reached::Secured(io) => super::relay::get(io, &address.authority, path).await,
        }
    }
}

/// Connects with an endpoint, lives with the connection until it ends, and begins again.
async fn keep(upstream: Weak<Upstream>, endpoint: Weak<Endpoint>) {
    let mut pause = PAUSE.0;
    loop {
        let (Some(up), Some(end)) = (upstream.upgrade(), endpoint.upgrade()) else { return };
        let why = match timeout(CONNECT_WITHIN, connect(&end.address, &up.upwards)).await {
            Err(_) => "i/o timeout".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(connection)) => {
                pause = PAUSE.0;
                log_info!(up.log, "connected with an endpoint", "address" => end.address.authority.as_str());
                live(&up, end, connection).await.to_owned()
            }
        };
        let Some(end) = endpoint.upgrade() else { return };
        *end.sender.borrow_mut() = None;
        log_warn!(up.log, "no connection to an endpoint", "address" => end.address.authority.as_str(), "error" => why);
        drop((up, end));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One connection, from its first call to its end.
async fn live(up: &Upstream, endpoint: Rc<Endpoint>, connection: Connection) -> &'static str {
    let Connection { sender, driver, pings } = connection;
    *endpoint.sender.borrow_mut() = Some(sender);
    endpoint.led.set(true);
    up.changed.notify_waiters();
    let (weak, busy) = (Rc::downgrade(&endpoint), Rc::clone(&endpoint.busy));
    // Not held, so that it can be taken off the list.
    drop(endpoint);
    tokio::select! {
        () = driver => "the connection ended",
        () = serves(up, &weak) => "no answer to the question how it is in time",
        () = answers(&up.upwards, pings, &busy) => "no answer to a ping in time",
    }
}

/// Returns when an endpoint does not say any more how it is.
async fn serves(upstream: &Upstream, endpoint: &Weak<Endpoint>) {
    let headers = super::forward::own_headers();
    loop {
        let Some(end) = endpoint.upgrade() else { return };
        let path = "/etcdserverpb.Maintenance/Status";
        // An empty request.
        let message = Bytes::new();
        let asked = upstream.attempt(&end, path, &headers, &message);
        match timeout(CHECK.1, asked).await {
            Err(_) => return,
            Ok(Ok(answer)) => {
                let status = StatusResponse::decode(answer.bytes());
                end.led.set(status.is_ok_and(|status| status.leader != 0));
            }
            // Whoever does not want to tell us serves all the same.
            Ok(Err(Failed::Refused(_))) => end.led.set(true),
            // The connection's end is seen elsewhere.
            Ok(Err(_)) => {}
        }
        drop(end);
        sleep(CHECK.0).await;
    }
}

/// Returns when a ping stays without an answer, where pings are asked for.
async fn answers(upwards: &Upwards, pings: Option<PingPong>, busy: &Rc<()>) {
    let (Some((every, limit)), Some(mut pings)) = (upwards.keepalive, pings) else {
        return std::future::pending().await;
    };
    // The endpoint's own, and this one.
    const IDLE: usize = 2;
    loop {
        sleep(every).await;
        if upwards.permit_without_stream || Rc::strong_count(busy) > IDLE {
            match timeout(limit, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                _ => return,
            }
        }
    }
}

/// What has to be polled for a connection to live.
type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// A connection that has answered.
struct Connection {
    sender: SendRequest<Bytes>,
    driver: Driver,
    pings: Option<PingPong>,
}

/// Bytes to an endpoint and back.
enum Reached {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

async fn reach(address: &Address, tls: Option<&Tls>, protocol: &[u8]) -> io::Result<Reached> {
    let stream = sockets::dial(address.authority.as_str(), CONNECT_WITHIN)
        .await
        .map_err(|error| io::Error::other(error.to_string()))?;
    if !address.tls {
        return Ok(Reached::Plain(stream));
    }
    let host = address.authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    // Read each time, so that files that were changed count from the next connection on.
    let tls = tls.cloned().unwrap_or_default();
    let mut config = (*tls.load().map_err(io::Error::other)?).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    Ok(Reached::Secured(Box::new(connector.connect(name, stream).await?)))
}

async fn connect(address: &Address, upwards: &Upwards) -> io::Result<Connection> {
    match reach(address, upwards.tls.as_ref(), b"h2").await? {
        Reached::Plain(io) => shake_hands(io).await,
        Reached::Secured(io) => shake_hands(io).await,
    }
}

async fn shake_hands<IO>(io: IO) -> io::Result<Connection>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1);
    builder.max_send_buffer_size(1 << 20).enable_push(false);
    let shaken = builder.handshake::<_, Bytes>(io).await;
    let (sender, mut connection) = shaken.map_err(io::Error::other)?;
    let mut pings = connection.ping_pong();
    // How a connection ended, its calls hear.
    let mut driver: Driver = Box::pin(async move { drop(connection.await) });
    if let Some(pings) = &mut pings {
        tokio::select! {
            () = &mut driver => return Err(io::Error::other("closed by the server")),
            pong = pings.ping(Ping::opaque()) => {
                pong.map_err(io::Error::other)?;
            }
        }
    }
    Ok(Connection { sender, driver, pings })
}
