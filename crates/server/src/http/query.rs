//! Paths and queries as Go's `net/http` and `net/url` read them. Not here: what they ask for.

/// The pairs of a query. What is not properly escaped, or holds a semicolon, is passed over.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts
        .filter(|part| !part.contains(';'))
        .filter_map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((unescape(name)?, unescape(value)?))
        })
        .collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The path without `.`, `..` and double slashes; none if it is so already.
pub(super) fn cleaned(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// The name of a `Host` header: without its port, as far as it has one.
pub(super) fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => match rest.split_once("]:") {
            Some((name, port)) if !port.contains([':', '[', ']']) => name,
            _ => host,
        },
        None => match host.split_once(':') {
            Some((name, port)) if !port.contains([':', '[', ']']) => name,
            _ => host,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_gos() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(None), []);
        assert_eq!(
            pairs(Some("verbose&exclude=a%20b&exclude=c+d&&x=1=2&bad=%zz&s=a;b")),
            [pair("verbose", ""), pair("exclude", "a b"), pair("exclude", "c d"), pair("x", "1=2")]
        );
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, clean) in [
            ("//health", Some("/health")),
            ("/a/../health", Some("/health")),
            ("/health/.", Some("/health")),
            ("/../..", Some("/")),
            ("/health//", Some("/health/")),
            ("/health", None),
            ("/health/", None),
            ("/", None),
        ] {
            assert_eq!(cleaned(path).as_deref(), clean, "{path}");
        }
    }

    #[test]
    fn hosts_are_gos() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("localhost.:2379", "localhost."),
            ("127.0.0.1:2379", "127.0.0.1"),
            ("[::1]:2379", "::1"),
            ("localhost:::::", "localhost:::::"),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name);
        }
    }
}
