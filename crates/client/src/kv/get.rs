//! Reading keys.

use std::future::IntoFuture;

use etch_api::pb::etcdserverpb as pb;
pub use etch_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::{Bound, BoxFuture, RangeStream, call_options, key_options};
use crate::bytes::IntoBytes;
use crate::error::Result;

/// A read: of one key, unless an option widens it. Await it, or put it into a transaction.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let answer = client.get("services/").prefix().limit(10).await?;
/// for kv in &answer.kvs {
///     println!("{:?} = {:?}, written at {}", kv.key, kv.value, kv.mod_revision);
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Get<T = ()> {
    pub(crate) to: T,
    pub(crate) request: pb::RangeRequest,
}

/// A read to put into a transaction.
///
/// ```
/// use etch_client::{get, txn};
///
/// let request = txn().then(get("a/").prefix()).into_request();
/// assert_eq!(request.success.len(), 1);
/// ```
pub fn get(key: impl IntoBytes) -> Get {
    Get { to: (), request: pb::RangeRequest { key: key.into_bytes(), ..Default::default() } }
}

impl Get {
    pub(crate) fn bind(self, to: Bound) -> Get<Bound> {
        Get { to, request: self.request }
    }
}

impl<T> Get<T> {
    key_options!(request);

    /// As it was at this revision.
    pub fn rev(mut self, revision: i64) -> Self {
        self.request.revision = revision;
        self
    }

    /// At most this many keys; zero for all.
    pub fn limit(mut self, limit: i64) -> Self {
        self.request.limit = limit;
        self
    }

    /// In this order.
    pub fn sort(mut self, by: SortTarget, order: SortOrder) -> Self {
        // By key, ascending, is how the server answers anyway, and without sorting.
        let default = by == SortTarget::Key && order == SortOrder::Ascend;
        self.request.sort_target = by as i32;
        self.request.sort_order = if default { SortOrder::None } else { order } as i32;
        self
    }

    /// From the asked member's own state, without asking the others: quicker, and possibly old.
    pub fn serializable(mut self) -> Self {
        self.request.serializable = true;
        self
    }

    /// Without the values.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Only how many there are.
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// Only keys written at this revision or later.
    pub fn min_mod_rev(mut self, revision: i64) -> Self {
        self.request.min_mod_revision = revision;
        self
    }

    /// Only keys written at this revision or before.
    pub fn max_mod_rev(mut self, revision: i64) -> Self {
        self.request.max_mod_revision = revision;
        self
    }

    /// Only keys created at this revision or later.
    pub fn min_create_rev(mut self, revision: i64) -> Self {
        self.request.min_create_revision = revision;
        self
    }

    /// Only keys created at this revision or before.
    pub fn max_create_rev(mut self, revision: i64) -> Self {
        self.request.max_create_revision = revision;
        self
    }

    /// Of all keys that begin with the key, the first in this order.
    pub fn first(self, by: SortTarget) -> Self {
        self.prefix().sort(by, SortOrder::Ascend).limit(1)
    }

    /// Of all keys that begin with the key, the last in this order.
    pub fn last(self, by: SortTarget) -> Self {
        self.prefix().sort(by, SortOrder::Descend).limit(1)
    }

    /// The request as it is sent.
    pub fn into_request(self) -> pb::RangeRequest {
        self.request
    }
}

impl Get<Bound> {
    /// Reads in pieces, all at one revision: for more than should be in memory at once.
    ///
    /// Where the server has `RangeStream` (etcd 3.7, etch) it is asked for that, otherwise page by page. A page has
    /// 1000 keys unless [`RangeStream::page`] says otherwise. Dropping the stream ends the work on the server.
    ///
    /// ```
    /// # etch_doctest::run(async |client| {
    /// let mut pieces = client.get("logs/").prefix().stream();
    /// while let Some(piece) = pieces.next().await {
    ///     println!("{} keys", piece?.kvs.len());
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub fn stream(self) -> RangeStream {
        self.to.kv.range_stream(self.to.options, self.request)
    }
}

impl IntoFuture for Get<Bound> {
    type Output = Result<pb::RangeResponse>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.to.kv.range(self.to.options, self.request)
    }
}

call_options!(Get);
