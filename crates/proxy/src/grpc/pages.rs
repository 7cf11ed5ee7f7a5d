//! What can be asked over plain HTTP: health, metrics, and calls in JSON. Not here: gRPC, and how a call in JSON is
//! made (`etch_transcode`).

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_api::pb::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use etch_host::{log_warn, profile};
use etch_rpc::{Peer, PlainBody};
use etch_transcode::{Gate, allow_origin};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Proxy;
use super::forward::Front;

/// The kinds of pages.
const METRICS: &str = "text/plain; version=0.0.4";
const PLAIN: &str = "text/plain; charset=utf-8";
/// The cluster may take so long to show that it is well.
const HEALTH_WITHIN: Duration = Duration::from_secs(1);
/// And so long to begin a watch.
const WATCH_WITHIN: Duration = Duration::from_secs(3);
/// Time for the headers of a request; an idle connection is closed after it, too.
const HEADERS_WITHIN: Duration = Duration::from_secs(60);

/// Serves one connection until it ends, or the proxy stops.
pub(super) async fn serve<IO>(
    io: IO,
    front: Rc<Front>,
    peer: Rc<Peer>,
    stopped: impl Future<Output = ()>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (front, peer) = (Rc::clone(&front), Rc::clone(&peer));
        async move {
            let (head, body) = request.into_parts();
            let body = Box::pin(body.map_err(Into::into));
            Ok::<_, Infallible>(answer(&front, &peer, head, body).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A connection that fails concerns nobody but its client.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// An answer of these bytes.
pub(super) fn whole(body: Bytes) -> PlainBody {
    Box::pin(Full::new(body).map_err(Into::into))
}

/// The answer to a request: a call in JSON goes the way of all calls, anything else is a page.
pub(super) async fn answer(
    front: &Rc<Front>,
    peer: &Rc<Peer>,
    mut head: Parts,
    body: PlainBody,
) -> Response<PlainBody> {
    let proxy = &front.proxy;
    etch_transcode::modernize(&mut head);
    if front.pages_only || !etch_transcode::is_for_gateway(&head) {
        return respond(proxy, &head.method, &head.uri).await.map(whole);
    }
    let mut response = if head.method == Method::OPTIONS {
        Response::new(whole(Bytes::new()))
    } else {
        let (common, stop) = (Arc::clone(&proxy.json), proxy.stop.clone());
        let gate = Gate::new(common, Rc::clone(front), Rc::clone(peer), stop);
        gate.respond(&mut head, body).await
    };
    // As a member does that was not told whose pages may ask.
    allow_origin(HeaderValue::from_static("*"), response.headers_mut());
    response
}

/// One page.
async fn respond(proxy: &Proxy, method: &Method, uri: &Uri) -> Response<Bytes> {
    match uri.path() {
        "/metrics" => match proxy.upstream.page("/metrics").await {
            Ok(text) => page(StatusCode::OK, METRICS, text),
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
        },
        "/proxy/metrics" => page(StatusCode::OK, METRICS, super::metrics::text(proxy)),
        "/health" | "/proxy/health" if method != Method::GET => {
            let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            refused
        }
        "/health" => told(proxy, well(proxy).await),
        "/proxy/health" => told(proxy, proxy_well(proxy).await),
        path if path.starts_with("/debug/pprof/") && proxy.pprof => profile(uri.clone()).await,
        _ => error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// A page below `/debug/pprof/`.
async fn profile(uri: Uri) -> Response<Bytes> {
    let made = tokio::task::spawn_blocking(move || profile::answer(uri.path(), uri.query()));
    let Ok(made) = made.await else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "the proxy has stopped");
    };
    let mut response = page(StatusCode::OK, made.kind, made.body);
    *response.status_mut() =
        StatusCode::from_u16(made.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// How it is, in etcd's words.
fn told(proxy: &Proxy, health: Result<(), String>) -> Response<Bytes> {
    let value = |health: &str, reason: &str| {
        let (health, reason) = (serde_json::json!(health), serde_json::json!(reason));
        format!("{{\"health\":{health},\"reason\":{reason}}}")
    };
    match health {
        Ok(()) => page(StatusCode::OK, PLAIN, value("true", "")),
        Err(why) => {
            let text = value("false", &why);
            log_warn!(proxy.log, "/health error", "output" => text, "status-code" => 503);
            error(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }
}

/// Well is who can read from the cluster, be it only to hear that the asker may not.
async fn well(proxy: &Proxy) -> Result<(), String> {
    let range = RangeRequest { key: Bytes::from_static(b"a"), ..RangeRequest::default() };
    let (headers, message) = (super::forward::own_headers(), range.encode_to_vec().into());
    let path = "/etcdserverpb.KV/Range";
    let asked = proxy.upstream.unary(path, &headers, &message, true);
    match tokio::time::timeout(HEALTH_WITHIN, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if is_about_permission(&status.message) => Ok(()),
        Ok(Err(status)) => Err(format!("GET ERROR:{}", status.message)),
        Err(_) => Err("GET ERROR:context deadline exceeded".to_owned()),
    }
}

/// The proxy is well if it can also watch.
async fn proxy_well(proxy: &Proxy) -> Result<(), String> {
    if proxy.members.advertised.is_empty() {
        return Err("no connection to proxy".to_owned());
    }
    well(proxy).await?;
    let create = WatchCreateRequest { key: Bytes::from_static(b"a"), ..<_>::default() };
    let union = Some(RequestUnion::CreateRequest(create));
    let message = WatchRequest { request_union: union }.encode_to_vec().into();
    let headers = super::forward::own_headers();
    let watching = async {
        let path = "/etcdserverpb.Watch/Watch";
        let (mut out, mut incoming) = proxy.upstream.stream(path, &headers).await.ok()?;
        out.send(&message).await.ok()?;
        incoming.next().await.ok()
    };
    match tokio::time::timeout(WATCH_WITHIN, watching).await {
        Ok(Some(_)) => Ok(()),
        _ => Err("WATCH TIMEOUT".to_owned()),
    }
}

/// With auth on, a call without a token is refused by a cluster that is well.
fn is_about_permission(text: &str) -> bool {
    text == "etcdserver: permission denied" || text == "etcdserver: user name is empty"
}

fn page(code: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An error as Go's library sends one.
fn error(code: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = page(code, PLAIN, format!("{text}\n"));
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
