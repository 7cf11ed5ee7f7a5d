//! What the flags say of the cluster to begin with, and of compaction: values that follow from several
//! flags. Not here: the cluster itself.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use super::urls::{self, Url};
use super::{Config, values};

/// The initial cluster that nobody has named.
pub(super) const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";

const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";

/// What is compacted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing.
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// All but so many revisions.
    Revision(i64),
}

impl Config {
    /// What `--auto-compaction-*` mean together.
    pub fn auto_compaction(&self) -> Result<AutoCompaction, String> {
        let text = self.auto_compaction_retention.as_str();
        let number = text.parse::<i64>().ok().filter(|n| *n >= 0);
        let revisions = self.auto_compaction_mode == "revision";
        Ok(match number {
            Some(0) => AutoCompaction::Off,
            Some(n) if revisions => AutoCompaction::Revision(n),
            Some(hours) => AutoCompaction::Periodic(Duration::from_secs(
                hours.unsigned_abs().saturating_mul(3600),
            )),
            None => {
                let nanos = values::parse_duration(text)
                    .map_err(|why| format!("error parsing CompactionRetention: {why}"))?;
                match nanos {
                    ..=0 => AutoCompaction::Off,
                    _ if revisions => {
                        return Err(format!(
                            "error parsing CompactionRetention: {text:?} is not a number of revisions"
                        ));
                    }
                    _ => AutoCompaction::Periodic(values::duration(nanos)),
                }
            }
        })
    }

    /// Fills in what follows from other flags: the host to advertise where the default would be of no use
    /// to others, the initial cluster under the member's own name, and the data directory. Gives the host,
    /// if it was needed.
    pub(super) fn complete(&mut self) -> Option<String> {
        let host = default_host();
        let mut used = None;
        let wildcard = |urls: &[Url]| {
            urls.first()
                .and_then(Url::split_host)
                .filter(|(host, _)| *host == "0.0.0.0")
                .map(|p| p.1.to_owned())
        };
        if let Some(host) = &host {
            for (advertised, default, listened) in [
                (&mut self.initial_advertise_peer_urls, DEFAULT_PEER_URL, &self.listen_peer_urls),
                (&mut self.advertise_client_urls, DEFAULT_CLIENT_URL, &self.listen_client_urls),
            ] {
                if let (true, Some(port)) = (urls::join(advertised) == default, wildcard(listened))
                {
                    advertised[0].host = format!("{host}:{port}");
                    used = Some(host.clone());
                }
            }
        }
        if self.name != "default" && self.initial_cluster == DEFAULT_CLUSTER {
            self.initial_cluster = self.cluster_of_own_name();
        }
        used
    }

    fn cluster_of_own_name(&self) -> String {
        let name = if self.name.is_empty() { "default" } else { self.name.as_str() };
        let own = |url: &Url| format!("{name}={url}");
        self.initial_advertise_peer_urls.iter().map(own).collect::<Vec<_>>().join(",")
    }

    /// Whether a member without data may begin a cluster as the flags say: alone, and under the URLs that
    /// it advertises. The texts are etcd's where etcd refuses as well.
    pub fn check_bootstrap(&self) -> Result<(), String> {
        let cluster = self.initial_members()?;
        let Some((_, own)) = cluster.iter().find(|(name, _)| *name == self.name) else {
            return Err(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        };
        self.check_own_urls(own)?;
        if self.initial_cluster_state == "existing" {
            return Err("cannot fetch cluster info from peer urls: could not retrieve cluster \
                 information from the given URLs (this release of etch serves clusters of one \
                 member, and cannot join another)"
                .to_owned());
        }
        if cluster.len() > 1 {
            return Err(format!(
                "--initial-cluster names {} members, but this release of etch serves clusters of \
                 one member: name this member alone",
                cluster.len()
            ));
        }
        Ok(())
    }

    /// The members of `--initial-cluster`, each with its URLs.
    fn initial_members(&self) -> Result<Vec<(String, Vec<Url>)>, String> {
        let mut members: Vec<(String, Vec<Url>)> = Vec::new();
        for pair in self.initial_cluster.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (name, url) = pair.trim().split_once('=').unwrap_or((pair.trim(), ""));
            let url = Url::parse(url)
                .map_err(|why| format!("error setting up initial cluster: {why}"))?;
            match members.iter_mut().find(|(known, _)| known == name) {
                Some((_, list)) => list.push(url),
                None => members.push((name.to_owned(), vec![url])),
            }
        }
        Ok(members)
    }

    fn check_own_urls(&self, own: &[Url]) -> Result<(), String> {
        let advertised = &self.initial_advertise_peer_urls;
        if same_addresses(own, advertised) {
            return Ok(());
        }
        let mut own = own.to_vec();
        own.sort();
        let list = |urls: &[Url]| {
            urls::strings(urls).iter().map(|url| format!("{url:?}")).collect::<Vec<_>>().join(" ")
        };
        let pairs: Vec<String> = own.iter().map(|url| format!("{}={url}", self.name)).collect();
        Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} \
             (resolved urls: {} != {})",
            pairs.join(","),
            urls::join(advertised),
            list(advertised),
            list(&own),
        ))
    }
}

/// True if both lists name the same addresses, by their texts or once their names are resolved.
fn same_addresses(a: &[Url], b: &[Url]) -> bool {
    let texts = |urls: &[Url]| {
        let mut texts = urls::strings(urls);
        texts.sort();
        texts
    };
    let resolved = |urls: &[Url]| -> Option<Vec<(String, SocketAddr)>> {
        let mut list = Vec::with_capacity(urls.len());
        for url in urls.iter() {
            let address = if url.is_unix() { None } else { url.host.to_socket_addrs().ok()?.min() };
            list.push((url.scheme.clone(), address?));
        }
        list.sort();
        Some(list)
    };
    texts(a) == texts(b)
        || a.len() == b.len() && resolved(a).is_some_and(|a| resolved(b).is_some_and(|b| a == b))
}

/// The address that this machine has on its way out: asked of the routing table, nothing is sent.
fn default_host() -> Option<String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then(|| address.to_string())
}
