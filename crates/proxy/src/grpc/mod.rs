//! `grpc-proxy`: speaks gRPC on both sides. What many clients ask for alike, watches and renewals of leases
//! above all, the cluster is asked for once.
//!
//! Here: `configure -> resolve -> bind -> serve -> drain`. Everything of the proxy's runs on one thread, so what
//! clients share needs no lock. Not here: storage, retries that are a client's business, and what only a member may
//! decide: each call goes to the cluster with its client's own token.

mod cache;
mod calls;
mod cluster;
mod config;
mod flags;
mod forward;
mod keepalive;
mod layers;
mod listen;
mod methods;
mod metrics;
mod namespace;
mod pages;
mod relay;
mod upstream;
mod watch;
mod wire;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etch_cli::{Failure, Matches};
use etch_client::Client;
use etch_client::naming::Manager;
use etch_host::logging::Logger;
use etch_host::{log_info, log_warn, notify};
use etch_json::Gateway;
use etch_rpc::{Code, Limits, Stats, Status};
use etch_tls::{Acceptor, Bounds, Event, Gate, self_signed};
use etch_transcode::Common;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Notify, watch as channel};
use tokio::task::LocalSet;

use crate::signals::Signals;
use crate::sockets;
use cache::Cache;
use calls::Calls;
use cluster::{Members, Registration};
use config::{Config, refused};
pub(crate) use flags::flags;
use keepalive::Lines;
use layers::Layers;
use listen::{Listener, Port};
use namespace::Keys;
use upstream::Upstream;
use watch::Hub;

/// Calls under way have so long to end once the proxy stops.
const GRACE: Duration = Duration::from_secs(10);

/// The proxy. Everything on its thread shares it.
pub(crate) struct Proxy {
    upstream: Rc<Upstream>,
    hub: Hub,
    cache: Cache,
    lines: Lines,
    members: Members,
    keys: Keys,
    layers: Option<Layers>,
    /// The API as JSON.
    json: Arc<Common>,
    calls: Calls,
    stats: Stats,
    limits: Rc<Limits>,
    log: Logger,
    log_calls: bool,
    pprof: bool,
    connections: Cell<usize>,
    one_less: Notify,
    stop: channel::Receiver<bool>,
}

impl Proxy {
    /// Completes when the proxy stops.
    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.clone();
        async move {
            // The sender goes only when the proxy has stopped.
            let _ = stop.wait_for(|stopped| *stopped).await;
        }
    }

    /// Runs a test on a thread with local tasks, with a proxy that has no cluster and a clock that does not wait.
    #[cfg(test)]
    fn run_alone(test: impl AsyncFnOnce(Rc<Self>)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let test = async { test(Self::alone()).await };
        LocalSet::new().block_on(&runtime.expect("a runtime"), test);
    }

    #[cfg(test)]
    fn alone() -> Rc<Self> {
        let upwards = config::Upwards {
            tls: None,
            max_send: 1 << 20,
            max_recv: 1 << 20,
            keepalive: None,
            permit_without_stream: false,
            sync_every: None,
        };
        let log = Logger::discard();
        Rc::new(Proxy {
            upstream: Upstream::new(upwards, Vec::new(), log.clone()),
            hub: Hub::default(),
            cache: Cache::default(),
            lines: Lines::default(),
            members: Members {
                advertised: String::new(),
                host: String::new(),
                registered: <_>::default(),
            },
            keys: Keys::new(""),
            layers: None,
            json: json(&Limits::default()),
            calls: Calls::default(),
            stats: Stats::default(),
            limits: Rc::default(),
            log,
            log_calls: false,
            pprof: false,
            connections: Cell::new(0),
            one_less: Notify::new(),
            stop: channel::channel(false).1,
        })
    }

    /// A line for a call that has ended, where they are asked for.
    fn log_call(&self, path: &str, status: &Status) {
        if self.log_calls {
            log_info!(self.log, "finished call", "grpc.method" => path, "grpc.code" => status.code.name(), "grpc.error" => &*status.message);
        }
    }
}

/// An error of the Rust client's, as a call's status.
fn status(error: &etch_client::Error) -> Status {
    let text = match error {
        etch_client::Error::Refused(refusal) => refusal.message.clone(),
        other => other.to_string(),
    };
    Status::new(Code::from_u32(error.code() as u32), text)
}

/// `grpc-proxy start`.
pub(crate) fn start(matches: &Matches) -> Result<(), Failure> {
    let log = config::log(matches);
    log_info!(log, "Running: ", "args" => std::env::args().collect::<Vec<_>>());
    let runtime = Builder::new_current_thread().enable_all().build().map_err(refused)?;
    LocalSet::new().block_on(&runtime, async {
        let config = Config::new(matches, &log).await?;
        run(config, log).await
    })
}

async fn run(config: Config, log: Logger) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(refused)?;
    let addresses = config.addresses()?;
    let tls = listening_tls(&config, &log)?;
    let ports = bind(&config, tls.as_ref(), &log)?;
    sockets::open_many_files();
    let (stop, stopping) = channel::channel(false);
    let client = client(&config).await.map_err(refused)?;
    let layers = match &client {
        None => None,
        Some(client) => tokio::select! {
            layers = Layers::new(&config, client, &log) => layers.map_err(refused)?,
            // The cluster may be away for long.
            _ = signals.next() => return Ok(()),
        },
    };
    let proxy = proxy(&config, addresses, layers, stopping, &log);
    background(&proxy, &config, client, &log)?;
    for (port, listener) in ports {
        tokio::task::spawn_local(listen::serve(Rc::clone(&proxy), Rc::new(port), listener));
    }
    log_info!(log, "started gRPC proxy", "address" => config.listen);
    log_info!(log, "notifying init daemon");
    notify::ready();
    log_info!(log, "successfully notified init daemon");
    let signal = signals.next().await;
    log_info!(log, "received signal; shutting down", "signal" => signal);
    notify::stopping();
    // Somebody always holds the other end.
    let _ = stop.send(true);
    tokio::select! {
        () = drained(&proxy) => {}
        // Asked twice, we go at once.
        signal = signals.next() => std::process::exit(if signal == "terminated" { 143 } else { 130 }),
    }
    log_info!(log, "stop listening gRPC proxy client requests", "address" => config.listen);
    Ok(())
}

/// Waits until all connections have ended, or the grace is over.
async fn drained(proxy: &Proxy) {
    let ended = async {
        while proxy.connections.get() > 0 {
            proxy.one_less.notified().await;
        }
    };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        log_warn!(proxy.log, "connections did not end in time", "connections" => proxy.connections.get());
    }
}

fn proxy(
    config: &Config,
    addresses: Vec<upstream::Address>,
    layers: Option<Layers>,
    stop: channel::Receiver<bool>,
    log: &Logger,
) -> Rc<Proxy> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Rc::new(Proxy {
        upstream: Upstream::new(config.upwards.clone(), addresses, log.clone()),
        hub: Hub::default(),
        cache: Cache::default(),
        lines: Lines::default(),
        members: Members {
            advertised: config.advertised.clone(),
            host,
            registered: <_>::default(),
        },
        keys: Keys::new(&config.namespace),
        layers,
        json: json(&config.limits),
        calls: Calls::default(),
        stats: Stats::default(),
        limits: Rc::new(config.limits.clone()),
        log: log.clone(),
        log_calls: config.log_calls,
        pprof: config.pprof,
        connections: Cell::new(0),
        one_less: Notify::new(),
        stop,
    })
}

/// What the JSON of all connections has in common.
fn json(limits: &Limits) -> Arc<Common> {
    Arc::new(Common {
        gateway: Gateway::new(),
        version: etch_api::ETCD_VERSION,
        max_message: limits.max_recv_message,
    })
}

/// The Rust client, for what is done in the proxy's own name and for the layers.
async fn client(config: &Config) -> etch_client::Result<Option<Client>> {
    let needed =
        config.ordering || !config.leasing_prefix.is_empty() || !config.resolver_prefix.is_empty();
    if !needed {
        return Ok(None);
    }
    Client::connect(config.client()).await.map(Some)
}

/// What goes on beside the calls of clients.
fn background(
    proxy: &Rc<Proxy>,
    config: &Config,
    client: Option<Client>,
    log: &Logger,
) -> Result<(), Failure> {
    if let Some(every) = config.upwards.sync_every {
        let has_tls = config.upwards.tls.is_some();
        tokio::task::spawn_local(cluster::sync(Rc::clone(proxy), every, has_tls, log.clone()));
    }
    let Some(mut client) = client.filter(|_| !config.resolver_prefix.is_empty()) else {
        return Ok(());
    };
    if !config.namespace.is_empty() {
        client = client.namespaced(config.namespace.clone());
    }
    let prefix = config.resolver_prefix.clone();
    let manager = Manager::new(&client, prefix.clone()).map_err(refused)?;
    tokio::task::spawn_local(cluster::follow(Rc::clone(proxy), manager, log.clone()));
    let registration = Registration { prefix, ttl: config.resolver_ttl };
    let registering = cluster::register(Rc::clone(proxy), client, registration, log.clone());
    tokio::task::spawn_local(registering);
    Ok(())
}

/// TLS towards clients. Its certificate is made here where the flags ask for it.
fn listening_tls(config: &Config, log: &Logger) -> Result<Option<Arc<Acceptor>>, Failure> {
    let Some(mut options) = config.listen_tls.clone() else { return Ok(None) };
    if options.is_empty() && options.trusted_ca_file.is_empty() {
        let dir = Path::new(&config.data_dir).join("fixtures").join("proxy");
        let hosts = [config.listen.clone()];
        let made = self_signed(&dir, &hosts, config.self_signed_years).map_err(refused)?;
        options.cert_file = made.cert_file.display().to_string();
        options.key_file = made.key_file.display().to_string();
        if let Some(end) = made.made_until {
            log_warn!(log, "automatically generate certificates", "certificate-validity-bound-not-after" => end);
        }
    }
    log_info!(log, "gRPC proxy server TLS", "tls-info" => format!(
        "cert = {}, key = {}, trusted-ca = {}, crl-file = {}",
        options.cert_file, options.key_file, options.trusted_ca_file, options.crl_file
    ));
    let told = log.clone();
    let tell = Box::new(move |event: Event| match event {
        Event::Reloaded(files) => {
            log_info!(told, "reloaded TLS files; new connections use them", "files" => files);
        }
        Event::Kept(why) => {
            log_warn!(told, "failed to reload TLS files; those of before are kept", "error" => why);
        }
        Event::Warning(what) => log_warn!(told, "TLS", "warning" => what),
    });
    Ok(Some(Arc::new(Acceptor::new(options, tell).map_err(refused)?)))
}

/// The port of the clients, and that of the metrics where there is one.
fn bind(
    config: &Config,
    tls: Option<&Arc<Acceptor>>,
    log: &Logger,
) -> Result<Vec<(Port, Listener)>, Failure> {
    let listen = |address: &str| {
        let listener = sockets::listen(address).map_err(refused)?;
        TcpListener::from_std(listener).map_err(refused)
    };
    let gate = Gate::new(Bounds::default());
    let clients = Port { tls: tls.cloned(), gate: Rc::clone(&gate), pages_only: false };
    let mut ports = vec![(clients, Listener::Tcp(listen(&config.listen)?))];
    log_info!(log, "listening for gRPC proxy client requests", "address" => config.listen);
    if let Some(metrics) = &config.metrics {
        if metrics.tls && tls.is_none() {
            return Err(refused(format!(
                "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                metrics.address
            )));
        }
        let tls = tls.filter(|_| metrics.tls).cloned();
        let listener = if metrics.unix {
            Listener::unix(&metrics.address).map_err(refused)?
        } else {
            Listener::Tcp(listen(&metrics.address)?)
        };
        ports.push((Port { tls, gate, pages_only: true }, listener));
        log_info!(log, "gRPC proxy listening for metrics", "address" => metrics.address);
    }
    Ok(ports)
}
