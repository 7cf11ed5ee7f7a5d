//! A connection as tonic wants to see it, and the one thing that tonic would not tell: whether a request left.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tower_service::Service;

use super::dial::{Sender, text_of};

/// What is said of ourselves.
const USER_AGENT: &str = concat!("etch-client/", env!("CARGO_PKG_VERSION"));

/// One connection, for one call.
#[derive(Clone)]
pub(crate) struct Wire(pub Sender);

/// Why a request got no response.
#[derive(Debug)]
pub(crate) struct WireError {
    /// Whether it is certain that the server has not seen it, or will not act on it.
    pub never_left: bool,
    pub why: String,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for WireError {}

impl Service<Request<Body>> for Wire {
    type Response = Response<Incoming>;
    type Error = WireError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, WireError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let response = self.0.try_send_request(request);
        Box::pin(async move {
            response.await.map_err(|mut error| {
                // The connection hands a request back only if it has not begun to write it.
                let kept = error.take_message().is_some();
                let error = error.into_error();
                WireError { never_left: kept || is_refused_stream(&error), why: text_of(error) }
            })
        })
    }
}

/// A stream that the server refused is one that it promises not to have looked at.
fn is_refused_stream(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_reset()
                && h2.is_remote()
                && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = cause.source();
    }
    false
}
