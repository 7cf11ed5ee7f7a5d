//! Reading and writing keys: the trait that layers share, and the requests as builders (one file each).

mod compare;
mod core;
mod delete;
mod get;
mod put;
mod stream;
mod txn;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use etch_api::pb::etcdserverpb as pb;

pub use self::core::Compact;
pub(crate) use self::core::{CoreKv, reads_only};
pub use compare::{Compare, Comparison};
pub use delete::{Delete, delete};
pub use get::{Get, SortOrder, SortTarget, get};
pub use put::{Put, put};
pub use stream::RangeStream;
pub use txn::{Op, Txn, txn};

use crate::call::CallOptions;
use crate::error::Result;

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A stream on the heap.
pub type BoxStream<T> = Pin<Box<dyn futures_core::Stream<Item = T> + Send>>;

/// The calls of etcd's KV service. The client has one that asks the server; [`crate::Client::namespaced`],
/// [`crate::Client::ordered`] and [`crate::Client::leasing`] each wrap another.
///
/// ```
/// use etch_client::{BoxFuture, CallOptions, Kv, RangeStream, Result, pb};
///
/// /// Passes everything on, but writes nothing.
/// struct ReadOnly<K>(K);
///
/// impl<K: Kv> Kv for ReadOnly<K> {
///     fn range(&self, o: CallOptions, r: pb::RangeRequest) -> BoxFuture<Result<pb::RangeResponse>> {
///         self.0.range(o, r)
///     }
///     fn range_stream(&self, o: CallOptions, r: pb::RangeRequest) -> RangeStream {
///         self.0.range_stream(o, r)
///     }
///     fn put(&self, _: CallOptions, _: pb::PutRequest) -> BoxFuture<Result<pb::PutResponse>> {
///         Box::pin(async { Err(etch_client::Error::Invalid("read only".into())) })
///     }
///     fn delete_range(
///         &self, _: CallOptions, _: pb::DeleteRangeRequest,
///     ) -> BoxFuture<Result<pb::DeleteRangeResponse>> {
///         Box::pin(async { Err(etch_client::Error::Invalid("read only".into())) })
///     }
///     fn txn(&self, _: CallOptions, _: pb::TxnRequest) -> BoxFuture<Result<pb::TxnResponse>> {
///         Box::pin(async { Err(etch_client::Error::Invalid("read only".into())) })
///     }
///     fn compact(
///         &self, _: CallOptions, _: pb::CompactionRequest,
///     ) -> BoxFuture<Result<pb::CompactionResponse>> {
///         Box::pin(async { Err(etch_client::Error::Invalid("read only".into())) })
///     }
/// }
/// ```
pub trait Kv: Send + Sync + 'static {
    /// Reads keys.
    fn range(
        &self,
        options: CallOptions,
        request: pb::RangeRequest,
    ) -> BoxFuture<Result<pb::RangeResponse>>;

    /// Reads keys in pieces; concatenated they are what [`Kv::range`] answers.
    fn range_stream(&self, options: CallOptions, request: pb::RangeRequest) -> RangeStream;

    /// Writes a key.
    fn put(
        &self,
        options: CallOptions,
        request: pb::PutRequest,
    ) -> BoxFuture<Result<pb::PutResponse>>;

    /// Deletes keys.
    fn delete_range(
        &self,
        options: CallOptions,
        request: pb::DeleteRangeRequest,
    ) -> BoxFuture<Result<pb::DeleteRangeResponse>>;

    /// Compares, then does one thing or the other, at one revision.
    fn txn(
        &self,
        options: CallOptions,
        request: pb::TxnRequest,
    ) -> BoxFuture<Result<pb::TxnResponse>>;

    /// Drops the history up to a revision.
    fn compact(
        &self,
        options: CallOptions,
        request: pb::CompactionRequest,
    ) -> BoxFuture<Result<pb::CompactionResponse>>;
}

/// Whom a builder asks when it is awaited, and how.
#[derive(Clone)]
pub struct Bound {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) options: CallOptions,
}

/// Options of the call itself, for builders that can be awaited.
macro_rules! call_options {
    ($name:ident) => {
        impl $name<$crate::kv::Bound> {
            /// Sets the call's time limit, for all attempts together.
            pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
                self.to.options.timeout = Some(timeout);
                self
            }

            /// A member without a leader shall refuse.
            pub fn require_leader(mut self) -> Self {
                self.to.options.require_leader = true;
                self
            }
        }
    };
}
pub(crate) use call_options;
