//! HTTP/2 by hand: frames as no honest client sends them.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Shakes hands by hand: preface, empty settings.
pub async fn greet(io: &mut DuplexStream) {
    io.write_all(PREFACE).await.expect("preface");
    io.write_all(&raw(4, 0, 0, &[])).await.expect("settings");
}

/// The same, with room for everything that may come.
pub async fn greet_with_huge_windows(io: &mut DuplexStream) {
    io.write_all(PREFACE).await.expect("preface");
    let window = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    io.write_all(&raw(4, 0, 0, &window)).await.expect("settings");
    io.write_all(&raw(8, 0, 0, &0x7000_0000u32.to_be_bytes())).await.expect("window");
}

/// POST, http, path, content type and others as literals without indexing.
pub fn head(method: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, 5 + method.len() as u8];
    block.extend_from_slice(b"/t.S/");
    block.extend_from_slice(method.as_bytes());
    for (name, value) in [("content-type", "application/grpc")].iter().chain(others) {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A whole call in two frames, without the end of the stream if it is to be
/// left open.
pub fn call_frames(id: u32, method: &str, message: &[u8], end: bool) -> Vec<u8> {
    let mut out = raw(1, 4, id, &head(method, &[]));
    let message = super::frame(message);
    let mut rest = message.chunks(16_384).peekable();
    while let Some(chunk) = rest.next() {
        out.extend(raw(0, u8::from(end && rest.peek().is_none()), id, chunk));
    }
    out
}

/// One frame that has come in.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, 0 | 1) && self.flags & 1 != 0
    }

    /// Whether a text stands in it; header blocks of ours are not packed so
    /// far that none could be found.
    pub fn has(&self, text: &str) -> bool {
        self.payload.windows(text.len()).any(|w| w == text.as_bytes())
    }
}

/// Reads the next frame; `None` at the end.
pub async fn next_frame(io: &mut (impl AsyncReadExt + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    io.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
}

/// Reads frames until the server closes; gives the GOAWAY's code and text.
pub async fn goaway(io: &mut DuplexStream) -> Option<(u32, Vec<u8>)> {
    let mut found = None;
    while let Some(frame) = next_frame(io).await {
        if frame.kind == 7 {
            let code = u32::from_be_bytes(frame.payload[4..8].try_into().expect("four"));
            found = Some((code, frame.payload[8..].to_vec()));
        }
    }
    found
}
