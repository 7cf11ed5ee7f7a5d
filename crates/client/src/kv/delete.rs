//! Deleting keys.

use std::future::IntoFuture;

use etch_api::pb::etcdserverpb as pb;

use super::{Bound, BoxFuture, call_options, key_options};
use crate::bytes::IntoBytes;
use crate::error::Result;

/// A deletion: of one key, unless an option widens it. Await it, or put it into a transaction.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let answer = client.delete("tmp/").prefix().await?;
/// println!("{} keys deleted", answer.deleted);
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Delete<T = ()> {
    pub(crate) to: T,
    pub(crate) request: pb::DeleteRangeRequest,
}

/// A deletion to put into a transaction.
///
/// ```
/// use etch_client::delete;
///
/// assert!(delete("a").prev_kv().into_request().prev_kv);
/// ```
pub fn delete(key: impl IntoBytes) -> Delete {
    let key = key.into_bytes();
    Delete { to: (), request: pb::DeleteRangeRequest { key, ..Default::default() } }
}

impl Delete {
    pub(crate) fn bind(self, to: Bound) -> Delete<Bound> {
        Delete { to, request: self.request }
    }
}

impl<T> Delete<T> {
    key_options!(request);

    /// Answers what was there before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// The request as it is sent.
    pub fn into_request(self) -> pb::DeleteRangeRequest {
        self.request
    }
}

impl IntoFuture for Delete<Bound> {
    type Output = Result<pb::DeleteRangeResponse>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.to.kv.delete_range(self.to.options, self.request)
    }
}

call_options!(Delete);
