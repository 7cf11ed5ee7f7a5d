//! What is listened on: each address once, with what the URLs that name it offer there. Not here: accepting
//! (`accept`), and the files of TLS (`secure`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use etch_tls::Acceptor;

use super::accept::Listener;
use super::port::{Offer, Port};
use super::secure::Secure;
use crate::config::{Config, Tls, Url};
use crate::logging::Logger;
use crate::{log_info, log_warn};

/// Binds every port before anything is changed on disk: an address in use is found at once.
pub fn bind(config: &Config, log: &Logger) -> Result<Vec<Listener>, String> {
    let secure = Secure::new(config, log)?;
    let mut ports = Vec::new();
    warn_of_plain("peer-url", &config.listen_peer_urls, &config.peer_tls, &secure.peer, log);
    for url in &config.listen_peer_urls {
        if url.is_tls() && secure.peer.is_none() {
            return Err(format!(
                "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                url.host
            ));
        }
        add(&mut ports, url, Offer::Peer, &secure.peer)?;
    }
    clients(config, &secure, &mut ports, log)?;
    for url in &config.listen_metrics_urls {
        if url.is_tls() && secure.client.is_none() {
            return Err(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics \
                 secure url"
                    .to_owned(),
            );
        }
        add(&mut ports, url, Offer::Metrics, &secure.client)?;
    }
    let skip_peer_san = config.peer_tls.skip_client_san_verification;
    ports.into_iter().map(|wanted| wanted.listen(skip_peer_san, log)).collect()
}

fn clients(
    config: &Config,
    secure: &Secure,
    ports: &mut Vec<Wanted>,
    log: &Logger,
) -> Result<(), String> {
    let split = !config.listen_client_http_urls.is_empty();
    let client = if split { Offer::Grpc } else { Offer::Everything };
    let lists =
        [(&config.listen_client_urls, client), (&config.listen_client_http_urls, Offer::Pages)];
    for (urls, offer) in lists {
        warn_of_plain("client-url", urls, &config.client_tls, &secure.client, log);
        for url in urls.iter().filter(|url| url.is_tls()) {
            let Some(tls) = &secure.client else {
                return Err(format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} \
                     with HTTPS scheme"
                ));
            };
            if offer != Offer::Grpc && config.tls_min_version != "TLS1.3" {
                etch_tls::check_http2(&tls.options().cipher_suites)?;
            }
        }
    }
    for (urls, offer) in lists {
        for url in urls {
            add(ports, url, offer, &secure.client)?;
        }
    }
    Ok(())
}

fn warn_of_plain(
    key: &str,
    urls: &[Url],
    tls: &Tls,
    acceptor: &Option<Arc<Acceptor>>,
    log: &Logger,
) {
    for url in urls.iter().filter(|url| !url.is_tls()) {
        if acceptor.is_some() {
            log_warn!(log, "scheme is http or unix while key and cert files are present; ignoring key and cert files", key => url.to_string());
        }
        if tls.client_cert_auth {
            log_warn!(log, "scheme is http or unix while client cert auth is enabled; ignoring client cert auth for this URL", key => url.to_string());
        }
    }
}

/// One address, and what it is to offer.
struct Wanted {
    url: Url,
    offer: Offer,
    plain: bool,
    tls: Option<Arc<Acceptor>>,
}

/// Adds a URL. Two that differ in nothing but TLS share a socket, on which both are spoken.
fn add(
    ports: &mut Vec<Wanted>,
    url: &Url,
    offer: Offer,
    tls: &Option<Arc<Acceptor>>,
) -> Result<(), String> {
    let same = |wanted: &&mut Wanted| {
        wanted.url.is_unix() == url.is_unix()
            && wanted.url.socket_path() == url.socket_path()
            && (wanted.offer == offer || (wanted.offer == Offer::Grpc && offer == Offer::Pages))
    };
    let tls = if url.is_tls() { tls.clone() } else { None };
    match ports.iter_mut().find(same) {
        Some(wanted) if wanted.offer != offer => Err(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        )),
        Some(wanted) => {
            wanted.plain |= tls.is_none();
            wanted.tls = wanted.tls.take().or(tls);
            Ok(())
        }
        None => {
            ports.push(Wanted { url: url.clone(), offer, plain: tls.is_none(), tls });
            Ok(())
        }
    }
}

impl Wanted {
    fn listen(self, skip_peer_san: bool, log: &Logger) -> Result<Listener, String> {
        let Wanted { url, offer, plain, tls } = self;
        let port = Arc::new(Port { offer, plain, tls, skip_peer_san });
        let listener = open(&url, port).map_err(|e| format!("listen {url}: {e}"))?;
        let what = match offer {
            Offer::Peer => "listening for peer traffic",
            Offer::Everything | Offer::Grpc => "listening for client traffic",
            Offer::Pages => "listening for client HTTP traffic",
            Offer::Metrics => "serving metrics and health",
        };
        log_info!(log, what, "address" => listener.address());
        Ok(listener)
    }
}

fn open(url: &Url, port: Arc<Port>) -> io::Result<Listener> {
    if url.is_unix() {
        Listener::unix(Path::new(&url.socket_path()), port)
    } else {
        Listener::tcp(&url.host, port)
    }
}

/// Says of each client port how its clients are served.
pub fn log_serving(listeners: &[Served], log: &Logger) {
    for Served { address, traffic, plain, tls } in listeners {
        if *plain {
            log_info!(log, "serving client traffic insecurely; this is strongly discouraged!", "traffic" => traffic, "address" => address);
        }
        if *tls {
            log_info!(log, "serving client traffic securely", "traffic" => traffic, "address" => address);
        }
    }
}

/// A client port, for the log.
pub struct Served {
    address: String,
    traffic: &'static str,
    plain: bool,
    tls: bool,
}

impl Served {
    /// The client ports among these.
    pub fn of(listeners: &[Listener]) -> Vec<Served> {
        let clients = listeners
            .iter()
            .filter(|listener| !matches!(listener.port.offer, Offer::Metrics | Offer::Peer));
        let served = clients.map(|listener| Served {
            address: listener.address(),
            traffic: listener.port.offer.traffic(),
            plain: listener.port.plain,
            tls: listener.port.tls.is_some(),
        });
        served.collect()
    }
}
