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
///
/// ```
/// let answer: etch_client::BoxFuture<u8> = Box::pin(async { 7 });
/// # drop(answer);
/// ```
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A stream on the heap.
///
/// ```
/// let numbers: etch_client::BoxStream<u8> = Box::pin(futures_util::stream::iter([1, 2, 3]));
/// # drop(numbers);
/// ```
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
///
/// ```
/// // What a client's builders are bound to; those that are made for a transaction are bound to nothing.
/// fn hurried(get: etch_client::Get<etch_client::Bound>) -> etch_client::Get<etch_client::Bound> {
///     get.timeout(std::time::Duration::from_millis(100))
/// }
/// # let _ = hurried;
/// ```
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

/// Which keys, for builders whose request has a key and a range's end.
macro_rules! key_options {
    ($($field:ident).+) => {
        /// All keys that begin with the key.
        pub fn prefix(mut self) -> Self {
            let key = std::mem::take(&mut self.$($field).+.key);
            let range = etch_api::KeyRange::prefix(key);
            (self.$($field).+.key, self.$($field).+.range_end) = range.to_parts();
            self
        }

        /// All keys from the key on up to, and without, this end.
        pub fn range(mut self, end: impl $crate::IntoBytes) -> Self {
            self.$($field).+.range_end = end.into_bytes();
            self
        }

        /// All keys from the key on.
        pub fn from_key(mut self) -> Self {
            if self.$($field).+.key.is_empty() {
                self.$($field).+.key = bytes::Bytes::from_static(b"\0");
            }
            self.$($field).+.range_end = bytes::Bytes::from_static(b"\0");
            self
        }
    };
}
pub(crate) use key_options;
