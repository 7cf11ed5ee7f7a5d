//! The configuration: every flag of etcd's server, from the command line, the environment or a file. What
//! a flag is called, takes and is for stands in one table (`flags`). Not here: what the values do.

mod bootstrap;
mod file;
mod flags;
pub mod gates;
mod help;
mod parse;
mod start;
mod summary;
mod table;
pub mod urls;
mod validate;
pub(crate) mod values;

use std::collections::BTreeSet;
use std::time::Duration;

pub use bootstrap::AutoCompaction;
pub use etch_api::ETCD_VERSION;
pub use gates::FeatureGates;
pub use start::start;
pub use summary::{log_starting, release};
pub use urls::Url;

/// The effective values of all flags. Fields bear the names of their flags; sizes are in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    // Member.
    /// Name of this member.
    pub name: String,
    /// The data directory; never empty once the configuration is complete.
    pub data_dir: String,
    /// A directory for the WAL alone; empty is `<data-dir>/member/wal`.
    pub wal_dir: String,
    /// Entries applied between two snapshots.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot for members that lag.
    pub snapshot_catchup_entries: u64,
    /// Snapshot files kept; 0 is all.
    pub max_snapshots: u64,
    /// WAL files kept; 0 is all.
    pub max_wals: u64,
    /// A tick of raft, in milliseconds.
    pub heartbeat_interval: u64,
    /// The election timeout, in milliseconds.
    pub election_timeout: u64,
    /// Whether the first election is brought forward.
    pub initial_election_tick_advance: bool,
    /// Where peers are listened for.
    pub listen_peer_urls: Vec<Url>,
    /// Where clients are listened for: gRPC, and HTTP unless that has ports of its own.
    pub listen_client_urls: Vec<Url>,
    /// Ports for HTTP alone; where there is one, the client ports speak gRPC only.
    pub listen_client_http_urls: Vec<Url>,
    /// Ports for metrics and health alone.
    pub listen_metrics_urls: Vec<Url>,
    /// Keep the data in memory.
    pub memory_mlock: bool,
    /// The space quota: 0 is 2 GiB, less is none.
    pub quota_backend_bytes: i64,
    /// `map` or `array`.
    pub backend_bbolt_freelist_type: String,
    /// The longest time between two commits of the backend; never zero.
    pub backend_batch_interval: Duration,
    /// The most changes of one commit of the backend; more than 0.
    pub backend_batch_limit: i64,
    /// Operations in a transaction.
    pub max_txn_ops: u64,
    /// Bytes of a request.
    pub max_request_bytes: u64,
    /// Streams of one connection.
    pub max_concurrent_streams: u32,
    /// A client that pings more often than this is sent away.
    pub grpc_keepalive_min_time: Duration,
    /// Idle time after which a client is pinged; zero is never.
    pub grpc_keepalive_interval: Duration,
    /// How long a pinged client may take; zero is for ever.
    pub grpc_keepalive_timeout: Duration,
    /// Listen with SO_REUSEPORT.
    pub socket_reuse_port: bool,
    /// Listen with SO_REUSEADDR.
    pub socket_reuse_address: bool,
    /// Serve the JSON gateway.
    pub enable_grpc_gateway: bool,
    /// Read timeout of a connection between peers.
    pub raft_read_timeout: Duration,
    /// Write timeout of a connection between peers.
    pub raft_write_timeout: Duration,
    /// The feature gates.
    pub feature_gates: FeatureGates,

    // Clustering.
    /// Where other members find this one.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The members of a new cluster: `name=url,…`.
    pub initial_cluster: String,
    /// `new` or `existing`.
    pub initial_cluster_state: String,
    /// What tells this cluster's ids from those of others.
    pub initial_cluster_token: String,
    /// Where clients find this member.
    pub advertise_client_urls: Vec<Url>,
    /// Refuse membership changes that would lose the quorum.
    pub strict_reconfig_check: bool,
    /// Ask before an election whether it could be won.
    pub pre_vote: bool,
    /// `periodic` or `revision`.
    pub auto_compaction_mode: String,
    /// As given; [`Config::auto_compaction`] says what it means.
    pub auto_compaction_retention: String,
    /// Accepted, and always `write-only`.
    pub v2_deprecation: String,
    /// How a cluster is found through another one.
    pub discovery: Discovery,

    // Security.
    /// TLS towards clients.
    pub client_tls: Tls,
    /// TLS towards peers.
    pub peer_tls: Tls,
    /// Years that a certificate of our own making is good for.
    pub self_signed_cert_validity: u64,
    /// TLS cipher suites.
    pub cipher_suites: Vec<String>,
    /// The oldest version of TLS.
    pub tls_min_version: String,
    /// The newest version of TLS; empty is whatever there is.
    pub tls_max_version: String,
    /// Origins that browsers may ask from; `*` or none is any.
    pub cors: BTreeSet<String>,
    /// Host names that plain HTTP may be asked under; `*` or none is any.
    pub host_whitelist: BTreeSet<String>,

    // Auth.
    /// Kind of auth token, and its options.
    pub auth_token: String,
    /// Cost of hashing a password.
    pub bcrypt_cost: u64,
    /// Seconds that a token is good for.
    pub auth_token_ttl: u64,

    // Monitoring, logging, tracing.
    /// Serve profiles.
    pub enable_pprof: bool,
    /// `basic` or `extensive`.
    pub metrics: String,
    /// Always `zap`.
    pub logger: String,
    /// Targets of the log.
    pub log_outputs: BTreeSet<String>,
    /// The lowest level that is logged.
    pub log_level: String,
    /// `json` or `console`.
    pub log_format: String,
    /// Set log files aside when they are full.
    pub enable_log_rotation: bool,
    /// When they are full, and what becomes of them.
    pub log_rotation_config_json: String,
    /// A unary call that takes longer is logged.
    pub warning_unary_request_duration: Duration,
    /// Distributed tracing.
    pub tracing: Tracing,

    // Features.
    /// Time between two corruption checks; zero is never.
    pub corrupt_check_time: Duration,
    /// Time between two comparisons of compaction hashes.
    pub compact_hash_check_time: Duration,
    /// Revisions that one step of a compaction deletes; more than 0.
    pub compaction_batch_limit: i64,
    /// Pause between two steps of a compaction; never zero.
    pub compaction_sleep_interval: Duration,
    /// Time between two notices of progress on a quiet watch; 100 ms at least.
    pub watch_progress_notify_interval: Duration,
    /// An entry that takes longer to apply is logged.
    pub warning_apply_duration: Duration,
    /// Defragment at start if that frees so many MiB; 0 is never.
    pub bootstrap_defrag_threshold_megabytes: u64,
    /// Learners of a cluster.
    pub max_learners: i64,
    /// Time between two looks at a downgrade under way.
    pub downgrade_check_time: Duration,

    // Unsafe.
    /// Make a cluster of one out of whatever the data says.
    pub force_new_cluster: bool,
    /// Never wait for the disk.
    pub unsafe_no_fsync: bool,

    // Where the rest comes from.
    /// The configuration file; where there is one, flags and environment count for nothing.
    pub config_file: String,
    /// Print the version and end.
    pub version: bool,
    /// The flags that were given, by name.
    pub given: BTreeSet<String>,
    /// The command line as it may be shown: without passwords.
    pub command_line: Vec<String>,
}

/// The `--discovery-*` flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// Token of the cluster to be found.
    pub token: String,
    /// Endpoints of the discovery service.
    pub endpoints: BTreeSet<String>,
    /// How long a connection may take to come about.
    pub dial_timeout: Duration,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// Idle time after which the service is pinged.
    pub keepalive_time: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
    /// Without TLS.
    pub insecure_transport: bool,
    /// With TLS, but whoever it is.
    pub insecure_skip_tls_verify: bool,
    /// Certificate of ours.
    pub cert: String,
    /// Its key.
    pub key: String,
    /// The authorities that we trust.
    pub cacert: String,
    /// Who we are.
    pub user: String,
    /// Our password.
    pub password: String,
    /// A domain whose SRV records name the members.
    pub srv: String,
    /// Suffix of the service's name there.
    pub srv_name: String,
    /// `exit` alone.
    pub fallback: String,
}

/// TLS on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
    /// A certificate for when we are the client.
    pub client_cert_file: String,
    /// Its key.
    pub client_key_file: String,
    /// Clients have to show a certificate.
    pub client_cert_auth: bool,
    /// The authorities that clients' certificates come from.
    pub trusted_ca_file: String,
    /// Certificates that have been revoked.
    pub crl_file: String,
    /// Make a certificate of our own.
    pub auto: bool,
    /// Common names that are let in.
    pub allowed_cn: Vec<String>,
    /// Host names that are let in.
    pub allowed_hostname: Vec<String>,
    /// Take a client's certificate whatever address it comes from.
    pub skip_client_san_verification: bool,
}

/// The `--*distributed-tracing*` flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Send traces.
    pub enable: bool,
    /// The collector.
    pub address: String,
    /// Name of the service.
    pub service_name: String,
    /// Name of this instance.
    pub instance_id: String,
    /// Traces of a million calls.
    pub sampling_rate: i64,
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Default for Config {
    fn default() -> Config {
        let urls = |text: &str| urls::parse_list(text).unwrap_or_default();
        let any = || BTreeSet::from(["*".to_owned()]);
        Config {
            name: "default".into(),
            data_dir: String::new(),
            wal_dir: String::new(),
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            max_snapshots: 5,
            max_wals: 5,
            heartbeat_interval: 100,
            election_timeout: 1_000,
            initial_election_tick_advance: true,
            listen_peer_urls: urls("http://localhost:2380"),
            listen_client_urls: urls("http://localhost:2379"),
            listen_client_http_urls: Vec::new(),
            listen_metrics_urls: Vec::new(),
            memory_mlock: false,
            quota_backend_bytes: 0,
            backend_bbolt_freelist_type: String::new(),
            backend_batch_interval: Duration::from_millis(100),
            backend_batch_limit: 10_000,
            max_txn_ops: 128,
            max_request_bytes: 3 << 19,
            max_concurrent_streams: u32::MAX,
            grpc_keepalive_min_time: secs(5),
            grpc_keepalive_interval: secs(7_200),
            grpc_keepalive_timeout: secs(20),
            socket_reuse_port: false,
            socket_reuse_address: false,
            enable_grpc_gateway: true,
            raft_read_timeout: secs(5),
            raft_write_timeout: secs(5),
            feature_gates: FeatureGates::default(),
            initial_advertise_peer_urls: urls("http://localhost:2380"),
            initial_cluster: bootstrap::DEFAULT_CLUSTER.into(),
            initial_cluster_state: "new".into(),
            initial_cluster_token: "etcd-cluster".into(),
            advertise_client_urls: urls("http://localhost:2379"),
            strict_reconfig_check: true,
            pre_vote: true,
            auto_compaction_mode: "periodic".into(),
            auto_compaction_retention: "0".into(),
            v2_deprecation: "write-only".into(),
            discovery: Discovery::default(),
            client_tls: Tls::default(),
            peer_tls: Tls::default(),
            self_signed_cert_validity: 1,
            cipher_suites: Vec::new(),
            tls_min_version: "TLS1.2".into(),
            tls_max_version: String::new(),
            cors: any(),
            host_whitelist: any(),
            auth_token: "simple".into(),
            bcrypt_cost: 10,
            auth_token_ttl: 300,
            enable_pprof: false,
            metrics: "basic".into(),
            logger: "zap".into(),
            log_outputs: BTreeSet::from(["default".to_owned()]),
            log_level: "info".into(),
            log_format: "json".into(),
            enable_log_rotation: false,
            log_rotation_config_json: table::DEFAULT_ROTATION.into(),
            warning_unary_request_duration: Duration::from_millis(300),
            tracing: Tracing::default(),
            corrupt_check_time: Duration::ZERO,
            compact_hash_check_time: secs(60),
            compaction_batch_limit: 1_000,
            compaction_sleep_interval: Duration::from_millis(10),
            watch_progress_notify_interval: secs(600),
            warning_apply_duration: Duration::from_millis(100),
            bootstrap_defrag_threshold_megabytes: 0,
            max_learners: 1,
            downgrade_check_time: secs(5),
            force_new_cluster: false,
            unsafe_no_fsync: false,
            config_file: String::new(),
            version: false,
            given: BTreeSet::new(),
            command_line: Vec::new(),
        }
    }
}

impl Default for Discovery {
    fn default() -> Discovery {
        Discovery {
            token: String::new(),
            endpoints: BTreeSet::new(),
            dial_timeout: secs(2),
            request_timeout: secs(5),
            keepalive_time: secs(2),
            keepalive_timeout: secs(6),
            insecure_transport: true,
            insecure_skip_tls_verify: false,
            cert: String::new(),
            key: String::new(),
            cacert: String::new(),
            user: String::new(),
            password: String::new(),
            srv: String::new(),
            srv_name: String::new(),
            fallback: "exit".into(),
        }
    }
}

impl Default for Tracing {
    fn default() -> Tracing {
        Tracing {
            enable: false,
            address: "localhost:4317".into(),
            service_name: "etcd".into(),
            instance_id: String::new(),
            sampling_rate: 0,
        }
    }
}

/// Reads the text of a configuration file and arguments (without the program's name), as they would be read at
/// a start, and does no more with them. An error is what would be said.
pub fn read(args: &[String], file: Option<&str>) -> Result<Config, String> {
    let mut config = Config::default();
    parse::command_line(&mut config, args).map_err(|error| format!("{error:?}"))?;
    if let Some(text) = file {
        file::apply(&mut config, text).map_err(|error| format!("{error:?}"))?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
