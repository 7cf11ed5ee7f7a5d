//! Endpoints from DNS: the SRV records that etcd's own tools ask for.

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::config::address::srv_domain;
use crate::error::{Error, Result};

/// Replaces each `srv:` endpoint by those that DNS names. Secured services come first.
pub(crate) async fn expand(endpoints: &[String]) -> Result<Vec<String>> {
    let mut out = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        match srv_domain(endpoint) {
            None => out.push(endpoint.clone()),
            Some((domain, name)) => out.extend(lookup(domain, name).await?),
        }
    }
    Ok(out)
}

async fn lookup(domain: &str, name: &str) -> Result<Vec<String>> {
    let failed = |why: String| Error::NoEndpoint(format!("srv:{domain}: {why}"));
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|e| failed(e.to_string()))?;
    let suffix = if name.is_empty() { String::new() } else { format!("-{name}") };
    let mut out = Vec::new();
    let mut why = String::new();
    for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
        let query = format!("_{service}{suffix}._tcp.{domain}.");
        match resolver.srv_lookup(query).await {
            Err(error) => why = error.to_string(),
            Ok(found) => {
                for record in found.answers() {
                    if let RData::SRV(srv) = &record.data {
                        let host = srv.target.to_utf8();
                        out.push(format!("{scheme}://{}:{}", host.trim_end_matches('.'), srv.port));
                    }
                }
            }
        }
    }
    if out.is_empty() { Err(failed(why)) } else { Ok(out) }
}
