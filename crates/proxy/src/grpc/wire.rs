//! gRPC's frames on one HTTP/2 stream towards the cluster: messages out, messages and a status in. Not here:
//! which stream (`upstream`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use etch_rpc::{Code, Payload, Status};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::upstream::Failed;

/// Compression flag and length, in front of each message.
const PREFIX: usize = 5;

/// The answer to a unary call: one message, in the pieces that it came in.
pub(crate) struct Answer(VecDeque<Bytes>);

impl Answer {
    /// To be sent on as it is.
    pub(crate) fn payload(self) -> Payload {
        Payload::pieces(self.0.into())
    }

    /// In one piece.
    pub(crate) fn bytes(mut self) -> Bytes {
        if self.0.len() == 1 {
            return self.0.pop_front().unwrap_or_default();
        }
        self.0
            .into_iter()
            .fold(BytesMut::new(), |mut all, piece| {
                all.put(piece);
                all
            })
            .freeze()
    }
}

fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The messages that we send.
pub(crate) struct Outgoing(SendStream<Bytes>);

impl Outgoing {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self(stream)
    }

    /// The only message. Its size is bounded, so it need not wait for the window.
    pub(super) fn send_whole(&mut self, message: &Bytes) -> Result<(), h2::Error> {
        self.0.send_data(framed(message), true)
    }

    /// One message of many; waits for the other side's window.
    pub(crate) async fn send(&mut self, message: &Bytes) -> Result<(), Status> {
        let mut frame = framed(message);
        while frame.has_remaining() {
            self.0.reserve_capacity(frame.len());
            let room = match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                Some(Ok(room)) => room.min(frame.len()),
                Some(Err(error)) => return Err(broken(&error)),
                None => return Err(Status::new(Code::Unavailable, "the stream has ended")),
            };
            let piece = frame.split_to(room);
            self.0.send_data(piece, false).map_err(|error| broken(&error))?;
        }
        Ok(())
    }

    /// No more messages.
    pub(crate) fn end(&mut self) {
        // A stream that is over hears no end.
        let _ = self.0.send_data(Bytes::new(), true);
    }
}

/// The messages that come, and how the call ended.
pub(crate) struct Incoming {
    answer: Option<ResponseFuture>,
    body: Option<RecvStream>,
    held: BytesMut,
    max: usize,
    /// Tells that the connection is in use.
    _busy: Rc<()>,
}

impl Incoming {
    pub(super) fn new(answer: ResponseFuture, max: usize, busy: Rc<()>) -> Self {
        Self { answer: Some(answer), body: None, held: BytesMut::new(), max, _busy: busy }
    }

    /// Waits until the call is answered at all.
    pub(crate) async fn opened(&mut self) -> Result<(), Status> {
        self.head().await.map_err(Failed::status)
    }

    async fn head(&mut self) -> Result<(), Failed> {
        // Kept until it is there: whoever waits may give up and come back.
        let Some(answer) = &mut self.answer else { return Ok(()) };
        let answered = answer.await;
        self.answer = None;
        let (head, body) = answered.map_err(|error| failed(&error))?.into_parts();
        if head.headers.contains_key("grpc-status") {
            let status = status_of(&head.headers);
            return if status.is_ok() { Ok(()) } else { Err(Failed::Refused(status)) };
        }
        if head.status != http::StatusCode::OK {
            let why = format!("unexpected HTTP status code received from server: {}", head.status);
            return Err(Failed::Refused(Status::new(Code::Unavailable, why)));
        }
        self.body = Some(body);
        Ok(())
    }

    /// The whole answer of a unary call.
    pub(super) async fn whole(mut self) -> Result<Answer, Failed> {
        self.head().await?;
        let Some(body) = &mut self.body else {
            return Err(Failed::Refused(Status::new(
                Code::Internal,
                "an answer without a message",
            )));
        };
        let mut pieces = VecDeque::new();
        let mut len = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(|error| failed(&error))?;
            let _ = body.flow_control().release_capacity(piece.len());
            len += piece.len();
            if len > self.max.saturating_add(PREFIX) {
                return Err(Failed::Refused(too_large(len - PREFIX, self.max)));
            }
            pieces.push_back(piece);
        }
        let trailers = body.trailers().await.map_err(|error| failed(&error))?;
        let Some(trailers) = trailers else {
            return Err(Failed::Lost("the answer has no end".to_owned()));
        };
        let status = status_of(&trailers);
        if !status.is_ok() {
            return Err(Failed::Refused(status));
        }
        without_prefix(pieces, len).ok_or_else(|| {
            Failed::Refused(Status::new(Code::Internal, "an answer that is no message"))
        })
    }

    /// The next message; none where the call has ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.opened().await?;
        loop {
            if let Some(message) = self.held_message()? {
                return Ok(Some(message));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.data().await {
                Some(Ok(piece)) => {
                    let _ = body.flow_control().release_capacity(piece.len());
                    self.held.put(piece);
                }
                Some(Err(error)) => return Err(broken(&error)),
                None => {
                    let trailers = body.trailers().await.map_err(|error| broken(&error))?;
                    self.body = None;
                    let status = trailers.map(|trailers| status_of(&trailers));
                    return match status {
                        Some(status) if status.is_ok() => Ok(None),
                        Some(status) => Err(status),
                        None => Err(Status::new(Code::Unavailable, "the stream was cut off")),
                    };
                }
            }
        }
    }

    fn held_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut head) = self.held.get(..PREFIX) else { return Ok(None) };
        let compressed = head.get_u8();
        let len = head.get_u32() as usize;
        if compressed != 0 {
            return Err(Status::new(Code::Internal, "a compressed message was not asked for"));
        }
        if len > self.max {
            return Err(too_large(len, self.max));
        }
        if self.held.len() < PREFIX + len {
            return Ok(None);
        }
        self.held.advance(PREFIX);
        Ok(Some(self.held.split_to(len).freeze()))
    }
}

/// A message's pieces without what stands in front; none if that does not say how long they are.
fn without_prefix(mut pieces: VecDeque<Bytes>, len: usize) -> Option<Answer> {
    if len < PREFIX {
        return None;
    }
    let mut head = BytesMut::with_capacity(PREFIX);
    while head.len() < PREFIX {
        let first = pieces.front_mut()?;
        let take = first.len().min(PREFIX - head.len());
        head.put(first.split_to(take));
        if first.is_empty() {
            pieces.pop_front();
        }
    }
    let announced = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (head[0] == 0 && announced == len - PREFIX).then_some(Answer(pieces))
}

fn too_large(len: usize, max: usize) -> Status {
    let why = format!("grpc: received message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, why)
}

impl Failed {
    /// For who does not try again.
    pub(crate) fn status(self) -> Status {
        match self {
            Failed::Refused(status) => status,
            Failed::Lost(why) | Failed::Unseen(why) => Status::new(Code::Unavailable, why),
        }
    }
}

fn failed(error: &h2::Error) -> Failed {
    if error.reason() == Some(Reason::REFUSED_STREAM) {
        return Failed::Unseen(error.to_string());
    }
    Failed::Lost(format!("error reading from server: {error}"))
}

fn broken(error: &h2::Error) -> Status {
    failed(error).status()
}

/// The status in a call's last headers.
fn status_of(headers: &HeaderMap) -> Status {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok());
    let code = code.and_then(|code| code.parse().ok()).map_or(Code::Unknown, Code::from_u32);
    let text = headers.get("grpc-message").map(|text| unescaped(text.as_bytes()));
    Status::new(code, text.unwrap_or_default())
}

/// Undoes the `%XX` of a status's text.
fn unescaped(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_its_prefix_says_however_it_came() {
        let frame = framed(&Bytes::from_static(b"message"));
        for cut in 1..frame.len() {
            let mut rest = frame.clone();
            let first = rest.split_to(cut);
            let answer = without_prefix([first, rest].into(), frame.len()).expect("a message");
            assert_eq!(answer.bytes(), "message", "{cut}");
        }
        assert!(without_prefix([frame.slice(..9)].into(), 9).is_none());
        assert!(without_prefix([frame.slice(..4)].into(), 4).is_none());
        let empty = without_prefix([framed(&Bytes::new())].into(), PREFIX).expect("a message");
        assert_eq!(empty.bytes(), "");
    }

    #[test]
    fn a_status_comes_out_as_it_went_in() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "5".parse().expect("a value"));
        headers.insert("grpc-message", "100%25 %C3%A9 %zz".parse().expect("a value"));
        let status = status_of(&headers);
        assert_eq!((status.code, &*status.message), (Code::NotFound, "100% é %zz"));
        assert_eq!(status_of(&HeaderMap::new()).code, Code::Unknown);
    }
}
