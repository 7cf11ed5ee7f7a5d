//! What the flags of `grpc-proxy start` say, checked as etcd checks it and in its words. Not here: the flags
//! themselves (`flags`), and anything that is done with them.

use std::time::Duration;

use etch_cli::{Failure, Matches};
use etch_client::{Config as ClientConfig, Tls};
use etch_host::logging::{Format, Level, Logger, Outputs};
use etch_host::{log_info, log_warn};
use etch_rpc::Limits;
use etch_tls::{Options, Version};

use super::upstream::Address;
use crate::discover::{Discovery, discover};

/// gRPC's own limit on a message that a client sends.
const MESSAGE: usize = 4 << 20;
/// What grpc-go demands between pings where nothing is said.
const PINGS_APART: Duration = Duration::from_secs(5 * 60);
/// What stands for "as many as gRPC likes".
const LARGEST: usize = i32::MAX as usize;

/// How the cluster is called.
#[derive(Clone)]
pub(super) struct Upwards {
    /// TLS, if any endpoint may speak it.
    pub(super) tls: Option<Tls>,
    /// The largest message sent.
    pub(super) max_send: usize,
    /// The largest message taken.
    pub(super) max_recv: usize,
    /// Between signs of life that connections are asked for, and how long one may take.
    pub(super) keepalive: Option<(Duration, Duration)>,
    /// Whether idle connections are asked, too.
    pub(super) permit_without_stream: bool,
    /// Between questions for the cluster's members, whose URLs become the endpoints.
    pub(super) sync_every: Option<Duration>,
}

/// Where pages are served besides.
pub(super) struct MetricsPort {
    /// `host:port`, or the path of a Unix socket.
    pub(super) address: String,
    /// Whether it is the latter.
    pub(super) unix: bool,
    /// Over TLS.
    pub(super) tls: bool,
}

/// Everything.
pub(super) struct Config {
    pub(super) listen: String,
    pub(super) metrics: Option<MetricsPort>,
    pub(super) endpoints: Vec<String>,
    pub(super) upwards: Upwards,
    /// TLS for clients. Without a certificate one has to be made.
    pub(super) listen_tls: Option<Options>,
    pub(super) data_dir: String,
    pub(super) self_signed_years: u64,
    pub(super) advertised: String,
    pub(super) resolver_prefix: String,
    pub(super) resolver_ttl: i64,
    pub(super) namespace: String,
    pub(super) leasing_prefix: String,
    pub(super) ordering: bool,
    pub(super) log_calls: bool,
    pub(super) pprof: bool,
    pub(super) limits: Limits,
}

/// What a start refuses, said as etcd says it.
pub(super) fn refused(why: impl std::fmt::Display) -> Failure {
    eprintln!("{why}");
    Failure::silent(1)
}

/// The log that the flags ask for.
pub(super) fn log(matches: &Matches) -> Logger {
    let level = if matches.is_on("debug") { Level::Debug } else { Level::Info };
    Logger::new(level, Format::Json, Outputs::stderr())
}

impl Config {
    /// Checks the flags, and asks DNS for the endpoints where it is to be asked.
    pub(super) async fn new(matches: &Matches, log: &Logger) -> Result<Config, Failure> {
        check_resolver(matches)?;
        let listen_tls = listen_tls(matches)?;
        let metrics = metrics_port(matches.text("metrics-addr"))?;
        let upwards = upwards(matches, log)?;
        Ok(Config {
            listen: matches.text("listen-addr").to_owned(),
            metrics,
            endpoints: endpoints(matches, log).await?,
            upwards,
            listen_tls,
            data_dir: matches.text("data-dir").to_owned(),
            self_signed_years: matches.unsigned("self-signed-cert-validity"),
            advertised: matches.text("advertise-client-url").to_owned(),
            resolver_prefix: matches.text("resolver-prefix").to_owned(),
            resolver_ttl: matches.number("resolver-ttl"),
            namespace: matches.text("namespace").to_owned(),
            leasing_prefix: matches.text("experimental-leasing-prefix").to_owned(),
            ordering: matches.is_on("experimental-serializable-ordering"),
            log_calls: matches.is_on("experimental-enable-grpc-logging"),
            pprof: matches.is_on("enable-pprof"),
            limits: limits(matches),
        })
    }

    /// The endpoints as addresses.
    pub(super) fn addresses(&self) -> Result<Vec<Address>, Failure> {
        addresses(&self.endpoints, self.upwards.tls.is_some()).map_err(refused)
    }

    /// The Rust client's view of the same cluster.
    pub(super) fn client(&self) -> ClientConfig {
        let up = &self.upwards;
        let mut config = ClientConfig::new(self.endpoints.clone())
            .max_call_send_msg_size(up.max_send)
            .max_call_recv_msg_size(up.max_recv)
            .permit_without_stream(up.permit_without_stream)
            .auto_sync_interval(up.sync_every.unwrap_or_default());
        if let Some(tls) = &up.tls {
            config = config.tls(tls.clone());
        }
        config
    }
}

fn check_resolver(matches: &Matches) -> Result<(), Failure> {
    let prefix = matches.text("resolver-prefix");
    let ttl = matches.number("resolver-ttl");
    if !prefix.is_empty() && ttl < 1 {
        return Err(refused(format!("invalid resolver-ttl {ttl}")));
    }
    if prefix.is_empty() && ttl > 0 {
        return Err(refused("invalid resolver-prefix \"\""));
    }
    if !prefix.is_empty() && matches.text("advertise-client-url").is_empty() {
        return Err(refused("invalid advertise-client-url \"\""));
    }
    Ok(())
}

fn listen_tls(matches: &Matches) -> Result<Option<Options>, Failure> {
    if matches.is_on("auto-tls") && matches.unsigned("self-signed-cert-validity") == 0 {
        return Err(refused("selfSignedCertValidity is invalid,it should be greater than 0"));
    }
    let version = |flag: &str| {
        let wrong = |why| refused(format!("{flag} is invalid: {why}"));
        Version::parse(matches.text(flag)).map_err(wrong)
    };
    let (min, max) = (version("tls-min-version")?, version("tls-max-version")?);
    if let (Some(low), Some(high)) = (min, max)
        && low > high
    {
        let (low, high) = (matches.text("tls-min-version"), matches.text("tls-max-version"));
        return Err(refused(format!("min version ({low}) is greater than max version ({high})")));
    }
    let suites = matches.list("listen-cipher-suites").to_vec();
    if min == Some(Version::Tls13) && !suites.is_empty() {
        return Err(refused("cipher suites cannot be configured when only TLS1.3 is enabled"));
    }
    let options = Options {
        cert_file: matches.text("cert-file").to_owned(),
        key_file: matches.text("key-file").to_owned(),
        trusted_ca_file: matches.text("trusted-ca-file").to_owned(),
        crl_file: matches.text("client-crl-file").to_owned(),
        cipher_suites: suites,
        min_version: min.unwrap_or_default(),
        max_version: max,
        ..Options::default()
    };
    let given = !options.is_empty() || !options.trusted_ca_file.is_empty();
    Ok((given || matches.is_on("auto-tls")).then_some(options))
}

fn metrics_port(url: &str) -> Result<Option<MetricsPort>, Failure> {
    if url.is_empty() {
        return Ok(None);
    }
    let wrong = || refused(format!("cannot parse {}", etch_cli::go::quote(url)));
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (unix, tls) = match scheme {
        "http" => (false, false),
        "https" => (false, true),
        "unix" => (true, false),
        "unixs" => (true, true),
        _ => return Err(wrong()),
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A socket's name is what stands for the host; where none does, the path is.
    let address = if unix && host.is_empty() { rest } else { host }.to_owned();
    if address.is_empty() {
        return Err(wrong());
    }
    Ok(Some(MetricsPort { address, unix, tls }))
}

fn upwards(matches: &Matches, log: &Logger) -> Result<Upwards, Failure> {
    let span = |flag| Duration::from_nanos(u64::try_from(matches.duration_ns(flag)).unwrap_or(0));
    let size = |flag, default| match usize::try_from(matches.number(flag)) {
        Ok(0) | Err(_) => default,
        Ok(size) => size,
    };
    let time = span("dial-keepalive-time");
    // Below this gRPC itself goes, whatever it is told.
    let time = if time.is_zero() { time } else { time.max(Duration::from_secs(10)) };
    let limit = span("dial-keepalive-timeout");
    let limit = if limit.is_zero() { Duration::from_secs(20) } else { limit };
    let (max_send, max_recv) = (size("max-send-bytes", 2 << 20), size("max-recv-bytes", LARGEST));
    if max_send > max_recv {
        return Err(refused(format!(
            "gRPC message recv limit ({max_recv} bytes) must be greater than send limit ({max_send} bytes)"
        )));
    }
    Ok(Upwards {
        tls: upstream_tls(matches, log)?,
        max_send,
        max_recv,
        keepalive: (!time.is_zero()).then_some((time, limit)),
        permit_without_stream: matches.is_on("permit-without-stream"),
        sync_every: Some(span("endpoints-auto-sync-interval")).filter(|every| !every.is_zero()),
    })
}

/// Certificates towards the cluster. One of our own must bear no name: a member with authentication on would
/// take every client of the proxy for the user of that name.
fn upstream_tls(matches: &Matches, log: &Logger) -> Result<Option<Tls>, Failure> {
    let (ca, cert, key) = (matches.text("cacert"), matches.text("cert"), matches.text("key"));
    let skip = matches.is_on("insecure-skip-tls-verify");
    if ca.is_empty() && cert.is_empty() && key.is_empty() && !skip {
        return Ok(None);
    }
    if cert.is_empty() != key.is_empty() {
        return Err(refused(format!(
            "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
        )));
    }
    let mut tls = Tls::new();
    if !ca.is_empty() {
        tls = tls.ca_file(ca);
    }
    if !cert.is_empty() {
        check_nameless(cert)?;
        tls = tls.identity_files(cert, key);
    }
    if skip {
        log_warn!(
            log,
            "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server TLS certificates. This option should be enabled only for testing purposes."
        );
        tls = tls.dangerously_skip_verify();
    }
    tls.load().map_err(refused)?;
    log_info!(log, "gRPC proxy client TLS", "tls-info" => format!("cert = {cert}, key = {key}, trusted-ca = {ca}"));
    Ok(Some(tls))
}

fn check_nameless(path: &str) -> Result<(), Failure> {
    let text = std::fs::read(path).map_err(|error| {
        refused(etch_cli::go::io_error("open", std::path::Path::new(path), &error))
    })?;
    let named = x509_parser::pem::parse_x509_pem(&text).ok().and_then(|(_, pem)| {
        let parsed = pem.parse_x509().ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        (!name.is_empty()).then_some(name)
    });
    match named {
        None => Ok(()),
        Some(name) => Err(refused(format!("cert has non empty Common Name ({name}): {path}"))),
    }
}

async fn endpoints(matches: &Matches, log: &Logger) -> Result<Vec<String>, Failure> {
    let discovery = Discovery {
        domain: matches.text("discovery-srv"),
        name: matches.text("discovery-srv-name"),
        insecure: matches.is_on("insecure-discovery"),
        ca_file: matches.text("cacert"),
    };
    let found = discover(&discovery, log).await.map_err(refused)?;
    if !found.is_empty() {
        return Ok(found.iter().map(crate::discover::Target::url).collect());
    }
    let named = matches.list("endpoints").to_vec();
    if named.is_empty() {
        return Err(refused("etcdclient: no available endpoints"));
    }
    Ok(named)
}

/// Endpoints as they are written on a command line or in a list of members. One without a scheme speaks TLS
/// where there are certificates for it.
pub(super) fn addresses(endpoints: &[String], has_tls: bool) -> Result<Vec<Address>, String> {
    let parse = |endpoint: &String| {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let tls = match scheme {
            "" => has_tls,
            "http" => false,
            "https" => true,
            other => return Err(format!("unsupported scheme {other} in endpoint {endpoint}")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match crate::sockets::split(authority) {
            Some((host, _)) if !host.is_empty() => {
                let wrong = |_| format!("error parsing endpoint {endpoint}");
                Ok(Address { authority: authority.parse().map_err(wrong)?, tls })
            }
            _ => Err(format!("error parsing endpoint {endpoint}")),
        }
    };
    endpoints.iter().map(parse).collect()
}

/// What a connection of a client's may take.
fn limits(matches: &Matches) -> Limits {
    let span = |flag| match u64::try_from(matches.duration_ns(flag)) {
        Ok(0) | Err(_) => None,
        Ok(nanos) => Some(Duration::from_nanos(nanos)),
    };
    let defaults = Limits::default();
    let streams = u32::try_from(matches.unsigned("max-concurrent-streams")).unwrap_or(u32::MAX);
    Limits {
        max_concurrent_streams: match streams {
            0 => defaults.max_concurrent_streams,
            streams => streams.min(defaults.max_concurrent_streams),
        },
        max_recv_message: MESSAGE,
        max_send_message: LARGEST,
        keepalive_min_time: span("grpc-keepalive-min-time").unwrap_or(PINGS_APART),
        keepalive_interval: span("grpc-keepalive-interval").or(defaults.keepalive_interval),
        keepalive_timeout: span("grpc-keepalive-timeout").unwrap_or(defaults.keepalive_timeout),
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_with_or_without_a_scheme() {
        let read = |text: &str, tls| addresses(&[text.to_owned()], tls);
        let address = |authority: &str, tls| {
            Ok(vec![Address { authority: authority.parse().expect("an authority"), tls }])
        };
        assert_eq!(read("127.0.0.1:1", false), address("127.0.0.1:1", false));
        assert_eq!(read("127.0.0.1:1", true), address("127.0.0.1:1", true));
        assert_eq!(read("http://[::1]:2/", true), address("[::1]:2", false));
        assert_eq!(read("https://host:3", false), address("host:3", true));
        for wrong in ["host", ":5", "ftp://host:1", "http://", ""] {
            assert!(read(wrong, false).is_err(), "{wrong}");
        }
    }
}
