//! Writing a key.

use std::future::IntoFuture;

use etch_api::pb::etcdserverpb as pb;

use super::{Bound, BoxFuture, call_options};
use crate::bytes::IntoBytes;
use crate::error::Result;

/// A write. Await it, or put it into a transaction.
///
/// It is sent once: if the connection breaks before the answer, the error says that nobody knows
/// ([`crate::Error::may_have_happened`]).
///
/// ```
/// # etch_doctest::run(async |client| {
/// let answer = client.put("color", "blue").prev_kv().await?;
/// if let Some(before) = answer.prev_kv {
///     println!("it was {:?}", before.value);
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Put<T = ()> {
    pub(crate) to: T,
    pub(crate) request: pb::PutRequest,
}

/// A write to put into a transaction.
///
/// ```
/// use etch_client::put;
///
/// assert_eq!(put("a", "1").lease(7).into_request().lease, 7);
/// ```
pub fn put(key: impl IntoBytes, value: impl IntoBytes) -> Put {
    let (key, value) = (key.into_bytes(), value.into_bytes());
    Put { to: (), request: pb::PutRequest { key, value, ..Default::default() } }
}

impl Put {
    pub(crate) fn bind(self, to: Bound) -> Put<Bound> {
        Put { to, request: self.request }
    }
}

impl<T> Put<T> {
    /// Deletes the key when this lease ends.
    pub fn lease(mut self, lease: i64) -> Self {
        self.request.lease = lease;
        self
    }

    /// Answers what was there before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Leaves the value as it is; the one given must be empty.
    pub fn ignore_value(mut self) -> Self {
        self.request.ignore_value = true;
        self
    }

    /// Leaves the lease as it is.
    pub fn ignore_lease(mut self) -> Self {
        self.request.ignore_lease = true;
        self
    }

    /// The request as it is sent.
    pub fn into_request(self) -> pb::PutRequest {
        self.request
    }
}

impl IntoFuture for Put<Bound> {
    type Output = Result<pb::PutResponse>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.to.kv.put(self.to.options, self.request)
    }
}

call_options!(Put);
