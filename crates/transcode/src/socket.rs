//! WebSocket: each message is a request of the stream, each line of the answer a message. Not here: frames
//! (`etch_json::websocket`), and what a call does (`call`).

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use etch_json::websocket::{self, Message, Reader};
use etch_rpc::{Handler, PlainBody};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::body::RequestBody;
use crate::call::stopped;
use crate::{Gate, whole};

/// Bytes of one message of a client.
const MAX_MESSAGE: usize = 4 << 20;
/// Requests that may wait for the call; more are not read meanwhile.
const WAITING: usize = 16;
/// A client that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a request would like to go on as WebSocket.
pub fn is_asked_for(head: &Parts) -> bool {
    let has = |name: HeaderName, token: &str| {
        let values = head.headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        let mut tokens = values.flat_map(|value| value.split(',')).map(str::trim);
        tokens.any(|given| given.eq_ignore_ascii_case(token))
    };
    head.version <= Version::HTTP_11 && has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

fn wrong(status: StatusCode) -> Response<PlainBody> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The token of such a request, which browsers cannot put where others have it.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).map(str::trim);
    if let Some(token) = pairs.find_map(|pair| pair.strip_prefix("token=")) {
        return HeaderValue::from_str(&format!("Bearer {token}")).ok();
    }
    let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    match protocol.and_then(|value| value.split_once("Bearer,")) {
        Some((_, token)) => HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok(),
        None => headers.get(AUTHORIZATION).cloned(),
    }
}

impl<H: Handler> Gate<H> {
    /// Agrees to go on as WebSocket, and does in a task of its own.
    pub(super) fn socket(&self, head: &mut Parts) -> Response<PlainBody> {
        if head.method != Method::GET {
            return wrong(StatusCode::METHOD_NOT_ALLOWED);
        }
        let headers = &head.headers;
        let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
        let is_13 = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let (Some(key), true) = (key, is_13) else { return wrong(StatusCode::BAD_REQUEST) };
        let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
            return wrong(StatusCode::BAD_REQUEST);
        };
        let mut response = Response::new(whole(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::from_str(&websocket::accept(key)) {
            answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).map(HeaderValue::as_bytes);
        if protocol.is_some_and(|protocol| protocol.starts_with(b"Bearer")) {
            answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
        }
        let mut inner = http::Request::new(()).into_parts().0;
        inner.method = Method::POST;
        inner.uri = head.uri.clone();
        if let Some(token) = token(headers) {
            inner.headers.insert(AUTHORIZATION, token);
        }
        let gate = self.clone();
        tokio::task::spawn_local(async move {
            // A connection that fails concerns nobody but its client.
            let Ok(upgraded) = upgrade.await else { return };
            let stopped = stopped(&gate.stop);
            tokio::select! {
                _ = gate.talk(upgraded, inner) => {}
                () = stopped => {}
            }
        });
        response
    }

    /// Both directions of a connection, until either ends.
    async fn talk(&self, upgraded: Upgraded, head: Parts) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let endpoint = self.common.gateway.endpoint(head.uri.path()).cloned();
        let serving = self.call(endpoint, &head, RequestBody::from_channel(receiver));
        let mut serving = Box::pin(serving);
        let mut talk = Talk::new(upgraded, sender);
        let mut answer: Option<PlainBody> = None;
        loop {
            tokio::select! {
                response = &mut serving, if answer.is_none() => answer = Some(response.into_body()),
                frame = next_frame(&mut answer) => match frame {
                    Some(data) => talk.say(&data),
                    None => talk.end(),
                },
                heard = talk.listen() => heard?,
            }
            talk.flush().await?;
            if talk.ended {
                return Ok(());
            }
        }
    }
}

/// The next bytes of the answer, once there is one.
async fn next_frame(answer: &mut Option<PlainBody>) -> Option<Bytes> {
    let Some(body) = answer else { return std::future::pending().await };
    loop {
        let frame = body.frame().await?.ok()?;
        if let Ok(data) = frame.into_data() {
            return Some(data);
        }
    }
}

/// A connection as WebSocket.
struct Talk {
    read: ReadHalf<TokioIo<Upgraded>>,
    write: WriteHalf<TokioIo<Upgraded>>,
    frames: Reader,
    buffer: BytesMut,
    /// Requests that the call has no room for.
    waiting: VecDeque<Bytes>,
    /// The client's side of the call.
    sender: mpsc::Sender<Bytes>,
    /// Of the answer, what is not a whole line.
    line: BytesMut,
    /// Frames that are to be written.
    out: Vec<u8>,
    /// Nothing comes after what is to be written.
    ended: bool,
}

impl Talk {
    fn new(upgraded: Upgraded, sender: mpsc::Sender<Bytes>) -> Self {
        let (read, write) = tokio::io::split(TokioIo::new(upgraded));
        Self {
            read,
            write,
            frames: Reader::new(MAX_MESSAGE),
            buffer: BytesMut::with_capacity(4096),
            waiting: VecDeque::new(),
            sender,
            line: BytesMut::new(),
            out: Vec::new(),
            ended: false,
        }
    }

    /// Takes what the client says, or hands on what it said before. May be dropped at any await without loss.
    async fn listen(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            // A call that takes no more requests may still answer.
            let Ok(permit) = self.sender.reserve().await else {
                return std::future::pending().await;
            };
            if let Some(request) = self.waiting.pop_front() {
                permit.send(request);
            }
            return Ok(());
        }
        if self.read.read_buf(&mut self.buffer).await? == 0 {
            self.ended = true;
            return Ok(());
        }
        self.frames.push(&self.buffer.split());
        while !self.ended {
            match self.frames.take_next() {
                Ok(None) => break,
                Ok(Some(Message::Data(mut data))) => {
                    data.push(b'\n');
                    self.waiting.push_back(data.into());
                }
                Ok(Some(Message::Ping(content))) => websocket::pong(&content, &mut self.out),
                Ok(Some(Message::Close(code))) => self.close(code),
                Err(broken) => self.close(Some(broken.0)),
            }
        }
        Ok(())
    }

    /// Each whole line as a message.
    fn say(&mut self, data: &[u8]) {
        self.line.extend_from_slice(data);
        while let Some(end) = self.line.iter().position(|c| *c == b'\n') {
            let line = self.line.split_to(end + 1);
            websocket::text(&line[..end], &mut self.out);
        }
    }

    /// Says what is left, and goodbye.
    fn end(&mut self) {
        if !self.line.is_empty() {
            websocket::text(&self.line.split(), &mut self.out);
        }
        self.close(Some(1000));
    }

    fn close(&mut self, code: Option<u16>) {
        websocket::close(code, &mut self.out);
        self.ended = true;
    }

    async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        let writing = async {
            self.write.write_all(&out).await?;
            self.write.flush().await
        };
        tokio::time::timeout(PATIENCE, writing).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_token_comes_as_a_cookie_or_as_a_protocol() {
        let of = |pairs: &[_]| token(&headers(pairs)).map(|t| t.to_str().unwrap_or("").to_owned());
        assert_eq!(of(&[("sec-websocket-protocol", "Bearer, t.1")]).as_deref(), Some("Bearer t.1"));
        assert_eq!(of(&[("sec-websocket-protocol", "Bearer,t.1")]).as_deref(), Some("Bearer t.1"));
        assert_eq!(of(&[("cookie", "a=b; token=t.2")]).as_deref(), Some("Bearer t.2"));
        assert_eq!(of(&[("authorization", "t.3")]).as_deref(), Some("t.3"));
        assert_eq!(of(&[("sec-websocket-protocol", "json")]), None);
    }

    #[test]
    fn an_upgrade_is_seen_among_other_words() {
        let mut head = http::Request::new(()).into_parts().0;
        head.headers = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(is_asked_for(&head));
        head.headers.remove("upgrade");
        assert!(!is_asked_for(&head));
    }
}
