//! The frames of HTTP/2 (RFC 9113, 4 and 6) as bytes: heads, kinds, flags and the codes of errors. Not here:
//! what a frame does to a connection.

use std::fmt;

/// Length of a frame's head.
pub(crate) const HEAD: usize = 9;
/// The longest payload that we take, and what we send at most unless the client takes less: the default, which
/// nobody may refuse.
pub(crate) const MAX_FRAME: usize = 16_384;
/// The largest window there may be.
pub(crate) const MAX_WINDOW: i64 = (1 << 31) - 1;
/// Windows before anybody has said anything.
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

/// The kinds of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The flags of frames; the first has two names.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
}

/// The settings.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHead {
    /// The head at the front of these bytes, if they are enough.
    pub(crate) fn parse(bytes: &[u8]) -> Option<FrameHead> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD>()?;
        Some(FrameHead {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame's head as it is sent.
pub(crate) fn head(len: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let [_, a, b, c] = (len as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [a, b, c, kind, flags, s0, s1, s2, s3]
}

/// The first four bytes of a payload as a number; 31 bits, for the highest has no meaning anywhere.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// Why a stream or a connection was ended: the codes of RFC 9113, 7.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

#[allow(missing_docs, reason = "the names are HTTP/2's own")]
impl Reason {
    pub const NO_ERROR: Reason = Reason(0);
    pub const PROTOCOL_ERROR: Reason = Reason(1);
    pub const INTERNAL_ERROR: Reason = Reason(2);
    pub const FLOW_CONTROL_ERROR: Reason = Reason(3);
    pub const STREAM_CLOSED: Reason = Reason(5);
    pub const FRAME_SIZE_ERROR: Reason = Reason(6);
    pub const REFUSED_STREAM: Reason = Reason(7);
    pub const CANCEL: Reason = Reason(8);
    pub const COMPRESSION_ERROR: Reason = Reason(9);
    pub const ENHANCE_YOUR_CALM: Reason = Reason(11);

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Reason::NO_ERROR => "NO_ERROR",
            Reason::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
            Reason::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Reason::STREAM_CLOSED => "STREAM_CLOSED",
            Reason::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Reason::REFUSED_STREAM => "REFUSED_STREAM",
            Reason::CANCEL => "CANCEL",
            Reason::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            _ => return None,
        })
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Reason({})", self.0),
        }
    }
}

/// What the client did that ends the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// The code that the client was told.
    pub reason: Reason,
    /// What was wrong.
    pub text: &'static str,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.reason, self.text)
    }
}

impl std::error::Error for ProtocolError {}

/// A connection's end, in short.
pub(crate) fn fatal<T>(reason: Reason, text: &'static str) -> Result<T, ProtocolError> {
    Err(ProtocolError { reason, text })
}

/// What is in a DATA or HEADERS frame besides padding, and how many bytes of it are padding.
pub(crate) fn unpadded(head: &FrameHead, payload: &[u8]) -> Option<std::ops::Range<usize>> {
    if !head.has(flag::PADDED) {
        return Some(0..payload.len());
    }
    let padding = usize::from(*payload.first()?);
    let end = payload.len().checked_sub(padding)?;
    (end >= 1).then_some(1..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back() {
        let bytes = head(0x01_02_03, kind::HEADERS, flag::END_HEADERS, 0x7fff_ffff);
        let parsed = FrameHead::parse(&bytes).expect("whole");
        assert_eq!((parsed.len, parsed.kind, parsed.flags), (0x01_02_03, 1, 4));
        assert_eq!(parsed.stream, 0x7fff_ffff);
        assert_eq!(FrameHead::parse(&bytes[..8]), None);
        let reserved = head(0, 0, 0, 0x8000_0001);
        assert_eq!(FrameHead::parse(&reserved).map(|h| h.stream), Some(1));
    }

    #[test]
    fn padding_is_no_longer_than_the_frame() {
        let padded = FrameHead { len: 0, kind: 0, flags: flag::PADDED, stream: 1 };
        assert_eq!(unpadded(&padded, &[2, 7, 0, 0]), Some(1..2));
        assert_eq!(unpadded(&padded, &[3, 0, 0, 0]), Some(1..1));
        assert_eq!(unpadded(&padded, &[4, 0, 0, 0]), None);
        assert_eq!(unpadded(&padded, &[]), None);
        assert_eq!(unpadded(&FrameHead { flags: 0, ..padded }, &[9]), Some(0..1));
    }
}
