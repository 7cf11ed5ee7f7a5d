//! Calls that come as JSON, over HTTP or WebSocket, put into the same entry points as those of gRPC: which
//! requests are meant, what of their HTTP becomes a call, and what an answer looks like.
//!
//! Here: one [`Gate`] a connection, over whatever answers calls (an [`etch_rpc::Handler`]): a member, or a proxy
//! before a cluster. Not here: JSON itself and the routes (`etch_json`), sockets, who may ask at all.

#![forbid(unsafe_code)]

mod body;
mod call;
mod socket;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_json::{Endpoint, Gateway};
use etch_rpc::{CallInfo, Code, Handler, Peer, PlainBody, Status};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;

use body::RequestBody;

/// Where the routes are.
pub const PREFIX: &str = "/v3/";
/// Where they were once, and are still found.
const OLD_PREFIX: &str = "/v3beta/";
/// Where their description is.
const DOCUMENT: &str = "/openapi.json";
/// What a call says of itself that came as JSON.
const GATEWAY_ACCEPT: HeaderName = HeaderName::from_static("grpcgateway-accept");
const GRPC_CONTENT: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// Says whose pages may read an answer.
pub fn allow_origin(origin: HeaderValue, headers: &mut HeaderMap) {
    let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
    let allowed = HeaderValue::from_static("accept, content-type, authorization");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
}

/// What all gates of a process share.
pub struct Common {
    /// The routes and their messages.
    pub gateway: Gateway,
    /// The version that the description of the routes names.
    pub version: &'static str,
    /// Bytes of a request, as it would be over gRPC.
    pub max_message: usize,
}

/// One connection's way into the calls.
pub struct Gate<H> {
    common: Arc<Common>,
    /// Who answers.
    handler: Rc<H>,
    /// Who is at the other end.
    peer: Rc<Peer>,
    /// Turns true when the process stops.
    stop: watch::Receiver<bool>,
}

impl<H> Clone for Gate<H> {
    fn clone(&self) -> Self {
        Self {
            common: Arc::clone(&self.common),
            handler: Rc::clone(&self.handler),
            peer: Rc::clone(&self.peer),
            stop: self.stop.clone(),
        }
    }
}

/// An answer of these bytes.
fn whole(body: impl Into<Bytes>) -> PlainBody {
    Box::pin(Full::new(body.into()).map_err(Into::into))
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<PlainBody> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn http_status(code: Code) -> StatusCode {
    let status = etch_json::http_status(code as u32);
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The answer of a call that failed before there was anything to say.
fn refused(status: &Status) -> Response<PlainBody> {
    let body = etch_json::error(status.code as u32, &status.message);
    let mut response = json(http_status(status.code), body);
    if status.code == Code::Unauthenticated
        && let Ok(why) = HeaderValue::from_str(&status.message)
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, why);
    }
    response
}

/// Gives a request of old the path that it has today.
pub fn modernize(head: &mut Parts) {
    if let Some(rest) = head.uri.path().strip_prefix(OLD_PREFIX) {
        head.uri = moved(&head.uri, &format!("{PREFIX}{rest}"));
    }
}

/// Whether a request is for a gate.
pub fn is_for_gateway(head: &Parts) -> bool {
    let path = head.uri.path();
    path.starts_with(PREFIX) || path == DOCUMENT
}

impl<H: Handler> Gate<H> {
    /// For a connection with this peer.
    pub fn new(
        common: Arc<Common>,
        handler: Rc<H>,
        peer: Rc<Peer>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { common, handler, peer, stop }
    }

    /// The answer to a request that is for a gate.
    pub async fn respond(&self, head: &mut Parts, body: PlainBody) -> Response<PlainBody> {
        let gateway = &self.common.gateway;
        if head.uri.path() == DOCUMENT {
            let text = etch_json::document(gateway, self.common.version);
            json(StatusCode::OK, text.into_bytes())
        } else if socket::is_asked_for(head) {
            self.socket(head)
        } else {
            let endpoint = gateway.endpoint(head.uri.path()).cloned();
            self.call(endpoint, head, RequestBody::new(body)).await
        }
    }

    /// A request whose path is under the prefix.
    async fn call(
        &self,
        endpoint: Option<Endpoint>,
        head: &Parts,
        body: RequestBody,
    ) -> Response<PlainBody> {
        let Some(endpoint) = endpoint else {
            return refused(&Status::new(Code::NotFound, "Not Found"));
        };
        if head.method != Method::POST {
            return refused(&Status::new(Code::Unimplemented, "Method Not Allowed"));
        }
        let deadline = match head.headers.get("grpc-timeout").map(timeout) {
            None => None,
            Some(Some(timeout)) => Instant::now().checked_add(timeout),
            Some(None) => {
                let given = head.headers["grpc-timeout"].to_str().unwrap_or_default();
                let text = format!("invalid grpc-timeout: {given}");
                return refused(&Status::new(Code::InvalidArgument, text));
            }
        };
        // Not by the name in a certificate, which counts in gRPC alone.
        let peer = Peer { remote: self.peer.remote, local: self.peer.local, ..Peer::default() };
        let info = CallInfo::new(metadata(&head.headers), Rc::new(peer), deadline);
        self.serve(&endpoint, info, body).await
    }
}

/// The same with another path.
fn moved(uri: &Uri, path: &str) -> Uri {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    target.parse().unwrap_or_else(|_| uri.clone())
}

/// What of a request's headers a call gets to see.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    const GIVEN: &str = "grpc-metadata-";
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let given = name.as_str().strip_prefix(GIVEN).map(HeaderName::try_from);
        if let Some(Ok(name)) = given {
            out.append(name, value.clone());
        }
    }
    if let Some(token) = headers.get(AUTHORIZATION) {
        out.insert(AUTHORIZATION, token.clone());
    }
    let accept = headers.get(http::header::ACCEPT);
    let accept = accept.cloned().unwrap_or(HeaderValue::from_static("*/*"));
    out.insert(GATEWAY_ACCEPT, accept);
    out
}

/// gRPC's time limits: a number and a letter for its unit.
fn timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_those_of_grpc() {
        let read = |text: &'static str| timeout(&HeaderValue::from_static(text));
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("20m"), Some(Duration::from_millis(20)));
        for bad in ["", "5", "S", "5x", "-5S", "99999999999999999999S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_call_sees_the_token_and_what_is_meant_for_it() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("t.1"));
        headers.insert("grpc-metadata-hasleader", HeaderValue::from_static("true"));
        headers.insert("cookie", HeaderValue::from_static("secret"));
        let seen = metadata(&headers);
        assert_eq!(seen["authorization"], "t.1");
        assert_eq!(seen["hasleader"], "true");
        assert_eq!(seen["grpcgateway-accept"], "*/*");
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn the_old_prefix_leads_to_the_new_one() {
        let uri: Uri = "/v3beta/kv/put?x=1".parse().expect("a path");
        assert_eq!(moved(&uri, "/v3/kv/put"), "/v3/kv/put?x=1");
    }
}
