//! One connection: TCP or a socket in the file system, TLS or not, then HTTP/2 up to the server's settings.
//!
//! A connection counts as made only when the server's SETTINGS have come: a port that speaks something else, or a
//! process that is stopped, must not be given a request of which nobody would know what became of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tonic::body::Body;

use crate::config::address::{Address, Target};
use crate::config::{Config, Tls};

/// Where requests go in.
pub(crate) type Sender = http2::SendRequest<Body>;
/// What has to be polled for the connection to live; it ends when the connection does.
pub(crate) type Driver = http2::Connection<TokioIo<Sniff>, Body, TokioExecutor>;

/// What all connections of a client have in common.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: Tls,
    keep_alive_time: Duration,
    keep_alive_timeout: Duration,
    keep_alive_while_idle: bool,
}

impl Dialer {
    pub fn new(config: &Config) -> Dialer {
        Dialer {
            tls: config.tls.clone().unwrap_or_default(),
            keep_alive_time: config.dial_keep_alive_time,
            keep_alive_timeout: config.dial_keep_alive_timeout,
            keep_alive_while_idle: config.permit_without_stream,
        }
    }

    /// Connects. The time limit is the caller's.
    pub async fn dial(&self, address: &Address) -> io::Result<(Sender, Driver)> {
        let stream = self.stream(address).await?;
        let (seen, settings) = oneshot::channel();
        let io = TokioIo::new(Sniff { stream, head: Head::new(seen) });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        // One stream may fill its window without starving the others of the connection's.
        builder.initial_stream_window_size(1 << 20).initial_connection_window_size(8 << 20);
        if !self.keep_alive_time.is_zero() {
            builder
                .keep_alive_interval(self.keep_alive_time)
                .keep_alive_timeout(self.keep_alive_timeout)
                .keep_alive_while_idle(self.keep_alive_while_idle);
        }
        let (sender, mut driver) = builder.handshake(io).await.map_err(io::Error::other)?;
        tokio::select! {
            biased;
            ended = &mut driver => {
                Err(not_greeted(ended.err(), address.tls))
            }
            _ = settings => Ok((sender, driver)),
        }
    }

    async fn stream(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let plain: Box<dyn Stream> = match &address.target {
            Target::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        if !address.tls {
            return Ok(plain);
        }
        let config = self.tls.load().map_err(io::Error::other)?;
        let name = self.tls.server_name.clone().unwrap_or_else(|| address.host.clone());
        let name = ServerName::try_from(name)
            .map_err(|_| io::Error::other("no name that a certificate could bear"))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect(name, plain).await.map_err(no_tls)?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the server does not offer HTTP/2"));
        }
        Ok(Box::new(stream))
    }
}

/// Says what it means when the first answer to our greeting is none of TLS.
fn no_tls(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, "the server does not speak TLS")
        }
        _ if hung_up(error.kind()) => io::Error::new(
            error.kind(),
            format!(
                "the server ended the TLS handshake, as one does that does not speak TLS: {error}"
            ),
        ),
        _ => error,
    }
}

/// Says what it means when a connection ends before the server's settings came. A server that speaks TLS answers our
/// greeting with an alert, but it may also hang up, or its hanging up may overtake the alert.
fn not_greeted(error: Option<hyper::Error>, tls: bool) -> io::Error {
    let cause = error.as_ref().and_then(std::error::Error::source);
    let broken = cause.and_then(|e| e.downcast_ref::<h2::Error>()).and_then(h2::Error::get_io);
    let kind = broken.map(io::Error::kind);
    let why = error.map_or_else(|| "closed".into(), text_of);
    if kind.is_some_and(|kind| !hung_up(kind)) {
        return io::Error::other(why);
    }
    let hint =
        if tls { "" } else { ", as one does that speaks TLS (the endpoint then needs https)" };
    io::Error::other(format!("the server ended the connection at our greeting{hint}: {why}"))
}

/// Whether the other side ended the connection.
fn hung_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// An error with what caused it, in one line.
pub(crate) fn text_of(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// Any byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose first bytes are looked at as they pass.
pub(crate) struct Sniff {
    stream: Box<dyn Stream>,
    head: Head,
}

/// The first frame's header, as far as it has come.
struct Head {
    bytes: [u8; 9],
    have: usize,
    seen: Option<oneshot::Sender<()>>,
}

impl Head {
    fn new(seen: oneshot::Sender<()>) -> Head {
        Head { bytes: [0; 9], have: 0, seen: Some(seen) }
    }

    /// Takes what came; an error if it does not begin with a SETTINGS frame (type 4, no flags, stream 0).
    fn take(&mut self, came: &[u8]) -> io::Result<()> {
        if self.seen.is_none() {
            return Ok(());
        }
        let take = came.len().min(self.bytes.len() - self.have);
        self.bytes[self.have..self.have + take].copy_from_slice(&came[..take]);
        self.have += take;
        // A TLS alert is shorter than a frame's header, and as one would be longer than any first frame may be.
        if self.have >= 2 && self.bytes[..2] == [21, 3] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server speaks TLS: the endpoint needs https",
            ));
        }
        if self.have < self.bytes.len() {
            return Ok(());
        }
        if self.bytes[3..] != [4, 0, 0, 0, 0, 0] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server does not speak HTTP/2",
            ));
        }
        if let Some(seen) = self.seen.take() {
            let _ = seen.send(());
        }
        Ok(())
    }
}

impl AsyncRead for Sniff {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.head.take(&buf.filled()[before..])?;
        }
        read
    }
}

impl AsyncWrite for Sniff {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_seen_however_they_arrive() {
        let frame = [0, 0, 6, 4, 0, 0, 0, 0, 0, 1, 2, 3];
        for cut in 1..frame.len() {
            let (seen, mut came) = oneshot::channel();
            let mut head = Head::new(seen);
            head.take(&frame[..cut]).expect("a good start");
            assert_eq!(came.try_recv().is_ok(), cut >= 9, "{cut}");
            head.take(&frame[cut..]).expect("good");
            assert!(cut >= 9 || came.try_recv().is_ok(), "{cut}");
        }
    }

    #[test]
    fn another_protocol_is_an_error() {
        let (seen, mut came) = oneshot::channel();
        let mut head = Head::new(seen);
        assert!(head.take(b"HTTP/1.1 400 Bad Request").is_err());
        assert!(came.try_recv().is_err());
        // What a TLS server answers to a greeting in the clear.
        let alert = Head::new(oneshot::channel().0).take(&[21, 3, 1, 0, 2, 2, 70]);
        assert!(alert.is_err_and(|e| e.to_string().contains("https")));
    }
}
