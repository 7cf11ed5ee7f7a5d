//! Telling HTTP/2, HTTP/1.1 and TLS from each other on one port by the first
//! bytes. Not here: TLS itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What an HTTP/2 client says first.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of TLS, which is the type of its first record.
const HANDSHAKE: u8 = 0x16;

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS, whatever is inside.
    Tls,
    /// Anything else, which can only be HTTP/1.
    Http1,
}

/// A connection with the bytes that were read of it in front again.
#[derive(Debug)]
pub struct Rewind<IO> {
    seen: [u8; PREFACE.len()],
    at: usize,
    len: usize,
    io: IO,
}

impl<IO> Rewind<IO> {
    /// The connection below, for its addresses and options.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

/// Reads until it is clear what the client speaks: at the first byte that
/// differs from HTTP/2's preface, or when the preface is whole. A client that
/// says nothing in time gives `TimedOut`, one that hangs up `UnexpectedEof`.
pub async fn sniff<IO: AsyncRead + Unpin>(
    io: IO,
    timeout: Duration,
) -> io::Result<(Protocol, Rewind<IO>)> {
    let mut rewind = Rewind { seen: [0; PREFACE.len()], at: 0, len: 0, io };
    let protocol = tokio::time::timeout(timeout, read_preface(&mut rewind)).await??;
    Ok((protocol, rewind))
}

async fn read_preface<IO: AsyncRead + Unpin>(rewind: &mut Rewind<IO>) -> io::Result<Protocol> {
    loop {
        let n = rewind.io.read(&mut rewind.seen[rewind.len..]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rewind.len += n;
        if rewind.seen[0] == HANDSHAKE {
            return Ok(Protocol::Tls);
        }
        if rewind.seen[..rewind.len] != PREFACE[..rewind.len] {
            return Ok(Protocol::Http1);
        }
        if rewind.len == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Rewind<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.len {
            let n = (self.len - self.at).min(buf.remaining());
            buf.put_slice(&self.seen[self.at..self.at + n]);
            self.at += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Rewind<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const WAIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn tells_the_two_apart_and_gives_the_bytes_back() {
        let both: [(&[u8], Protocol); 4] = [
            (b"\x16\x03\x01\x02\x00rest", Protocol::Tls),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest", Protocol::Http2),
            (b"GET / HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"PROPFIND / HTTP/1.1\r\n\r\n", Protocol::Http1),
        ];
        for (bytes, protocol) in both {
            let (mut client, server) = tokio::io::duplex(3);
            let write = async {
                client.write_all(bytes).await.expect("write");
                drop(client);
            };
            let read = async {
                let (got, mut io) = sniff(server, WAIT).await.expect("sniff");
                assert_eq!(got, protocol);
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.expect("read");
                assert_eq!(all, bytes);
            };
            tokio::join!(write, read);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_times_out() {
        let (_client, server) = tokio::io::duplex(3);
        let e = sniff(server, WAIT).await.expect_err("silent");
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
    }
}
