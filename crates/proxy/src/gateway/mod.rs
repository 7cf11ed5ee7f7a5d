//! `gateway`: carries TCP connections to the endpoints of a cluster, so that clients need to know one address
//! only. What is in them, TLS and gRPC alike, it does not look at.
//!
//! Here: `configure -> resolve -> bind -> serve -> drain`. Not here: which endpoint (`remotes`), threads
//! (`lane`), how bytes move (`flow`).

mod flow;
mod lane;
mod pipes;
mod relay;
mod remotes;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use etch_cli::{Failure, Matches};
use etch_host::logging::Logger;
use etch_host::{log_info, log_warn, notify};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::commands::refuse;
use crate::discover::{Discovery, Target, discover};
use crate::signals::Signals;
use crate::sockets;
use lane::{Lane, Shared};
use remotes::{Place, Remotes};

/// What `--retry-delay=0` means.
const RETRY_BY_DEFAULT: Duration = Duration::from_secs(300);
/// After an error of accept (no file descriptors left, say) the port rests for so long.
const REST: Duration = Duration::from_millis(50);

/// `gateway start`.
pub(crate) fn start(matches: &Matches) -> Result<(), Failure> {
    let log = Logger::bootstrap();
    log_info!(log, "Running: ", "args" => std::env::args().collect::<Vec<_>>());
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(1, error.to_string()))?;
    runtime.block_on(run(matches, log))
}

async fn run(matches: &Matches, log: Logger) -> Result<(), Failure> {
    let retry = match u64::try_from(matches.duration_ns("retry-delay")) {
        Ok(0) => RETRY_BY_DEFAULT,
        Ok(nanos) => Duration::from_nanos(nanos),
        Err(_) => return Err(refuse("retry-delay must not be negative")),
    };
    let targets = targets(matches, &log).await?;
    let address = matches.text("listen-addr");
    check_listen(address, &targets)?;
    if targets.is_empty() {
        return Err(refuse("no endpoints found"));
    }
    let listening = |why: String| {
        eprintln!("{why}");
        Failure::silent(1)
    };
    let listener = sockets::listen(address).map_err(listening)?;
    let listener = TcpListener::from_std(listener).map_err(|error| listening(error.to_string()))?;
    sockets::open_many_files();
    log_info!(log, "notifying init daemon");
    notify::ready();
    log_info!(log, "successfully notified init daemon");
    let remotes = Remotes::new(&targets, fastrand::Rng::new());
    log_info!(log, "ready to proxy client requests", "endpoints" => remotes.addresses());
    serve(listener, Arc::new(Shared { remotes, retry, log }))
        .await
        .map_err(|error| listening(error.to_string()))
}

/// The endpoints: those that DNS names, otherwise those that the flag does.
async fn targets(matches: &Matches, log: &Logger) -> Result<Vec<Target>, Failure> {
    let discovery = Discovery {
        domain: matches.text("discovery-srv"),
        name: matches.text("discovery-srv-name"),
        insecure: matches.is_on("insecure-discovery"),
        ca_file: matches.text("trusted-ca-file"),
    };
    let found = discover(&discovery, log).await.map_err(|why| {
        eprintln!("{why}");
        Failure::silent(1)
    })?;
    if !found.is_empty() {
        return Ok(found);
    }
    let parse = |endpoint: &String| {
        let plain = without_scheme(endpoint);
        let wrong = || refuse(format!("error parsing endpoint {}", etch_cli::go::quote(plain)));
        sockets::split(plain).map(|(host, port)| Target::plain(host, port)).ok_or_else(wrong)
    };
    matches.list("endpoints").iter().map(parse).collect()
}

/// The host and the port of an endpoint that is written as a URL.
fn without_scheme(endpoint: &str) -> &str {
    let Some((_, rest)) = endpoint.split_once("://") else { return endpoint };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() { endpoint } else { host }
}

/// A gateway that is its own endpoint would carry a connection round for ever.
fn check_listen(address: &str, targets: &[Target]) -> Result<(), Failure> {
    let (host, port) = sockets::split(address)
        .ok_or_else(|| refuse(format!("failed to validate listen address: {address}")))?;
    let listening = sockets::resolve(host)
        .ok_or_else(|| refuse(format!("failed to resolve listen host: {host}")))?;
    for target in targets {
        let found = sockets::resolve(&target.host)
            .ok_or_else(|| refuse(format!("failed to resolve endpoint host: {}", target.host)))?;
        let itself = |ip: &IpAddr| {
            listening.contains(ip)
                || (listening.iter().any(IpAddr::is_unspecified) && sockets::is_our_own(*ip))
        };
        if target.port == port
            && let Some(ip) = found.iter().find(|ip| itself(ip))
        {
            let Target { host, port, .. } = target;
            return Err(refuse(format!(
                "SRV or endpoint ({host}:{port}->{ip}:{port}) should not resolve to the gateway listen addr ({address})"
            )));
        }
    }
    Ok(())
}

/// Carries connections until a signal asks to end.
async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let lanes: Vec<Lane> = (0..threads)
        .map(|number| Lane::start(number, Arc::clone(&shared)))
        .collect::<Result<_, _>>()?;
    let mut signals = Signals::new()?;
    let monitor = tokio::spawn(monitor(Arc::clone(&shared)));
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = accept(&listener, &lanes, &shared.log) => "",
    };
    monitor.abort();
    log_info!(shared.log, "received signal; shutting down", "signal" => signal);
    notify::stopping();
    drop(listener);
    let threads: Vec<_> = lanes.into_iter().map(Lane::close).collect();
    let ended = tokio::task::spawn_blocking(move || {
        for thread in threads {
            // One that has panicked carries nothing any more.
            let _ = thread.join();
        }
    });
    tokio::select! {
        _ = ended => {}
        // Asked twice, we go at once.
        signal = signals.next() => std::process::exit(if signal == "terminated" { 143 } else { 130 }),
    }
    log_info!(shared.log, "all connections have ended");
    Ok(())
}

async fn accept(listener: &TcpListener, lanes: &[Lane], log: &Logger) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                if let Some(lane) = lanes.iter().min_by_key(|lane| lane.connections()) {
                    lane.send(client).await;
                }
            }
            Err(error) => {
                log_warn!(log, "accept failed", "error" => error.to_string());
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Tries the endpoints that are set aside again, once an interval.
async fn monitor(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.retry).await;
        for place in shared.remotes.aside() {
            tokio::spawn(try_again(Arc::clone(&shared), place));
        }
    }
}

async fn try_again(shared: Arc<Shared>, place: Place) {
    let Shared { remotes, retry, log } = &*shared;
    let address = remotes.address(place);
    match sockets::dial(address, lane::DIAL_WITHIN).await {
        Ok(_) => {
            remotes.take_back(place);
            log_info!(log, "activated", "address" => address);
        }
        Err(error) => {
            log_warn!(log, "failed to activate endpoint (stay inactive for another interval)", "address" => address, "interval" => *retry, "error" => error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_taken_off() {
        for (endpoint, want) in [
            ("http://127.0.0.1:1", "127.0.0.1:1"),
            ("https://[::1]:2/", "[::1]:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
            ("host:4", "host:4"),
        ] {
            assert_eq!(without_scheme(endpoint), want);
        }
    }

    #[test]
    fn a_gateway_is_not_its_own_endpoint() {
        let target = |host: &str| [Target::plain(host, 23790)];
        let refused = |address: &str, host: &str| check_listen(address, &target(host)).is_err();
        assert!(refused("127.0.0.1:23790", "localhost"));
        assert!(refused("0.0.0.0:23790", "127.0.0.1"));
        assert!(!refused("127.0.0.1:23791", "127.0.0.1"));
        assert!(!refused("127.0.0.1:23790", "192.0.2.1"));
        assert!(refused("nonsense", "192.0.2.1"));
    }
}
