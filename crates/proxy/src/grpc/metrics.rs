//! The proxy's own metrics, as text: etcd's names where etcd has one. Not here: the members' metrics, which are
//! theirs (`relay`).

use std::fmt::Write as _;

use rustix::process::{Resource, getrlimit};

use super::Proxy;

/// A clock tick of the kernel's, as its files count them.
const TICKS_PER_SECOND: f64 = 100.0;

/// The page of text.
pub(super) fn text(proxy: &Proxy) -> String {
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: f64| {
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let hub = &proxy.hub;
    let (watchers, upstream) = (hub.watchers.get(), hub.upstream_watches());
    one(
        "etcd_grpc_proxy_watchers_coalescing_total",
        "gauge",
        "Total number of current watchers coalescing",
        watchers as f64,
    );
    one(
        "etcd_grpc_proxy_events_coalescing_total",
        "counter",
        "Total number of events coalescing",
        hub.events.get() as f64,
    );
    let cache = &proxy.cache;
    let help = "Total number of keys/ranges cached";
    one("etcd_grpc_proxy_cache_keys_total", "gauge", help, cache.len() as f64);
    let (hits, misses) = (cache.hits.get() as f64, cache.misses.get() as f64);
    one("etcd_grpc_proxy_cache_hits_total", "gauge", "Total number of cache hits", hits);
    one("etcd_grpc_proxy_cache_misses_total", "gauge", "Total number of cache misses", misses);
    let help = "Watches of the cluster that clients share";
    one("etch_grpc_proxy_upstream_watches", "gauge", help, upstream as f64);
    let help = "Streams of the cluster that these watches are on";
    one("etch_grpc_proxy_upstream_watch_streams", "gauge", help, hub.upstream_streams() as f64);
    let help = "Streams of the cluster that renew leases";
    one("etch_grpc_proxy_upstream_keepalive_streams", "gauge", help, proxy.lines.count() as f64);
    let help = "Renewals that were sent to the cluster";
    one("etch_grpc_proxy_upstream_keepalives_total", "counter", help, proxy.lines.sent() as f64);
    let help = "Connections of clients";
    one("etch_grpc_proxy_connections", "gauge", help, proxy.connections.get() as f64);
    let stats = &proxy.stats;
    let (messages_in, messages_out) = (stats.messages_in.get(), stats.messages_out.get());
    let help = "Messages of clients";
    one("etch_grpc_proxy_messages_received_total", "counter", help, messages_in as f64);
    let help = "Messages to clients";
    one("etch_grpc_proxy_messages_sent_total", "counter", help, messages_out as f64);
    let connected = u8::from(proxy.upstream.is_connected());
    let help = "Whether an endpoint of the cluster is connected";
    one("etch_grpc_proxy_connected", "gauge", help, f64::from(connected));
    process(&mut one);
    proxy.calls.write(&mut out);
    out
}

/// When the machine was started, in seconds.
fn booted() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// What the process has used, where the kernel says so.
fn process(one: &mut impl FnMut(&str, &str, &str, f64)) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process may hold anything, a closing bracket too.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    if let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) {
        let help = "Total user and system CPU time spent in seconds.";
        one("process_cpu_seconds_total", "counter", help, (user + system) / TICKS_PER_SECOND);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok());
    if let Some(kib) = kib {
        let help = "Resident memory size in bytes.";
        one("process_resident_memory_bytes", "gauge", help, kib * 1024.0);
    }
    if let Some(bytes) = fields.get(20) {
        let help = "Virtual memory size in bytes.";
        one("process_virtual_memory_bytes", "gauge", help, *bytes);
    }
    if let (Some(started), Some(booted)) = (fields.get(19), booted()) {
        let help = "Start time of the process since unix epoch in seconds.";
        one("process_start_time_seconds", "gauge", help, booted + started / TICKS_PER_SECOND);
    }
    let files = std::fs::read_dir("/proc/self/fd").map(|files| files.count() as f64);
    let most = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |most| most as f64);
    if let Ok(files) = files {
        one("process_open_fds", "gauge", "Number of open file descriptors.", files);
        one("os_fd_used", "gauge", "The number of used file descriptors.", files);
    }
    one("process_max_fds", "gauge", "Maximum number of open file descriptors.", most);
    one("os_fd_limit", "gauge", "The file descriptor limit.", most);
}
