//! The line that says with which values the server starts, under etcd's names. Not here: the values.

use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use super::help::{git_sha, go_arch, go_os};
use super::{AutoCompaction, Config, ETCD_VERSION, urls};
use crate::log_info;
use crate::logging::Logger;

const DEFAULT_QUOTA: i64 = 2 << 30;

/// etch's own version, as logs and metrics name it.
pub fn release() -> &'static str {
    concat!("etch ", env!("CARGO_PKG_VERSION"))
}

/// Logs `starting an etcd server` with the effective configuration. `initialized` says whether there was
/// data already.
pub fn log_starting(config: &Config, log: &Logger, initialized: bool) {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let compaction = config.auto_compaction().unwrap_or(AutoCompaction::Off);
    let retention = match compaction {
        AutoCompaction::Off => Duration::ZERO,
        AutoCompaction::Periodic(time) => time,
        AutoCompaction::Revision(n) => Duration::from_nanos(n.unsigned_abs()),
    };
    let quota = match config.quota_backend_bytes {
        0 => DEFAULT_QUOTA,
        bytes => bytes,
    };
    let discovery = &config.discovery;
    let list = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
    log_info!(
        log,
        "starting an etcd server",
        "etcd-version" => ETCD_VERSION,
        "release" => release(),
        "git-sha" => git_sha(),
        "go-version" => "none",
        "go-os" => go_os(),
        "go-arch" => go_arch(),
        "max-cpu-set" => cpus,
        "max-cpu-available" => cpus,
        "member-initialized" => initialized,
        "name" => config.name,
        "data-dir" => config.data_dir,
        "wal-dir" => config.wal_dir,
        "wal-dir-dedicated" => config.wal_dir,
        "member-dir" => Path::new(&config.data_dir).join("member").to_string_lossy().into_owned(),
        "force-new-cluster" => config.force_new_cluster,
        "heartbeat-interval" => Duration::from_millis(config.heartbeat_interval),
        "election-timeout" => Duration::from_millis(config.election_timeout),
        "initial-election-tick-advance" => config.initial_election_tick_advance,
        "snapshot-count" => config.snapshot_count,
        "max-wals" => config.max_wals,
        "max-snapshots" => config.max_snapshots,
        "snapshot-catchup-entries" => config.snapshot_catchup_entries,
        "initial-advertise-peer-urls" => urls::strings(&config.initial_advertise_peer_urls),
        "listen-peer-urls" => urls::strings(&config.listen_peer_urls),
        "advertise-client-urls" => urls::strings(&config.advertise_client_urls),
        "listen-client-urls" => urls::strings(&config.listen_client_urls),
        "listen-metrics-urls" => urls::strings(&config.listen_metrics_urls),
        "local-address" => "",
        "cors" => list(&config.cors),
        "host-whitelist" => list(&config.host_whitelist),
        "initial-cluster" => config.initial_cluster,
        "initial-cluster-state" => config.initial_cluster_state,
        "initial-cluster-token" => config.initial_cluster_token,
        "quota-backend-bytes" => quota,
        "max-request-bytes" => config.max_request_bytes,
        "max-concurrent-streams" => config.max_concurrent_streams,
        "pre-vote" => config.pre_vote,
        "feature-gates" => config.feature_gates.to_string(),
        "initial-corrupt-check" => config.feature_gates.enabled("InitialCorruptCheck"),
        "corrupt-check-time-interval" => config.corrupt_check_time,
        "compact-check-time-interval" => config.compact_hash_check_time,
        "auto-compaction-mode" => config.auto_compaction_mode,
        "auto-compaction-retention" => retention,
        "auto-compaction-interval" => retention,
        "discovery-token" => discovery.token,
        "discovery-endpoints" => list(&discovery.endpoints).join(","),
        "discovery-dial-timeout" => discovery.dial_timeout,
        "discovery-request-timeout" => discovery.request_timeout,
        "discovery-keepalive-time" => discovery.keepalive_time,
        "discovery-keepalive-timeout" => discovery.keepalive_timeout,
        "discovery-insecure-transport" => discovery.insecure_transport,
        "discovery-insecure-skip-tls-verify" => discovery.insecure_skip_tls_verify,
        "discovery-cert" => discovery.cert,
        "discovery-key" => discovery.key,
        "discovery-cacert" => discovery.cacert,
        "discovery-user" => discovery.user.split(':').next().unwrap_or_default(),
        "downgrade-check-interval" => config.downgrade_check_time,
        "max-learners" => config.max_learners,
        "v2-deprecation" => config.v2_deprecation,
    );
}
