//! How an endpoint is written, and what of it a connection needs. DNS is asked elsewhere (`net::srv`, `net::dial`).

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host, by name or number, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// An endpoint, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// As it was written: the endpoint's name.
    pub text: String,
    pub target: Target,
    pub tls: bool,
    /// The host, as the server's certificate should bear it.
    pub host: String,
    /// What goes into the `:authority` of a request.
    pub authority: String,
}

impl Address {
    /// Reads an endpoint. One without a scheme is secured if the client has `tls`; `http` never is, `https` always.
    pub fn parse(text: &str, tls: bool) -> Result<Address> {
        let bad = |why: &str| Error::Invalid(format!("endpoint {text:?}: {why}"));
        if let Some((scheme, path)) = unix_path(text) {
            if path.is_empty() {
                return Err(bad("no path"));
            }
            let path = PathBuf::from(path);
            let host = path.file_name().map(|n| n.to_string_lossy().into_owned());
            return Ok(Address {
                text: text.to_owned(),
                target: Target::Unix(path),
                tls: tls || scheme == "unixs",
                // A socket's name may carry a port, for the sake of tools that want one.
                host: host.unwrap_or_default().split(':').next().unwrap_or_default().to_owned(),
                authority: "localhost".into(),
            });
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => {
                (scheme, rest.split(['/', '?', '#']).next().unwrap_or_default())
            }
            None => ("", text),
        };
        let tls = match scheme {
            "http" => false,
            "https" => true,
            "" => tls,
            _ => return Err(bad("the scheme must be http, https, unix, unixs or srv")),
        };
        if rest.contains('@') {
            return Err(bad("a user does not belong into an endpoint"));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| bad("no port"))?;
        let port = port.parse::<u16>().map_err(|_| bad("the port is no number up to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(bad("no host"));
        }
        if bare.contains(':') && bare == host {
            return Err(bad("an IPv6 address must be in brackets"));
        }
        if host.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b == b'/') {
            return Err(bad("the host holds what no host does"));
        }
        Ok(Address {
            text: text.to_owned(),
            target: Target::Tcp(bare.to_owned(), port),
            tls,
            host: bare.to_owned(),
            authority: format!("{host}:{port}"),
        })
    }
}

fn unix_path(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    if scheme != "unix" && scheme != "unixs" {
        return None;
    }
    Some((scheme, rest.strip_prefix("//").unwrap_or(rest)))
}

/// The domain, and the service's suffix if one is given, of a `srv:domain` or `srv:domain/name` endpoint.
pub(crate) fn srv_domain(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("srv:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str, tls: bool) -> (Target, bool, String) {
        let address = Address::parse(text, tls).expect("an endpoint");
        (address.target, address.tls, address.authority)
    }

    #[test]
    fn the_scheme_decides_about_tls() {
        let target = Target::Tcp("h".into(), 1);
        assert_eq!(tcp("h:1", false), (target.clone(), false, "h:1".into()));
        assert_eq!(tcp("h:1", true), (target.clone(), true, "h:1".into()));
        assert_eq!(tcp("http://h:1/", true), (target.clone(), false, "h:1".into()));
        assert_eq!(tcp("https://h:1", false), (target, true, "h:1".into()));
        let six = Target::Tcp("::1".into(), 1);
        assert_eq!(tcp("[::1]:1", false), (six, false, "[::1]:1".into()));
    }

    #[test]
    fn sockets_in_the_file_system() {
        for (text, path, tls) in [
            ("unix:a.sock", "a.sock", false),
            ("unix://a.sock", "a.sock", false),
            ("unix:///run/a.sock", "/run/a.sock", false),
            ("unixs:///run/localhost:1", "/run/localhost:1", true),
        ] {
            let address = Address::parse(text, false).expect("an endpoint");
            assert_eq!(address.target, Target::Unix(path.into()), "{text}");
            assert_eq!(address.tls, tls, "{text}");
        }
        assert_eq!(
            Address::parse("unixs:/r/localhost:1", false).map(|a| a.host),
            Ok("localhost".into())
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "h",
            "h:",
            "h:x",
            "h:70000",
            ":1",
            "::1:1",
            "ftp://h:1",
            "http://h",
            "http://u@h:1",
            "unix:",
            "a b:1",
            "http://:1",
            "h\n:1",
        ] {
            assert!(matches!(Address::parse(text, false), Err(Error::Invalid(_))), "{text:?}");
        }
    }

    #[test]
    fn srv_endpoints_name_a_domain() {
        assert_eq!(srv_domain("srv:example.org"), Some(("example.org", "")));
        assert_eq!(srv_domain("srv://example.org/blue"), Some(("example.org", "blue")));
        assert_eq!(srv_domain("example.org:1"), None);
    }
}
