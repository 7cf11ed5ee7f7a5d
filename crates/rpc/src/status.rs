//! The outcome of a call: a gRPC code and a text, and how they are written
//! into trailers. Not here: which error has which code; that is the caller's.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The seventeen codes of gRPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; numbers outside the table are `Unknown`.
    pub fn from_u32(n: u32) -> Code {
        use Code::*;
        const ALL: [Code; 17] = [
            Ok,
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        ALL.get(n as usize).copied().unwrap_or(Unknown)
    }

    /// The name that gRPC's metrics and logs use: `OK`, `NotFound`, ...
    pub fn name(self) -> &'static str {
        use Code::*;
        match self {
            Ok => "OK",
            Cancelled => "Canceled",
            Unknown => "Unknown",
            InvalidArgument => "InvalidArgument",
            DeadlineExceeded => "DeadlineExceeded",
            NotFound => "NotFound",
            AlreadyExists => "AlreadyExists",
            PermissionDenied => "PermissionDenied",
            ResourceExhausted => "ResourceExhausted",
            FailedPrecondition => "FailedPrecondition",
            Aborted => "Aborted",
            OutOfRange => "OutOfRange",
            Unimplemented => "Unimplemented",
            Internal => "Internal",
            Unavailable => "Unavailable",
            DataLoss => "DataLoss",
            Unauthenticated => "Unauthenticated",
        }
    }

    /// The number, as it is written.
    pub(crate) fn text(self) -> &'static str {
        const TEXT: [&str; 17] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16",
        ];
        TEXT[self as usize]
    }
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text, in plain UTF-8; empty for `Ok`.
    pub message: Cow<'static, str>,
}

impl Status {
    /// The good end.
    pub const OK: Status = Status { code: Code::Ok, message: Cow::Borrowed("") };

    /// A status of this code and text.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status { code, message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<Cow<'static, str>>) -> Status {
        Status::new(Code::Internal, message)
    }

    /// Whether the call ended well.
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }

    /// The headers that say this. Go's server sends an empty `grpc-message`
    /// with a good end; clients do not need it, and it is left out here.
    pub(crate) fn write_to(&self, map: &mut HeaderMap) {
        map.insert(GRPC_STATUS, HeaderValue::from_static(self.code.text()));
        if !self.message.is_empty() {
            let message = HeaderValue::from_str(&self.encoded_message());
            map.insert(GRPC_MESSAGE, message.unwrap_or(HeaderValue::from_static("")));
        }
    }

    /// The text as `grpc-message` carries it.
    pub(crate) fn encoded_message(&self) -> Cow<'_, str> {
        percent_encode(&self.message)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Status {}

/// `grpc-message` carries printable ASCII as it is, and every other byte of
/// the UTF-8 text, and `%` itself, as `%XX`.
fn percent_encode(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len() + 16);
    for b in text.bytes() {
        if plain(b) {
            out.push(char::from(b));
        } else {
            out.extend(['%', HEX[usize::from(b >> 4)].into(), HEX[usize::from(b & 15)].into()]);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_percent_encoded_as_go_does() {
        assert_eq!(percent_encode("etcdserver: key not found"), "etcdserver: key not found");
        assert_eq!(percent_encode("100%\n"), "100%25%0A");
        assert_eq!(percent_encode("é"), "%C3%A9");
    }

    #[test]
    fn codes_round_trip() {
        for n in 0..17 {
            assert_eq!(Code::from_u32(n) as u32, n);
            assert_eq!(Code::from_u32(n).text(), n.to_string());
        }
        assert_eq!(Code::from_u32(99), Code::Unknown);
    }

    #[test]
    fn headers_of_a_good_end_are_one_field() {
        let written = |status: Status| {
            let mut map = HeaderMap::new();
            status.write_to(&mut map);
            map
        };
        assert_eq!(written(Status::OK).len(), 1);
        let bad = written(Status::new(Code::NotFound, "no"));
        assert_eq!(bad["grpc-status"], "5");
        assert_eq!(bad["grpc-message"], "no");
    }
}
