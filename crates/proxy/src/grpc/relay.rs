//! One page of a member's, asked for over HTTP/1.1: the members' metrics, which the proxy shows as its own. Not
//! here: pages of the proxy's own (`pages`).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The whole may take so long.
const WITHIN: Duration = Duration::from_secs(10);
/// More than any member has to say.
const LARGEST: usize = 32 << 20;

/// The page of this path.
pub(super) async fn get<IO>(io: IO, host: &Authority, path: &str) -> io::Result<Bytes>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let asked = tokio::time::timeout(WITHIN, ask(io, host, path));
    asked.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn ask<IO>(io: IO, host: &Authority, path: &str) -> io::Result<Bytes>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    let request = Request::get(path)
        .header(header::HOST, host.as_str())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(io::Error::other(response.status().to_string()));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        Ok(body.map_err(io::Error::other)?.to_bytes())
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The answer may be whole when the connection is over.
        _ = connection => answer.await,
    }
}
