//! Whether a certificate bears a name or an address, by Go's rules. Not here: where the names come from.

use std::net::IpAddr;

/// Whether these names and addresses of a certificate stand for `host`: an address (in brackets or not) is
/// looked for among the addresses, anything else among the names, of which `*` may be the first label.
pub(crate) fn stands_for(host: &str, dns_names: &[String], addresses: &[IpAddr]) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return addresses.iter().any(|own| own.to_canonical() == address.to_canonical());
    }
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host.is_empty() {
        return false;
    }
    dns_names.iter().any(|name| matches(&name.to_ascii_lowercase(), host))
}

fn matches(pattern: &str, host: &str) -> bool {
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    match pattern.strip_prefix("*.") {
        Some(rest) => {
            host.split_once('.').is_some_and(|(first, tail)| !first.is_empty() && tail == rest)
        }
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let names = ["a.example.com".to_owned(), "*.b.example".to_owned(), "10.0.0.9".to_owned()];
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "::1"].iter().map(|text| text.parse().expect("an address")).collect();
        for (host, is) in [
            ("a.example.com", true),
            ("A.Example.COM", true),
            ("a.example.com.", true),
            ("b.example.com", false),
            ("x.b.example", true),
            ("x.y.b.example", false),
            ("b.example", false),
            (".b.example", false),
            ("10.0.0.1", true),
            ("[::1]", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.2", false),
            // An address among the names is none.
            ("10.0.0.9", false),
            ("", false),
        ] {
            assert_eq!(stands_for(host, &names, &addresses), is, "{host}");
        }
    }
}
