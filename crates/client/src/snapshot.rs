//! A member's whole store as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use etch_api::pb::etcdserverpb as pb;
use futures_core::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use crate::call::broken;
use crate::call::method::SNAPSHOT;
use crate::client::Client;
use crate::error::{Error, Result};

/// A snapshot, being read. It ends with the SHA-256 of what came before; a stream that breaks off is an error, never a
/// short read.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let mut snapshot = client.snapshot().await?;
/// println!("made by version {}", snapshot.version());
/// let mut bytes = Vec::new();
/// tokio::io::AsyncReadExt::read_to_end(&mut snapshot, &mut bytes).await?;
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Snapshot {
    stream: tonic::Streaming<pb::SnapshotResponse>,
    first: pb::SnapshotResponse,
    blob: Bytes,
    remaining: u64,
}

impl Snapshot {
    /// The header of the first piece: what the snapshot is of.
    pub fn header(&self) -> Option<&pb::ResponseHeader> {
        self.first.header.as_ref()
    }

    /// The version of the server that made it; empty before etcd 3.6.
    pub fn version(&self) -> &str {
        &self.first.version
    }

    /// How many bytes are still to come from the server, by its own account.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }
}

impl AsyncRead for Snapshot {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.blob.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(broken(&status)))),
                Some(Ok(piece)) => {
                    self.remaining = piece.remaining_bytes;
                    self.blob = piece.blob;
                }
            }
        }
        let take = self.blob.len().min(buf.remaining());
        buf.put_slice(&self.blob[..take]);
        self.blob.advance(take);
        Poll::Ready(Ok(()))
    }
}

/// Snapshots.
impl Client {
    /// A snapshot of one of the members.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let mut attempts = 0;
        let mut avoid = None;
        let mut renewed = false;
        loop {
            let picked = self.core.balancer.pick(avoid.as_ref()).await?;
            let generation = self.core.tokens.generation();
            let error = match self.open_snapshot(&picked).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => error,
            };
            if error.wants_token() && !renewed {
                renewed = self.core.renew_token(&self.options, generation).await?;
                if renewed {
                    continue;
                }
            }
            attempts += 1;
            if !error.is_transient() || attempts >= self.core.config.max_unary_retries {
                return Err(error);
            }
            avoid = Some(picked.endpoint);
            self.core.back_off(attempts).await;
        }
    }

    async fn open_snapshot(&self, picked: &crate::net::balancer::Picked) -> Result<Snapshot> {
        let request = futures_util::stream::iter([pb::SnapshotRequest {}]);
        let opening = async {
            let mut stream: tonic::Streaming<pb::SnapshotResponse> =
                self.core.stream(picked, &self.options, &SNAPSHOT, request).await?;
            let first = stream.message().await.map_err(|status| broken(&status))?;
            let mut first = first.ok_or_else(|| Error::Malformed("an empty snapshot".into()))?;
            self.core.check_cluster(first.header.as_ref())?;
            let blob = std::mem::take(&mut first.blob);
            Ok(Snapshot { stream, remaining: first.remaining_bytes, blob, first })
        };
        tokio::select! {
            () = self.core.until_closed() => Err(Error::Closed),
            opened = opening => opened,
        }
    }
}
