//! A cluster's endpoints from DNS: its SRV records, with priority and weight, and the check that those who
//! answer there can prove to be whom DNS was asked for. Not here: how an endpoint is then chosen.

use std::sync::Arc;
use std::time::Duration;

use etch_client::Tls;
use etch_host::logging::Logger;
use etch_host::{log_info, log_warn};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::sockets;

/// An endpoint has so long to show its certificate.
const PROVE_WITHIN: Duration = Duration::from_secs(5);

/// One of a cluster's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its host.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Lower ones are used as long as one of them answers.
    pub(crate) priority: u16,
    /// Its share among those of its priority.
    pub(crate) weight: u16,
    /// Whether it is found under the secured service.
    pub(crate) secured: bool,
}

impl Target {
    /// One that is named on the command line.
    pub(crate) fn plain(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, priority: 0, weight: 0, secured: false }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        sockets::join(&self.host, self.port)
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.secured { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }
}

/// What the flags say about discovery.
pub(crate) struct Discovery<'a> {
    /// The domain; nothing is looked up where it is empty.
    pub(crate) domain: &'a str,
    /// Behind the service's name.
    pub(crate) name: &'a str,
    /// Whether what DNS says is believed.
    pub(crate) insecure: bool,
    /// The authorities that endpoints' certificates are from.
    pub(crate) ca_file: &'a str,
}

/// The endpoints that DNS names for a domain and that are who they should be.
///
/// # Errors
/// What is to be said if DNS has none.
pub(crate) async fn discover(what: &Discovery<'_>, log: &Logger) -> Result<Vec<Target>, String> {
    if what.domain.is_empty() {
        return Ok(Vec::new());
    }
    let builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    discover_with(&resolver, what, log).await
}

async fn discover_with(
    resolver: &TokioResolver,
    what: &Discovery<'_>,
    log: &Logger,
) -> Result<Vec<Target>, String> {
    let mut found = lookup(resolver, what.domain, what.name).await?;
    let urls = |targets: &[Target]| targets.iter().map(Target::url).collect::<Vec<_>>();
    log_info!(log, "discovered cluster from SRV", "srv-server" => what.domain, "endpoints" => urls(&found));
    if what.insecure {
        return Ok(found);
    }
    log_info!(log, "validating discovered SRV endpoints", "srv-server" => what.domain, "endpoints" => urls(&found));
    let wrong = keep_proven(&mut found, what).await;
    if wrong.is_empty() {
        log_info!(log, "using validated discovered SRV endpoints", "srv-server" => what.domain, "endpoints" => urls(&found));
    } else {
        log_warn!(log, "failed to validate discovered endpoints", "srv-server" => what.domain, "endpoints" => urls(&found), "error" => wrong.join(","));
    }
    Ok(found)
}

/// The records of the secured service and those of the open one, each by priority.
async fn lookup(resolver: &TokioResolver, domain: &str, name: &str) -> Result<Vec<Target>, String> {
    let suffix = if name.is_empty() { String::new() } else { format!("-{name}") };
    let mut out = Vec::new();
    let mut wrong = Vec::new();
    for (service, secured) in [("etcd-client-ssl", true), ("etcd-client", false)] {
        let query = format!("_{service}{suffix}._tcp.{domain}");
        let found = match resolver.srv_lookup(format!("{query}.")).await {
            Ok(found) => found,
            Err(error) => {
                let why = if error.is_no_records_found() {
                    "no such host".to_owned()
                } else {
                    error.to_string()
                };
                wrong.push(format!("lookup {query}: {why}"));
                continue;
            }
        };
        let first = out.len();
        for record in found.answers() {
            if let RData::SRV(srv) = &record.data {
                out.push(Target {
                    host: srv.target.to_utf8(),
                    port: srv.port,
                    priority: srv.priority,
                    weight: srv.weight,
                    secured,
                });
            }
        }
        out[first..].sort_by_key(|target| target.priority);
    }
    if out.is_empty() {
        return Err(format!("dns lookup errors: {}", wrong.join(" and ")));
    }
    Ok(out)
}

/// Keeps those whose certificate is one for the domain, and says what is wrong with the others.
async fn keep_proven(found: &mut Vec<Target>, what: &Discovery<'_>) -> Vec<String> {
    let connector = match connector(what) {
        Ok(connector) => connector,
        Err(why) => {
            found.clear();
            return vec![why];
        }
    };
    let mut wrong = Vec::new();
    let mut proven = Vec::new();
    for target in found.drain(..) {
        let url = etch_cli::go::quote(target.url());
        if !target.secured {
            wrong.push(format!("{url} is insecure"));
            continue;
        }
        match prove(&connector, &target, what.domain).await {
            Ok(()) => proven.push(target),
            Err(why) => wrong.push(format!("{url} failed to dial ({why})")),
        }
    }
    *found = proven;
    wrong
}

fn connector(what: &Discovery<'_>) -> Result<TlsConnector, String> {
    let tls = match what.ca_file {
        "" => Tls::new(),
        path => Tls::new().ca_file(path),
    };
    let config = tls.load().map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(Arc::clone(&config)))
}

async fn prove(connector: &TlsConnector, target: &Target, domain: &str) -> Result<(), String> {
    let name = domain.trim_end_matches('.').to_owned();
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let stream =
        sockets::dial(&target.address(), PROVE_WITHIN).await.map_err(|error| error.to_string())?;
    match tokio::time::timeout(PROVE_WITHIN, connector.connect(name, stream)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("TLS handshake timeout".to_owned()),
    }
}
