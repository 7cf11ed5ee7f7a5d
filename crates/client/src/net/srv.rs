//! Endpoints from DNS: the SRV records that etcd's own tools ask for, in the order that RFC 2782 gives them; what went
//! wrong in the words that etcd's tools have for it.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;

use crate::config::address::srv_domain;
use crate::error::{Error, Result};

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    priority: u16,
    weight: u16,
    endpoint: String,
}

/// Replaces each `srv:` endpoint by those that DNS names. Secured services come first.
pub(crate) async fn expand(endpoints: &[String]) -> Result<Vec<String>> {
    if !endpoints.iter().any(|endpoint| srv_domain(endpoint).is_some()) {
        return Ok(endpoints.to_vec());
    }
    let dns = Dns::new().map_err(|e| Error::NoEndpoint(format!("no name server: {e}")))?;
    expand_by(&dns, endpoints).await
}

/// Whom to ask.
struct Dns {
    resolver: TokioResolver,
    /// The first of the name servers, for messages.
    server: String,
}

impl Dns {
    /// As the system is configured.
    fn new() -> Result<Dns, NetError> {
        let (config, options) = read_system_conf()?;
        let server = config.name_servers().first().map_or_else(String::new, |server| {
            let port = server.connections.first().map_or(53, |connection| connection.port);
            SocketAddr::new(server.ip, port).to_string()
        });
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Ok(Dns { resolver: builder.with_options(options).build()?, server })
    }

    /// Why a name was not found.
    fn why(&self, name: &str, error: &NetError) -> String {
        let why = match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => "no such host".to_owned(),
            NetError::Dns(DnsError::ResponseCode(_)) => "server misbehaving".to_owned(),
            NetError::Timeout => "i/o timeout".to_owned(),
            other => other.to_string(),
        };
        format!("lookup {name} on {}: {why}", self.server)
    }
}

async fn expand_by(dns: &Dns, endpoints: &[String]) -> Result<Vec<String>> {
    let mut out = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        match srv_domain(endpoint) {
            None => out.push(endpoint.clone()),
            Some((domain, name)) => out.extend(lookup(dns, domain, name).await?),
        }
    }
    Ok(out)
}

async fn lookup(dns: &Dns, domain: &str, name: &str) -> Result<Vec<String>> {
    let suffix = if name.is_empty() { String::new() } else { format!("-{name}") };
    let mut out = Vec::new();
    let mut whys = Vec::new();
    for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
        let query = format!("_{service}{suffix}._tcp.{domain}");
        // The dot at the end keeps the search list out of it.
        match dns.resolver.srv_lookup(format!("{query}.")).await {
            Err(error) => whys.push(dns.why(&query, &error)),
            Ok(found) => {
                let records = found.answers().iter().filter_map(|answer| match &answer.data {
                    RData::SRV(srv) => {
                        let host = srv.target.to_utf8();
                        let host = host.trim_end_matches('.');
                        let endpoint = format!("{scheme}://{host}:{}", srv.port);
                        Some(Record { priority: srv.priority, weight: srv.weight, endpoint })
                    }
                    _ => None,
                });
                out.extend(in_order(records.collect(), fastrand::u32));
            }
        }
    }
    if out.is_empty() { Err(Error::NoEndpoint(whys.join(" and "))) } else { Ok(out) }
}

/// Smaller priorities first; within one by lot, those of more weight sooner.
fn in_order(
    mut records: Vec<Record>,
    mut draw: impl FnMut(std::ops::RangeInclusive<u32>) -> u32,
) -> Vec<String> {
    // Those without weight stand first in the sum, so that they have a chance at all.
    records.sort_by_key(|r| (r.priority, r.weight));
    let mut out = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|r| r.priority) {
        let same = records.iter().take_while(|r| r.priority == priority);
        let total = same.map(|r| u32::from(r.weight)).sum();
        let mut left = draw(0..=total);
        let drawn = records.iter().position(|r| {
            let weight = u32::from(r.weight);
            let is_it = left <= weight;
            left = left.saturating_sub(weight);
            is_it
        });
        out.push(records.remove(drawn.unwrap_or_default()).endpoint);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{IpAddr, Ipv4Addr};

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use tokio::net::UdpSocket;

    /// `(query, [(priority, weight, port, target)])`.
    type Zone = &'static [(&'static str, &'static [(u16, u16, u16, &'static str)])];

    const ZONE: Zone = &[
        ("_etcd-client-ssl._tcp.both.test", &[(0, 0, 2379, "s.both.test")]),
        (
            "_etcd-client._tcp.both.test",
            &[(20, 1, 1, "late.both.test"), (10, 1, 2, "early.both.test")],
        ),
        ("_etcd-client-blue._tcp.both.test", &[(0, 0, 7, "blue.both.test")]),
    ];

    /// A name as it is sent.
    fn wire(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out
    }

    /// The answer to a query: the zone's records, or that there is no such name.
    fn answer(query: &[u8]) -> Vec<u8> {
        let mut at = 12;
        let mut labels = Vec::new();
        while query[at] != 0 {
            let length = usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase());
            at += length + 1;
        }
        let question = &query[12..at + 5];
        let name = labels.join(".");
        let records = ZONE.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, r)| *r);
        let code = if records.is_empty() { 3 } else { 0 };
        let mut out = query[..2].to_vec();
        // An authority's answer to what was asked, with so many records.
        out.extend_from_slice(&[0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        out.extend_from_slice(question);
        for (priority, weight, port, target) in records {
            let target = wire(target);
            // The name is that of the question; SRV, IN, for a minute.
            out.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            out.extend_from_slice(&(6 + target.len() as u16).to_be_bytes());
            for number in [priority, weight, port] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&target);
        }
        out
    }

    /// A resolver that asks a name server of our own.
    async fn dns() -> Dns {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let mut connection = ConnectionConfig::udp();
        connection.port = socket.local_addr().expect("an address").port();
        let server = socket.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let _ = socket.send_to(&answer(&query[..length]), from).await;
            }
        });
        let mut ours = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        ours.connections = vec![connection];
        let config = ResolverConfig::from_name_servers(vec![ours]);
        let resolver =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build();
        Dns { resolver: resolver.expect("a resolver"), server }
    }

    #[tokio::test]
    async fn dns_names_the_endpoints_secured_ones_first_and_by_priority() {
        let dns = dns().await;
        let expand = async |endpoint: &str| expand_by(&dns, &[endpoint.to_owned()]).await;
        let all =
            ["https://s.both.test:2379", "http://early.both.test:2", "http://late.both.test:1"];
        assert_eq!(expand("srv:both.test").await.expect("records"), all);
        assert_eq!(
            expand("srv://both.test/blue").await.expect("records"),
            ["http://blue.both.test:7"]
        );
        let error = expand("srv:nowhere.test").await.expect_err("no records");
        let why = |service: &str| {
            let server = &dns.server;
            format!("lookup _{service}._tcp.nowhere.test on {server}: no such host")
        };
        let whys = [why("etcd-client-ssl"), why("etcd-client")].join(" and ");
        assert_eq!(error, Error::NoEndpoint(whys));
        assert_eq!(expand("h:1").await.expect("as it is"), ["h:1"]);
    }

    #[test]
    fn weight_decides_within_a_priority() {
        let record =
            |priority, weight, name: &str| Record { priority, weight, endpoint: name.into() };
        let records = || {
            vec![
                record(2, 9, "last"),
                record(1, 0, "never"),
                record(1, 30, "c"),
                record(1, 10, "b"),
            ]
        };
        assert_eq!(in_order(records(), |r| *r.start()), ["never", "b", "c", "last"]);
        assert_eq!(in_order(records(), |r| *r.end()), ["c", "b", "never", "last"]);
        assert_eq!(in_order(records(), |r| (*r.end()).min(10)), ["b", "c", "never", "last"]);
        let mut firsts = std::collections::BTreeMap::new();
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..4000 {
            let order = in_order(records(), |r| rng.u32(r));
            *firsts.entry(order[0].clone()).or_insert(0) += 1;
        }
        assert!((2700..3300).contains(&firsts["c"]), "three quarters: {firsts:?}");
    }
}
