//! Whether a certificate stands for the address that its bearer comes from, as etcd asks it on its peer and
//! metrics ports: by address, by the names of the address, by the addresses of the names. Not here: the
//! other rules for certificates (`verifier`).

use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::leaf::Leaf;
use crate::names::stands_for;
use crate::options::quoted;

/// Names of one certificate that are looked up, at the most: each is a question to a server of names.
const LOOKED_UP: usize = 16;

/// The error is etcd's.
pub(crate) async fn check(leaf: &Leaf, remote: IpAddr) -> Result<(), String> {
    let (names, addresses) = (&leaf.dns_names, &leaf.addresses);
    let host = remote.to_canonical().to_string();
    if names.is_empty() && addresses.is_empty() {
        return Ok(());
    }
    if stands_for(&host, &[], addresses) {
        return Ok(());
    }
    if names.is_empty() {
        let own: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        return Err(format!("x509: certificate is valid for {}, not {host}", own.join(", ")));
    }
    let why = match is_in_dns(remote, names).await {
        Ok(true) => return Ok(()),
        Ok(false) => String::new(),
        Err(why) => format!(" ({why})"),
    };
    Err(format!("tls: {host:?} does not match any of DNSNames {}{why}", quoted(names)))
}

async fn is_in_dns(remote: IpAddr, dns_names: &[String]) -> Result<bool, String> {
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|e| e.to_string())?;
    let mut failed = None;
    match resolver.reverse_lookup(remote.to_canonical()).await {
        Ok(found) => {
            let names = found.answers().iter().filter_map(|record| match &record.data {
                RData::PTR(name) => Some(name.to_string()),
                _ => None,
            });
            if names.into_iter().any(|name| is_named(&name, dns_names)) {
                return Ok(true);
            }
        }
        Err(error) => failed = Some(error.to_string()),
    }
    let plain = dns_names.iter().filter(|name| !name.starts_with("*."));
    for name in plain.take(LOOKED_UP) {
        match resolver.lookup_ip(name.as_str()).await {
            Ok(found) => {
                if found.iter().any(|address| address.to_canonical() == remote.to_canonical()) {
                    return Ok(true);
                }
            }
            Err(error) => failed = Some(error.to_string()),
        }
    }
    failed.map_or(Ok(false), Err)
}

/// Whether the name of an address is among a certificate's. Here `*` stands for any number of labels, as in
/// etcd.
fn is_named(name: &str, dns_names: &[String]) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    dns_names.iter().any(|own| match own.strip_prefix('*') {
        Some(end) if end.starts_with('.') => name.ends_with(end),
        _ => own == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(names: &[&str], addresses: &[&str]) -> Leaf {
        Leaf {
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            ..Leaf::default()
        }
    }

    #[tokio::test]
    async fn an_address_must_be_in_the_certificate_or_be_named_by_it() {
        let remote: IpAddr = "127.0.0.1".parse().expect("an address");
        assert_eq!(check(&leaf(&[], &[]), remote).await, Ok(()));
        assert_eq!(check(&leaf(&["x.invalid"], &["127.0.0.1"]), remote).await, Ok(()));
        assert_eq!(
            check(&leaf(&[], &["10.0.0.1", "10.0.0.2"]), remote).await,
            Err("x509: certificate is valid for 10.0.0.1, 10.0.0.2, not 127.0.0.1".to_owned())
        );
        // By the file of hosts that every system has.
        assert_eq!(check(&leaf(&["localhost"], &["10.0.0.1"]), remote).await, Ok(()));
    }

    #[test]
    fn a_star_stands_for_any_number_of_labels() {
        let names = ["*.example.com".to_owned(), "b.example".to_owned()];
        for (name, is) in [
            ("a.example.com.", true),
            ("x.y.example.com", true),
            ("example.com", false),
            ("b.example", true),
            ("a.b.example", false),
        ] {
            assert_eq!(is_named(name, &names), is, "{name}");
        }
    }
}
