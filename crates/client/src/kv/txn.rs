//! Transactions: comparisons, then one branch or the other, at one revision.

use std::future::IntoFuture;

use etch_api::pb::etcdserverpb as pb;
use pb::request_op::Request;

use super::{Bound, BoxFuture, Comparison, Delete, Get, Put, call_options};
use crate::error::Result;

/// A transaction. Await it, or put it into another.
///
/// ```
/// use etch_client::{Compare, put, get};
///
/// # etch_doctest::run(async |client| {
/// let answer = client
///     .txn()
///     .when(Compare::mod_revision("config").equal(41))
///     .then(put("config", "new"))
///     .otherwise(get("config"))
///     .await?;
/// if !answer.succeeded {
///     println!("somebody was quicker: {:?}", answer.responses);
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Txn<T = ()> {
    pub(crate) to: T,
    pub(crate) request: pb::TxnRequest,
}

/// A transaction to put into another.
///
/// ```
/// use etch_client::{Compare, delete, put, txn};
///
/// let inner = txn().when(Compare::version("a").greater(0)).then(delete("a"));
/// let outer = txn().then(put("b", "1")).then(inner).into_request();
/// assert_eq!(outer.success.len(), 2);
/// ```
pub fn txn() -> Txn {
    Txn { to: (), request: pb::TxnRequest::default() }
}

impl Txn {
    pub(crate) fn bind(self, to: Bound) -> Txn<Bound> {
        Txn { to, request: self.request }
    }
}

impl<T> Txn<T> {
    /// One more comparison; all have to hold.
    pub fn when(mut self, comparison: impl Into<Comparison>) -> Self {
        self.request.compare.push(comparison.into().0);
        self
    }

    /// Several comparisons.
    pub fn when_all<C: Into<Comparison>>(
        mut self,
        comparisons: impl IntoIterator<Item = C>,
    ) -> Self {
        self.request.compare.extend(comparisons.into_iter().map(|c| c.into().0));
        self
    }

    /// Does this if the comparisons hold.
    pub fn then(mut self, op: impl Into<Op>) -> Self {
        self.request.success.push(op.into().0);
        self
    }

    /// Does these if the comparisons hold.
    pub fn then_all<O: Into<Op>>(mut self, ops: impl IntoIterator<Item = O>) -> Self {
        self.request.success.extend(ops.into_iter().map(|op| op.into().0));
        self
    }

    /// Does this if one of the comparisons does not hold.
    pub fn otherwise(mut self, op: impl Into<Op>) -> Self {
        self.request.failure.push(op.into().0);
        self
    }

    /// Does these if one of the comparisons does not hold.
    pub fn otherwise_all<O: Into<Op>>(mut self, ops: impl IntoIterator<Item = O>) -> Self {
        self.request.failure.extend(ops.into_iter().map(|op| op.into().0));
        self
    }

    /// The request as it is sent.
    pub fn into_request(self) -> pb::TxnRequest {
        self.request
    }
}

impl IntoFuture for Txn<Bound> {
    type Output = Result<pb::TxnResponse>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.to.kv.txn(self.to.options, self.request)
    }
}

call_options!(Txn);

/// One thing that a transaction does.
///
/// ```
/// use etch_client::{Op, delete, get, put, txn};
///
/// let all: Vec<Op> = vec![put("a", "1").into(), get("b").into(), delete("c").into()];
/// assert_eq!(txn().then_all(all).into_request().success.len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Op(pub(crate) pb::RequestOp);

impl From<Op> for pb::RequestOp {
    fn from(op: Op) -> pb::RequestOp {
        op.0
    }
}

macro_rules! op_from {
    ($($builder:ident $message:ident $variant:ident;)*) => {
        $(
            impl<T> From<$builder<T>> for Op {
                fn from(builder: $builder<T>) -> Op {
                    builder.request.into()
                }
            }

            impl From<pb::$message> for Op {
                fn from(request: pb::$message) -> Op {
                    Op(pb::RequestOp { request: Some(Request::$variant(request)) })
                }
            }
        )*
    };
}

op_from! {
    Get RangeRequest RequestRange;
    Put PutRequest RequestPut;
    Delete DeleteRangeRequest RequestDeleteRange;
    Txn TxnRequest RequestTxn;
}
