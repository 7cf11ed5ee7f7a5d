//! The URLs of flags and members: `http`, `https`, `unix`, `unixs`, with the texts of Go and of etcd for what
//! is wrong with one. Not here: what is listened on.

use std::fmt;
use std::net::IpAddr;

/// A URL that etcd takes as an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// `http`, `https`, `unix` or `unixs`.
    pub scheme: String,
    /// `host:port`; for a Unix socket the first part of its path, possibly empty.
    pub host: String,
    /// For a Unix socket the rest of its path; otherwise empty.
    pub path: String,
}

impl Url {
    /// Reads one URL; what stands around it is trimmed.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let url = split(text).map_err(|why| format!("parse {text:?}: {why}"))?;
        match url.scheme.as_str() {
            "http" | "https" => {
                if url.split_host().is_none() {
                    return Err(format!(
                        "URL address does not have the form \"host:port\": {text}"
                    ));
                }
                if !url.path.is_empty() {
                    return Err(format!("URL must not contain a path: {text}"));
                }
            }
            "unix" | "unixs" => {}
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        }
        Ok(url)
    }

    /// True if what speaks at this address speaks TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "unixs")
    }

    /// True for the address of a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme.as_str(), "unix" | "unixs")
    }

    /// The path of a Unix socket.
    pub fn socket_path(&self) -> String {
        format!("{}{}", self.host, self.path)
    }

    /// Host (without brackets) and port of a network address.
    pub fn split_host(&self) -> Option<(&str, &str)> {
        let (host, port) = self.host.rsplit_once(':')?;
        match host.strip_prefix('[') {
            Some(inner) => Some((inner.strip_suffix(']')?, port)),
            None if host.contains([':', '[', ']']) => None,
            None => Some((host, port)),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.is_empty() && !self.path.starts_with('/') {
            return write!(f, "{}:{}", self.scheme, self.path);
        }
        write!(f, "{}://{}{}", self.scheme, self.host, self.path)
    }
}

/// Scheme, host and path, as `url.Parse` tells them apart; the error is its text.
fn split(text: &str) -> Result<Url, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    let (scheme, rest) = scheme(text)?;
    let url = |host: &str, path: &str| Url {
        scheme: scheme.clone(),
        host: host.to_owned(),
        path: path.to_owned(),
    };
    let Some(after) = rest.strip_prefix("//") else {
        if scheme.is_empty() && rest.split('/').next().is_some_and(|part| part.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        return Ok(url("", rest));
    };
    let (host, path) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
    check_host(host)?;
    Ok(url(host, path))
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<(), String> {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, port)) => port,
            None => return Err("missing ']' in host".to_owned()),
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    if port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
    {
        return match host
            .chars()
            .find(|c| matches!(c, ' ' | '<' | '>' | '"' | '\\' | '^' | '`' | '{' | '|' | '}'))
        {
            Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
            None => Ok(()),
        };
    }
    Err(format!("invalid port {port:?} after host"))
}

/// Reads a list of URLs between commas and sorts it.
pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
    parse_all(text.split(','))
}

/// Reads the peer URLs of a request about a member and sorts them.
pub fn parse_peer_urls<S: AsRef<str>>(texts: &[S]) -> Result<Vec<String>, String> {
    if texts.is_empty() {
        return Err("no valid URLs given".to_owned());
    }
    let urls = parse_all(texts.iter().map(AsRef::as_ref))?;
    Ok(urls.iter().map(Url::to_string).collect())
}

fn parse_all<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Url>, String> {
    let mut urls = texts.map(Url::parse).collect::<Result<Vec<Url>, String>>()?;
    urls.sort_by_cached_key(Url::to_string);
    Ok(urls)
}

/// The URLs between commas.
pub fn join(urls: &[Url]) -> String {
    strings(urls).join(",")
}

/// The URLs as texts.
pub fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// Addresses to listen on are given as IPs (or `localhost`).
pub fn check_bind(urls: &[Url]) -> Result<(), String> {
    for url in urls.iter().filter(|url| !url.is_unix()) {
        let host = url.split_host().map_or("", |(host, _)| host);
        if host != "localhost" && host.parse::<IpAddr>().is_err() {
            return Err(format!("expected IP in URL for binding ({url})"));
        }
    }
    Ok(())
}

/// Addresses to advertise name a host.
pub fn check_host_given(urls: &[Url]) -> Result<(), String> {
    match urls.iter().find(|url| !url.is_unix() && url.host.starts_with(':')) {
        Some(url) => Err(format!("unexpected empty host ({url})")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (text, host, path) in [
            ("http://10.1.1.1:80", "10.1.1.1:80", ""),
            ("https://localhost:2", "localhost:2", ""),
            ("http://:80", ":80", ""),
            (" http://[::1]:80 ", "[::1]:80", ""),
            ("unix://tmp/etcd.sock", "tmp", "/etcd.sock"),
            ("unix:///tmp/127.27.84.4:23432", "", "/tmp/127.27.84.4:23432"),
            ("unix://127.0.0.5:1456", "127.0.0.5:1456", ""),
            ("unix:socket", "", "socket"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((url.host.as_str(), url.path.as_str()), (host, path), "{text}");
            assert_eq!(url.to_string(), text.trim());
        }
        let v6 = Url::parse("http://[::1]:80").expect("a URL");
        assert_eq!(v6.split_host(), Some(("::1", "80")));
    }

    #[test]
    fn what_is_wrong_is_said_as_go_says_it() {
        for (text, error) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("mailto:x", "URL scheme must be http, https, unix, or unixs: mailto:x"),
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            (":2379", "parse \":2379\": missing protocol scheme"),
            (
                "127.0.0.1:foo",
                "parse \"127.0.0.1:foo\": first path segment in URL cannot contain colon",
            ),
            ("http://1.2.3.4", "URL address does not have the form \"host:port\": http://1.2.3.4"),
            ("http://1.2.3.4:1/x", "URL must not contain a path: http://1.2.3.4:1/x"),
            ("http://[::1", "parse \"http://[::1\": missing ']' in host"),
            ("http://a:b:c", "parse \"http://a:b:c\": invalid port \":b:c\" after host"),
            ("file://foo/bar", "URL scheme must be http, https, unix, or unixs: file://foo/bar"),
            ("234#$", "URL scheme must be http, https, unix, or unixs: 234#$"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
        ] {
            assert_eq!(Url::parse(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn lists_are_sorted() {
        let list = parse_list("http://localhost:5,http://localhost:3").expect("two URLs");
        assert_eq!(join(&list), "http://localhost:3,http://localhost:5");
        assert!(parse_peer_urls::<&str>(&[]).is_err());
    }

    #[test]
    fn listening_needs_an_ip_and_advertising_a_host() {
        let list = |text| parse_list(text).expect(text);
        assert_eq!(check_bind(&list("http://localhost:1,http://[::]:2,unix://foo.bar:1")), Ok(()));
        assert_eq!(
            check_bind(&list("http://foo.bar:1")),
            Err("expected IP in URL for binding (http://foo.bar:1)".to_owned())
        );
        assert_eq!(
            check_host_given(&list("http://:1")),
            Err("unexpected empty host (http://:1)".to_owned())
        );
    }
}
