//! The server of one HTTP/1.1 connection, with bounds on what a peer may take: time for its headers, their
//! size, the size of a body. Not here: what is answered.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use etch_rpc::{BoxError, PlainBody};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::pages::{Member, Pages, Site};

/// What a connection may take.
#[derive(Clone, Debug)]
pub struct Http1Limits {
    /// Time for the headers of a request; an idle connection is closed after it, too.
    pub header_time: Duration,
    /// Bytes of the headers of a request (at least 8 KiB).
    pub header_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Time for the body of a request.
    pub body_time: Duration,
    /// Bytes of the body of a request.
    pub body_bytes: usize,
}

impl Default for Http1Limits {
    fn default() -> Http1Limits {
        Http1Limits {
            header_time: Duration::from_secs(60),
            header_bytes: 64 * 1024,
            headers: 100,
            body_time: Duration::from_secs(60),
            body_bytes: 2 << 20,
        }
    }
}

/// Serves a connection until its peer closes it, breaks a bound, or `shutdown` completes: then the request
/// under way is answered, and the connection closed.
pub async fn serve_http1<IO, H, F>(
    io: IO,
    limits: &Http1Limits,
    shutdown: impl Future<Output = ()>,
    handler: H,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Bytes>) -> F,
    F: Future<Output = Response<Bytes>>,
{
    let handler = &handler;
    let answer = async |request: Request<Incoming>| match whole(request, limits).await {
        Ok(request) => handler(request).await.map(Full::new),
        Err(status) => refused(status).map(Full::new),
    };
    serve(io, limits, shutdown, answer).await
}

/// The same, with bodies that come and go bit by bit.
async fn serve<IO, B>(
    io: IO,
    limits: &Http1Limits,
    shutdown: impl Future<Output = ()>,
    answer: impl AsyncFn(Request<Incoming>) -> Response<B>,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    const LEAST_BUFFER: usize = 8 * 1024;
    let answer = &answer;
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER))
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = shutdown => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Serves a connection with the pages of its port, once `first` has seen that a request is not for it.
pub async fn serve_port<IO, M>(
    io: IO,
    site: &Site<M>,
    pages: Pages,
    first: impl AsyncFn(Parts, PlainBody) -> Result<Response<PlainBody>, (Parts, PlainBody)>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    M: Member,
{
    let limits = Http1Limits::default();
    let first = &first;
    let answer = async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let (head, body) = match first(head, Box::pin(body.map_err(Into::into))).await {
            Ok(response) => return response,
            Err(request) => request,
        };
        let page = match whole(Request::from_parts(head, body), &limits).await {
            Ok(request) => site.respond(pages, &request.into_parts().0).await,
            Err(status) => refused(status),
        };
        page.map(|body| Box::pin(Full::new(body).map_err(Into::into)) as PlainBody)
    };
    serve(io, &limits, shutdown, answer).await.map_err(std::io::Error::other)
}

/// The request with all of its body.
async fn whole<B>(request: Request<B>, limits: &Http1Limits) -> Result<Request<Bytes>, StatusCode>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(Request::from_parts(head, Bytes::new()));
    }
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let read = Limited::new(body, limits.body_bytes).collect();
    match tokio::time::timeout(limits.body_time, read).await {
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Ok(Ok(body)) => Ok(Request::from_parts(head, body.to_bytes())),
    }
}

fn refused(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::default();
    *response.status_mut() = status;
    let close = http::HeaderValue::from_static("close");
    response.headers_mut().insert(http::header::CONNECTION, close);
    response
}
