//! From the flags to the TLS of clients and of peers, with etcd's lines in the log. Not here: TLS itself
//! (`etch_tls`), and what is listened on (`bind`).

use std::path::Path;
use std::sync::Arc;

use etch_tls::{Acceptor, Event, Options, Version, self_signed};

use crate::config::{Config, Tls, Url};
use crate::logging::Logger;
use crate::{log_info, log_warn};

/// The TLS of both sides, as far as it is asked for.
#[derive(Debug)]
pub struct Secure {
    /// Towards clients.
    pub client: Option<Arc<Acceptor>>,
    /// Towards other members.
    pub peer: Option<Arc<Acceptor>>,
}

impl Secure {
    /// Reads the files, or makes those that are to be made.
    pub fn new(config: &Config, log: &Logger) -> Result<Secure, String> {
        etch_tls::check_ciphers(&config.cipher_suites)?;
        let urls = |lists: &[&Vec<Url>]| -> Vec<String> {
            lists.iter().flat_map(|list| list.iter()).map(|url| url.host.clone()).collect()
        };
        let peer = urls(&[&config.listen_peer_urls]);
        let client = urls(&[&config.listen_client_urls, &config.listen_client_http_urls]);
        Ok(Secure {
            peer: side("peer", &config.peer_tls, &peer, config, log)?,
            client: side("client", &config.client_tls, &client, config, log)?,
        })
    }
}

fn side(
    name: &'static str,
    tls: &Tls,
    hosts: &[String],
    config: &Config,
    log: &Logger,
) -> Result<Option<Arc<Acceptor>>, String> {
    let mut options = options(tls, config)?;
    if tls.auto {
        if options.is_empty() {
            make_own(name, &mut options, hosts, config, log)?;
        } else {
            log_warn!(log, &format!("ignoring {name} auto TLS since certs given"));
        }
    }
    if options.is_empty() {
        return Ok(None);
    }
    log_info!(
        log,
        &format!("starting with {name} TLS"),
        "tls-info" => info(&options),
        "cipher-suites" => options.cipher_suites,
    );
    let told = log.clone();
    let tell = Box::new(move |event: Event| match event {
        Event::Reloaded(files) => {
            log_info!(told, "reloaded TLS files; new connections use them", "endpoint" => name, "files" => files);
        }
        Event::Kept(why) => {
            log_warn!(told, "failed to reload TLS files; those of before are kept", "endpoint" => name, "error" => why);
        }
        Event::Warning(what) => log_warn!(told, "TLS", "endpoint" => name, "warning" => what),
    });
    let acceptor = Acceptor::new(options, tell).map_err(|why| format!("{name} TLS: {why}"))?;
    Ok(Some(Arc::new(acceptor)))
}

/// Takes the certificate that an earlier start has made, or makes one.
fn make_own(
    name: &str,
    options: &mut Options,
    hosts: &[String],
    config: &Config,
    log: &Logger,
) -> Result<(), String> {
    let dir = Path::new(&config.data_dir).join("fixtures").join(name);
    let made = self_signed(&dir, hosts, config.self_signed_cert_validity)
        .map_err(|why| format!("failed to get {name} self-signed certs: {why}"))?;
    options.cert_file = made.cert_file.display().to_string();
    options.key_file = made.key_file.display().to_string();
    if let Some(end) = made.made_until {
        log_warn!(log, "automatically generate certificates", "certificate-validity-bound-not-after" => end);
        log_info!(log, "created cert file", "path" => options.cert_file);
        log_info!(log, "created key file", "path" => options.key_file);
    }
    Ok(())
}

/// The flags as the options of one side.
pub fn options(tls: &Tls, config: &Config) -> Result<Options, String> {
    Ok(Options {
        cert_file: tls.cert_file.clone(),
        key_file: tls.key_file.clone(),
        client_cert_file: tls.client_cert_file.clone(),
        client_key_file: tls.client_key_file.clone(),
        client_cert_auth: tls.client_cert_auth,
        trusted_ca_file: tls.trusted_ca_file.clone(),
        crl_file: tls.crl_file.clone(),
        allowed_cns: tls.allowed_cn.clone(),
        allowed_hostnames: tls.allowed_hostname.clone(),
        cipher_suites: config.cipher_suites.clone(),
        min_version: Version::parse(&config.tls_min_version)?.unwrap_or_default(),
        max_version: Version::parse(&config.tls_max_version)?,
    })
}

fn info(options: &Options) -> String {
    format!(
        "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, \
         crl-file = {}",
        options.cert_file,
        options.key_file,
        options.client_cert_file,
        options.client_key_file,
        options.trusted_ca_file,
        options.client_cert_auth,
        options.crl_file
    )
}
