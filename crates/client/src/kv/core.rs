//! The KV calls as the server is asked them, and compaction's builder.

use std::future::IntoFuture;
use std::sync::Arc;

use etch_api::pb::etcdserverpb as pb;

use super::{Bound, BoxFuture, Kv, RangeStream, call_options};
use crate::call::method::{COMPACT, DELETE_RANGE, PUT, RANGE, TXN};
use crate::call::{CallOptions, Core};
use crate::error::Result;

/// Asks the server.
#[derive(Clone)]
pub(crate) struct CoreKv(pub Arc<Core>);

macro_rules! unary {
    ($($name:ident $method:ident $request:ident $response:ident;)*) => {
        $(fn $name(
            &self,
            options: CallOptions,
            request: pb::$request,
        ) -> BoxFuture<Result<pb::$response>> {
            let core = self.0.clone();
            Box::pin(async move { core.call(&options, &$method, request).await })
        })*
    };
}

impl Kv for CoreKv {
    unary! {
        range RANGE RangeRequest RangeResponse;
        put PUT PutRequest PutResponse;
        delete_range DELETE_RANGE DeleteRangeRequest DeleteRangeResponse;
        compact COMPACT CompactionRequest CompactionResponse;
    }

    fn txn(
        &self,
        options: CallOptions,
        request: pb::TxnRequest,
    ) -> BoxFuture<Result<pb::TxnResponse>> {
        let core = self.0.clone();
        // What only reads may be asked again. Go's client does not.
        let method = if reads_only(&request) { &crate::call::method::TXN_READ } else { &TXN };
        Box::pin(async move { core.call(&options, method, request).await })
    }

    fn range_stream(&self, options: CallOptions, request: pb::RangeRequest) -> RangeStream {
        RangeStream::from_server(self.0.clone(), options, request)
    }
}

pub(crate) fn reads_only(request: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(inner)) => reads_only(inner),
        _ => false,
    })
}

/// A compaction. Await it.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let answer = client.put("color", "blue").await?;
/// let revision = answer.header.map_or(0, |header| header.revision);
/// client.compact(revision).physical().await?;
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Compact<T = ()> {
    pub(crate) to: T,
    pub(crate) request: pb::CompactionRequest,
}

impl<T> Compact<T> {
    /// Answers only when the history is gone from the store.
    pub fn physical(mut self) -> Self {
        self.request.physical = true;
        self
    }
}

impl IntoFuture for Compact<Bound> {
    type Output = Result<pb::CompactionResponse>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.to.kv.compact(self.to.options, self.request)
    }
}

call_options!(Compact);
