//! A namespace: every key of a client lies under a prefix, and the client does not see it. A layer over the three
//! traits; the server knows nothing of it, and it keeps nobody out.

use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::mvccpb::KeyValue;
use etch_api::range::prefix_end;
use futures_util::StreamExt;

use crate::bytes::IntoBytes;
use crate::call::CallOptions;
use crate::client::Client;
use crate::error::{EtcdError, Result};
use crate::kv::{BoxFuture, Kv, RangeStream};
use crate::lease::{KeepAlive, Lease};
use crate::pb::{self, request_op::Request, response_op::Response};
use crate::watch::{WatchSpec, WatchStream, Watcher};

/// Puts all keys under a prefix: the arithmetic of [`Client::namespaced`], for those who have messages and no
/// client.
///
/// ```
/// let namespace = etch_client::Namespace::new("p/");
/// let mut request = etch_client::pb::PutRequest { key: "a".into(), ..Default::default() };
/// namespace.add_put(&mut request).unwrap();
/// assert_eq!(request.key, "p/a");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    prefix: Bytes,
}

/// The end that a range request has for "all that follow".
const NO_END: &[u8] = b"\0";

impl Client {
    /// The same client, with every key under this prefix: what it reads, writes, watches and locks.
    ///
    /// ```
    /// # etch_doctest::run(async |client| {
    /// let blue = client.namespaced("teams/blue/");
    /// blue.put("color", "blue").await?;
    /// assert_eq!(client.get("teams/blue/color").await?.count, 1);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn namespaced(&self, prefix: impl IntoBytes) -> Client {
        let namespace = Namespace::new(prefix);
        let kv = Arc::new(Under { namespace: namespace.clone(), inner: self.kv() });
        let watcher = Arc::new(Under { namespace: namespace.clone(), inner: self.watcher() });
        let lease = Arc::new(Under { namespace, inner: self.lease() });
        self.with_kv(kv).with_watcher(watcher).with_lease(lease)
    }
}

/// Something within a namespace.
struct Under<T: ?Sized> {
    namespace: Namespace,
    inner: Arc<T>,
}

impl Namespace {
    /// All keys under this prefix.
    pub fn new(prefix: impl IntoBytes) -> Namespace {
        Namespace { prefix: prefix.into_bytes() }
    }

    /// Whether a key lies under the prefix.
    pub fn has(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// A key, moved under the prefix.
    pub fn add(&self, key: &[u8]) -> Bytes {
        Bytes::from([&self.prefix[..], key].concat())
    }

    /// Moves a range under the prefix.
    pub fn add_range(&self, key: &mut Bytes, end: &mut Bytes) -> Result<()> {
        if key.is_empty() && end.is_empty() {
            return Err(EtcdError::EmptyKey.into());
        }
        *key = self.add(key);
        if *end == NO_END {
            *end = prefix_end(&self.prefix);
        } else if !end.is_empty() {
            *end = self.add(end);
        }
        Ok(())
    }

    /// Takes the prefix off a key.
    pub fn strip(&self, key: &mut Bytes) {
        if key.starts_with(&self.prefix) {
            *key = key.slice(self.prefix.len()..);
        }
    }

    /// Takes the prefix off all keys.
    pub fn strip_all(&self, kvs: &mut [KeyValue]) {
        for kv in kvs {
            self.strip(&mut kv.key);
        }
    }

    fn add_op(&self, op: &mut pb::RequestOp) -> Result<()> {
        match &mut op.request {
            Some(Request::RequestRange(r)) => self.add_range(&mut r.key, &mut r.range_end),
            Some(Request::RequestPut(r)) => self.add_put(r),
            Some(Request::RequestDeleteRange(r)) => self.add_range(&mut r.key, &mut r.range_end),
            Some(Request::RequestTxn(r)) => self.add_txn(r),
            None => Ok(()),
        }
    }

    /// Moves a key that is written under the prefix.
    pub fn add_put(&self, request: &mut pb::PutRequest) -> Result<()> {
        if request.key.is_empty() {
            return Err(EtcdError::EmptyKey.into());
        }
        request.key = self.add(&request.key);
        Ok(())
    }

    /// Moves all keys of a transaction under the prefix, those of nested ones too.
    pub fn add_txn(&self, txn: &mut pb::TxnRequest) -> Result<()> {
        for compare in &mut txn.compare {
            self.add_range(&mut compare.key, &mut compare.range_end)?;
        }
        txn.success.iter_mut().chain(&mut txn.failure).try_for_each(|op| self.add_op(op))
    }

    /// Takes the prefix off all keys of an answer.
    pub fn strip_txn(&self, answer: &mut pb::TxnResponse) {
        for op in &mut answer.responses {
            match &mut op.response {
                Some(Response::ResponseRange(r)) => self.strip_all(&mut r.kvs),
                Some(Response::ResponsePut(r)) => self.strip_all(r.prev_kv.as_mut_slice()),
                Some(Response::ResponseDeleteRange(r)) => self.strip_all(&mut r.prev_kvs),
                Some(Response::ResponseTxn(r)) => self.strip_txn(r),
                None => {}
            }
        }
    }
}

impl Kv for Under<dyn Kv> {
    fn range(
        &self,
        options: CallOptions,
        mut request: pb::RangeRequest,
    ) -> BoxFuture<Result<pb::RangeResponse>> {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        Box::pin(async move {
            namespace.add_range(&mut request.key, &mut request.range_end)?;
            let mut answer = inner.range(options, request).await?;
            namespace.strip_all(&mut answer.kvs);
            Ok(answer)
        })
    }

    fn range_stream(&self, options: CallOptions, mut request: pb::RangeRequest) -> RangeStream {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        RangeStream::new(move |page| {
            if let Err(error) = namespace.add_range(&mut request.key, &mut request.range_end) {
                return Box::pin(futures_util::stream::iter([Err(error)]));
            }
            let pieces = inner.range_stream(options, request).page(page.clamp(1, 1 << 20) as u32);
            Box::pin(pieces.map(move |piece| {
                let mut piece = piece?;
                namespace.strip_all(&mut piece.kvs);
                Ok(piece)
            }))
        })
    }

    fn put(
        &self,
        options: CallOptions,
        mut request: pb::PutRequest,
    ) -> BoxFuture<Result<pb::PutResponse>> {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        Box::pin(async move {
            namespace.add_put(&mut request)?;
            let mut answer = inner.put(options, request).await?;
            namespace.strip_all(answer.prev_kv.as_mut_slice());
            Ok(answer)
        })
    }

    fn delete_range(
        &self,
        options: CallOptions,
        mut request: pb::DeleteRangeRequest,
    ) -> BoxFuture<Result<pb::DeleteRangeResponse>> {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        Box::pin(async move {
            namespace.add_range(&mut request.key, &mut request.range_end)?;
            let mut answer = inner.delete_range(options, request).await?;
            namespace.strip_all(&mut answer.prev_kvs);
            Ok(answer)
        })
    }

    fn txn(
        &self,
        options: CallOptions,
        mut request: pb::TxnRequest,
    ) -> BoxFuture<Result<pb::TxnResponse>> {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        Box::pin(async move {
            namespace.add_txn(&mut request)?;
            let mut answer = inner.txn(options, request).await?;
            namespace.strip_txn(&mut answer);
            Ok(answer)
        })
    }

    fn compact(
        &self,
        options: CallOptions,
        request: pb::CompactionRequest,
    ) -> BoxFuture<Result<pb::CompactionResponse>> {
        self.inner.compact(options, request)
    }
}

impl Watcher for Under<dyn Watcher> {
    fn watch(&self, options: CallOptions, mut spec: WatchSpec) -> BoxFuture<Result<WatchStream>> {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        Box::pin(async move {
            namespace.add_range(&mut spec.create.key, &mut spec.create.range_end)?;
            let watch = inner.watch(options, spec).await?;
            let created = *watch.created();
            let stripped = watch.map(move |response| {
                let mut response = response?;
                for event in &mut response.events {
                    namespace.strip_all(event.kv.as_mut_slice());
                    namespace.strip_all(event.prev_kv.as_mut_slice());
                }
                Ok(response)
            });
            Ok(WatchStream::new(created, stripped))
        })
    }

    fn request_progress(&self, options: CallOptions) -> BoxFuture<Result<()>> {
        self.inner.request_progress(options)
    }
}

impl Lease for Under<dyn Lease> {
    fn grant(
        &self,
        options: CallOptions,
        request: pb::LeaseGrantRequest,
    ) -> BoxFuture<Result<pb::LeaseGrantResponse>> {
        self.inner.grant(options, request)
    }

    fn revoke(
        &self,
        options: CallOptions,
        request: pb::LeaseRevokeRequest,
    ) -> BoxFuture<Result<pb::LeaseRevokeResponse>> {
        self.inner.revoke(options, request)
    }

    fn time_to_live(
        &self,
        options: CallOptions,
        request: pb::LeaseTimeToLiveRequest,
    ) -> BoxFuture<Result<pb::LeaseTimeToLiveResponse>> {
        let (namespace, inner) = (self.namespace.clone(), self.inner.clone());
        Box::pin(async move {
            let mut answer = inner.time_to_live(options, request).await?;
            // Of a lease's keys only ours are shown.
            answer.keys.retain(|key| namespace.has(key));
            answer.keys.iter_mut().for_each(|key| namespace.strip(key));
            Ok(answer)
        })
    }

    fn leases(
        &self,
        options: CallOptions,
        request: pb::LeaseLeasesRequest,
    ) -> BoxFuture<Result<pb::LeaseLeasesResponse>> {
        self.inner.leases(options, request)
    }

    fn keep_alive(&self, options: CallOptions, id: i64) -> BoxFuture<Result<KeepAlive>> {
        self.inner.keep_alive(options, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_the_prefix() {
        let namespace = Namespace { prefix: "p/".into_bytes() };
        for (key, end, want_key, want_end) in [
            ("a", "", "p/a", ""),
            ("a", "b", "p/a", "p/b"),
            ("a", "\0", "p/a", "p0"),
            ("\0", "\0", "p/\0", "p0"),
            ("", "b", "p/", "p/b"),
        ] {
            let (mut key, mut end) = (key.into_bytes(), end.into_bytes());
            namespace.add_range(&mut key, &mut end).expect("a range");
            assert_eq!((&key[..], &end[..]), (want_key.as_bytes(), want_end.as_bytes()));
        }
        let (mut key, mut end) = (Bytes::new(), Bytes::new());
        assert!(namespace.add_range(&mut key, &mut end).is_err());
        let last = Namespace { prefix: b"\xff".into_bytes() };
        let (mut key, mut end) = ("a".into_bytes(), "\0".into_bytes());
        last.add_range(&mut key, &mut end).expect("a range");
        assert_eq!(end, NO_END);
    }
}
