//! From an HTTP/2 request to a call: what is gRPC and what is not, and the checks
//! of its headers in the order and with the texts of Go's server. Not here:
//! bodies and answers.

use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::clock::now;
use crate::status::{Code, Status};

/// The response's content type: the request's, as Go's server mirrors it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContentType {
    Grpc,
    With(HeaderValue),
}

impl ContentType {
    /// `None` when the request is not gRPC.
    pub(crate) fn of(headers: &HeaderMap) -> Option<ContentType> {
        const BASE: &[u8] = b"application/grpc";
        let value = headers.get(CONTENT_TYPE)?.as_bytes();
        if value == BASE {
            return Some(ContentType::Grpc);
        }
        if value.len() < BASE.len() || !value[..BASE.len()].eq_ignore_ascii_case(BASE) {
            return None;
        }
        match value.get(BASE.len()) {
            None | Some(b';') => {}
            Some(b'+') => {
                let lower = value.to_ascii_lowercase();
                return HeaderValue::from_bytes(&lower).ok().map(ContentType::With);
            }
            Some(_) => return None,
        }
        Some(ContentType::Grpc)
    }
}

/// Judges a gRPC request's method and `grpc-timeout`; gives its deadline.
pub(crate) fn check_head(
    method: &Method,
    timeout: Option<&HeaderValue>,
) -> Result<Option<Instant>, (StatusCode, Status)> {
    let timeout = match timeout {
        None => None,
        Some(value) => Some(parse_timeout(value.as_bytes()).map_err(|why| {
            let text = format!("malformed grpc-timeout: {why}");
            (StatusCode::BAD_REQUEST, Status::internal(text))
        })?),
    };
    if method != Method::POST {
        let text = format!(
            "Received a HEADERS frame with :method {:?} which should be POST",
            method.as_str()
        );
        return Err((StatusCode::METHOD_NOT_ALLOWED, Status::internal(text)));
    }
    match timeout {
        None => Ok(None),
        Some(Duration::ZERO) => {
            let status = Status::new(Code::DeadlineExceeded, "context deadline exceeded");
            Err((StatusCode::OK, status))
        }
        // A time too far away to be written as an instant is no deadline.
        Some(timeout) => Ok(now().checked_add(timeout)),
    }
}

/// Why a path that leads nowhere does not, in Go's words.
pub(crate) fn unknown_path(path: &str, service_known: bool) -> Status {
    let text = match path.strip_prefix('/').and_then(|p| p.rsplit_once('/')) {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if service_known => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, text)
}

/// Whether messages may come packed. gzip is what etcd has installed; answers
/// leave unpacked, which every client must take.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<bool, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(name) => Err(Status::new(
            Code::Unimplemented,
            format!(
                "grpc: Decompressor is not installed for grpc-encoding {:?}",
                String::from_utf8_lossy(name)
            ),
        )),
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Result<Duration, String> {
    let text = String::from_utf8_lossy(value);
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let (digits, unit) = value.split_at(value.len() - 1);
    let digits = String::from_utf8_lossy(digits);
    let number = || {
        let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
        digits
            .parse::<u64>()
            .ok()
            .filter(|_| all_digits)
            .ok_or_else(|| format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"))
    };
    match unit {
        b"H" => number().map(|n| Duration::from_secs(n * 3600)),
        b"M" => number().map(|n| Duration::from_secs(n * 60)),
        b"S" => number().map(Duration::from_secs),
        b"m" => number().map(Duration::from_millis),
        b"u" => number().map(Duration::from_micros),
        b"n" => number().map(Duration::from_nanos),
        _ => Err(format!("transport: timeout unit is not recognized: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(value: &'static str) -> Option<ContentType> {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        ContentType::of(&map)
    }

    #[test]
    fn content_types() {
        assert_eq!(content("application/grpc"), Some(ContentType::Grpc));
        assert_eq!(content("Application/GRPC;x=y"), Some(ContentType::Grpc));
        let proto = HeaderValue::from_static("application/grpc+proto");
        assert_eq!(content("application/grpc+proto"), Some(ContentType::With(proto)));
        assert_eq!(content("application/grpc-web"), None);
        assert_eq!(content("application/json"), None);
        assert_eq!(ContentType::of(&HeaderMap::new()), None);
    }

    #[test]
    fn timeouts() {
        assert_eq!(parse_timeout(b"5S"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_timeout(b"99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout(b"120m"), Ok(Duration::from_millis(120)));
        assert_eq!(parse_timeout(b"7u"), Ok(Duration::from_micros(7)));
        for (bad, text) in [
            ("S", "transport: timeout string is too short: \"S\""),
            ("123456789S", "transport: timeout string is too long: \"123456789S\""),
            ("5x", "transport: timeout unit is not recognized: \"5x\""),
            ("a5S", "strconv.ParseUint: parsing \"a5\": invalid syntax"),
            ("+5S", "strconv.ParseUint: parsing \"+5\": invalid syntax"),
        ] {
            assert_eq!(parse_timeout(bad.as_bytes()), Err(text.to_string()));
        }
    }

    #[test]
    fn paths_that_lead_nowhere() {
        let text = |p, known| unknown_path(p, known).message.into_owned();
        assert_eq!(text("/a.B/C", true), "unknown method C for service a.B");
        assert_eq!(text("/a.B/C", false), "unknown service a.B");
        assert_eq!(text("/x/y/z", false), "unknown service x/y");
        assert_eq!(text("/nothing", false), "malformed method name: \"/nothing\"");
    }
}
