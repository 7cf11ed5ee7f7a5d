//! What the metadata of a call say to a server, read once for all calls of a connection that bear the same. Not here:
//! whom a token stands for (`auth::claim`).

use etch_rpc::CallInfo;
use http::{HeaderMap, HeaderValue};

/// The metadata that etcd's clients and gateways send.
pub struct Metadata {
    /// The version of the API that the client speaks, as it names it.
    pub version: Box<[u8]>,
    /// The token, if there is one.
    pub token: Option<Box<str>>,
    /// True if the call is to be refused where there is no leader.
    pub wants_leader: bool,
    /// True if a gateway for JSON makes the call, in the name of whoever asked it.
    pub by_gateway: bool,
}

impl Metadata {
    /// What this call bears.
    pub fn of(call: &CallInfo) -> &Self {
        call.note(Self::read)
    }

    fn read(headers: &HeaderMap) -> Self {
        let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let token = value("token").or_else(|| value("authorization")).map(|given| {
            let token = std::str::from_utf8(given).unwrap_or_default();
            token.strip_prefix("Bearer ").unwrap_or(token).into()
        });
        Self {
            version: value("client-api-version").unwrap_or(b"unknown").into(),
            token,
            wants_leader: value("hasleader") == Some(b"true"),
            by_gateway: value("grpcgateway-accept").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Metadata {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Metadata::read(&pairs.collect())
    }

    #[test]
    fn a_token_comes_under_either_name_and_grpcs_goes_first() {
        let tokens = [
            (vec![("token", "a.1")], Some("a.1")),
            (vec![("authorization", "a.1")], Some("a.1")),
            (vec![("authorization", "Bearer a.1")], Some("a.1")),
            (vec![("authorization", "b.2"), ("token", "a.1")], Some("a.1")),
            (vec![("token", "")], Some("")),
            (vec![], None),
        ];
        for (headers, want) in tokens {
            assert_eq!(read(&headers).token.as_deref(), want, "{headers:?}");
        }
    }

    #[test]
    fn versions_and_leaders() {
        let said = read(&[("client-api-version", "3.7"), ("hasleader", "true")]);
        assert_eq!((&said.version[..], said.wants_leader), (&b"3.7"[..], true));
        let said = read(&[("hasleader", "yes")]);
        assert_eq!((&said.version[..], said.wants_leader), (&b"unknown"[..], false));
    }
}
