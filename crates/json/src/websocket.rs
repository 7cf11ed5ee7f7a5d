//! The frames of WebSocket (RFC 6455), from the side of the server: requests come in masked, answers leave as
//! text. Not here: the upgrade's HTTP, and the socket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use sha1::{Digest as _, Sha1};

/// The value of `Sec-WebSocket-Accept` for a client's key.
pub fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Text or bytes, whole.
    Data(Vec<u8>),
    /// To be answered with a [`pong`] of the same content.
    Ping(Vec<u8>),
    /// It closes, for this reason: to be answered with a [`close`] of the same.
    Close(Option<u16>),
}

/// Why a connection is given up: the code to close it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub u16);

const PROTOCOL: Broken = Broken(1002);
const TOO_BIG: Broken = Broken(1009);

const CONTINUES: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Puts together what comes in.
pub struct Reader {
    buffer: BytesMut,
    /// Of a message that comes in parts.
    parts: Option<Vec<u8>>,
    /// Bytes of a message at the most.
    max: usize,
}

/// The head of a frame.
struct Head {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    len: usize,
    /// Bytes of the head itself.
    size: usize,
}

impl Reader {
    /// One that takes messages of so many bytes at the most.
    pub fn new(max: usize) -> Reader {
        Reader { buffer: BytesMut::new(), parts: None, max }
    }

    /// Adds what has come in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is whole.
    pub fn take_next(&mut self) -> Result<Option<Message>, Broken> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            if self.buffer.len() < head.size + head.len {
                return Ok(None);
            }
            self.buffer.advance(head.size);
            let mut content = self.buffer.split_to(head.len).to_vec();
            for (byte, mask) in content.iter_mut().zip(head.mask.iter().cycle()) {
                *byte ^= mask;
            }
            match head.opcode {
                PING => return Ok(Some(Message::Ping(content))),
                PONG => {}
                CLOSE => return closing(&content).map(Some),
                TEXT | BINARY if self.parts.is_none() => self.parts = Some(content),
                CONTINUES => match &mut self.parts {
                    Some(parts) => parts.append(&mut content),
                    None => return Err(PROTOCOL),
                },
                _ => return Err(PROTOCOL),
            }
            let is_data = matches!(head.opcode, TEXT | BINARY | CONTINUES);
            if is_data && head.last {
                return Ok(self.parts.take().map(Message::Data));
            }
        }
    }

    fn head(&self) -> Result<Option<Head>, Broken> {
        let [first, second, ..] = self.buffer[..] else { return Ok(None) };
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode >= CLOSE;
        // No extension was agreed upon, and clients mask what they send.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(PROTOCOL);
        }
        let (len, size) = match second & 0x7f {
            126 => match self.buffer.get(2..4) {
                Some(len) => (u64::from(u16::from_be_bytes([len[0], len[1]])), 4),
                None => return Ok(None),
            },
            127 => match self.buffer.get(2..10).and_then(|len| len.try_into().ok()) {
                Some(len) => (u64::from_be_bytes(len), 10),
                None => return Ok(None),
            },
            len => (u64::from(len), 2),
        };
        if is_control && (len > 125 || !last) {
            return Err(PROTOCOL);
        }
        let before = self.parts.as_ref().map_or(0, Vec::len);
        let len = usize::try_from(len).ok().filter(|len| len.saturating_add(before) <= self.max);
        let len = len.ok_or(TOO_BIG)?;
        let mask = self.buffer.get(size..size + 4).and_then(|mask| mask.try_into().ok());
        Ok(mask.map(|mask| Head { last, opcode, mask, len, size: size + 4 }))
    }
}

fn closing(content: &[u8]) -> Result<Message, Broken> {
    match content {
        [] => Ok(Message::Close(None)),
        [_] => Err(PROTOCOL),
        [high, low, ..] => Ok(Message::Close(Some(u16::from_be_bytes([*high, *low])))),
    }
}

fn frame(opcode: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(len), _) if len < 126 => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(content.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
}

/// Appends a message of text.
pub fn text(content: &[u8], out: &mut Vec<u8>) {
    frame(TEXT, content, out);
}

/// Appends the answer to a ping.
pub fn pong(content: &[u8], out: &mut Vec<u8>) {
    frame(PONG, content, out);
}

/// Appends the end, with a code if there is one.
pub fn close(code: Option<u16>, out: &mut Vec<u8>) {
    frame(CLOSE, code.map(u16::to_be_bytes).as_ref().map_or(&[], |code| &code[..]), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as clients send it.
    fn masked(first: u8, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(first & 0x0f, content, &mut out);
        out[0] = first;
        out[1] |= 0x80;
        let at = out.len() - content.len();
        let mask = [1, 2, 3, 4];
        let content: Vec<u8> =
            content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        out.truncate(at);
        out.extend_from_slice(&mask);
        out.extend_from_slice(&content);
        out
    }

    #[test]
    fn the_key_is_answered_as_in_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_are_put_together_however_they_come_in() {
        let long = vec![b'x'; 70_000];
        let mut all = masked(0x81, b"one");
        all.extend(masked(0x01, b"t"));
        all.extend(masked(0x89, b"ping"));
        all.extend(masked(0x80, b"wo"));
        all.extend(masked(0x8a, b""));
        all.extend(masked(0x82, &long));
        all.extend(masked(0x88, &1000_u16.to_be_bytes()));
        for step in [1, 7, all.len()] {
            let mut reader = Reader::new(1 << 20);
            let mut found = Vec::new();
            for chunk in all.chunks(step) {
                reader.push(chunk);
                while let Some(message) = reader.take_next().expect("good") {
                    found.push(message);
                }
            }
            let want = vec![
                Message::Data(b"one".to_vec()),
                Message::Ping(b"ping".to_vec()),
                Message::Data(b"two".to_vec()),
                Message::Data(long.clone()),
                Message::Close(Some(1000)),
            ];
            assert_eq!(found, want);
        }
    }

    #[test]
    fn what_is_against_the_rules_ends_the_connection() {
        let mut unmasked = Vec::new();
        text(b"x", &mut unmasked);
        for (bytes, code) in [
            (unmasked, 1002),
            (masked(0x80, b"goes on from nothing"), 1002),
            (masked(0xc1, b"an extension"), 1002),
            (masked(0x09, b"a ping in parts"), 1002),
            (masked(0x83, b"no such kind"), 1002),
            ([masked(0x01, b"a"), masked(0x81, b"b")].concat(), 1002),
            (masked(0x81, &[0; 101]), 1009),
            ([masked(0x01, &[0; 60]), masked(0x80, &[0; 60])].concat(), 1009),
            (masked(0x88, b"x"), 1002),
        ] {
            let mut reader = Reader::new(100);
            reader.push(&bytes);
            assert_eq!(reader.take_next(), Err(Broken(code)));
        }
    }
}
