//! Every flag of etcd's server, in the groups of the help text. Not here: how a flag is set (`table`).

use super::table::Kind::*;
use super::table::{Flag, flag, unheeded};

/// The flags in the groups of the help text.
pub(super) static GROUPS: &[(&str, &[Flag])] = &[
    ("Member", MEMBER),
    ("Clustering", CLUSTERING),
    ("Security", SECURITY),
    ("Auth", AUTH),
    ("Profiling and Monitoring", MONITORING),
    ("Logging", LOGGING),
    ("Distributed tracing", TRACING),
    ("Features", FEATURES),
    ("Unsafe feature", UNSAFE),
];

static MEMBER: &[Flag] = &[
    flag("name", Text(|c| &mut c.name), "Name of this member, for people."),
    flag("data-dir", Text(|c| &mut c.data_dir), "The data directory; '<name>.etcd' if not given."),
    flag("wal-dir", Text(|c| &mut c.wal_dir), "A directory of its own for the write-ahead log."),
    flag(
        "snapshot-count",
        Unsigned(|c| &mut c.snapshot_count),
        "Applied entries between two snapshots.",
    ),
    flag(
        "heartbeat-interval",
        Unsigned(|c| &mut c.heartbeat_interval),
        "Milliseconds between two heartbeats.",
    ),
    flag(
        "election-timeout",
        Unsigned(|c| &mut c.election_timeout),
        "Milliseconds without a leader until an election.",
    ),
    unheeded(
        "initial-election-tick-advance",
        Switch(|c| &mut c.initial_election_tick_advance),
        "Bring the first election forward.",
    ),
    flag(
        "listen-peer-urls",
        Urls(|c| &mut c.listen_peer_urls),
        "Where to listen for other members.",
    ),
    flag(
        "listen-client-urls",
        Urls(|c| &mut c.listen_client_urls),
        "Where to listen for clients: gRPC, and HTTP unless --listen-client-http-urls is given.",
    ),
    flag(
        "listen-client-http-urls",
        Urls(|c| &mut c.listen_client_http_urls),
        "Where to listen for HTTP alone; the client URLs then speak gRPC alone.",
    ),
    unheeded(
        "max-snapshots",
        Unsigned(|c| &mut c.max_snapshots),
        "Snapshot files to keep (0 is all). Deprecated.",
    ),
    flag("max-wals", Unsigned(|c| &mut c.max_wals), "WAL files to keep (0 is all)."),
    unheeded("memory-mlock", Switch(|c| &mut c.memory_mlock), "Keep the data in memory."),
    flag(
        "quota-backend-bytes",
        Signed(|c| &mut c.quota_backend_bytes),
        "Size at which the database takes no more writes (0 is 2 GiB, less is no limit).",
    ),
    unheeded(
        "backend-bbolt-freelist-type",
        Text(|c| &mut c.backend_bbolt_freelist_type),
        "'map' or 'array'; there is one way of our own.",
    ),
    flag(
        "backend-batch-interval",
        Time(|c| &mut c.backend_batch_interval),
        "Longest time between two commits of the database (0 is 100ms).",
    ),
    flag(
        "backend-batch-limit",
        Signed(|c| &mut c.backend_batch_limit),
        "Most changes of one commit of the database (0 is 10000).",
    ),
    flag("max-txn-ops", Unsigned(|c| &mut c.max_txn_ops), "Most operations of a transaction."),
    flag("max-request-bytes", Unsigned(|c| &mut c.max_request_bytes), "Most bytes of a request."),
    flag(
        "max-concurrent-streams",
        Unsigned32(|c| &mut c.max_concurrent_streams),
        "Most streams of one connection.",
    ),
    flag(
        "grpc-keepalive-min-time",
        Time(|c| &mut c.grpc_keepalive_min_time),
        "Shortest time between two pings of a client.",
    ),
    flag(
        "grpc-keepalive-interval",
        Time(|c| &mut c.grpc_keepalive_interval),
        "Idle time after which a client is pinged (0 is never).",
    ),
    flag(
        "grpc-keepalive-timeout",
        Time(|c| &mut c.grpc_keepalive_timeout),
        "Time that a pinged client has to answer (0 is any).",
    ),
    unheeded(
        "socket-reuse-port",
        Switch(|c| &mut c.socket_reuse_port),
        "Listen with SO_REUSEPORT.",
    ),
    unheeded(
        "socket-reuse-address",
        Switch(|c| &mut c.socket_reuse_address),
        "Listen with SO_REUSEADDR.",
    ),
    unheeded(
        "enable-grpc-gateway",
        Switch(|c| &mut c.enable_grpc_gateway),
        "Serve the API as JSON over HTTP.",
    ),
    unheeded(
        "raft-read-timeout",
        Time(|c| &mut c.raft_read_timeout),
        "Read timeout between members.",
    ),
    unheeded(
        "raft-write-timeout",
        Time(|c| &mut c.raft_write_timeout),
        "Write timeout between members.",
    ),
    flag(
        "feature-gates",
        Gates(|c| &mut c.feature_gates),
        "Features to open or close, as 'A=true,B=false'.",
    ),
];

static CLUSTERING: &[Flag] = &[
    flag(
        "initial-advertise-peer-urls",
        Urls(|c| &mut c.initial_advertise_peer_urls),
        "Where other members find this one.",
    ),
    flag(
        "initial-cluster",
        Text(|c| &mut c.initial_cluster),
        "The members of a new cluster, as 'name=url'. This release serves clusters of one member.",
    ),
    flag(
        "initial-cluster-state",
        Choice(&["new", "existing"], |c| &mut c.initial_cluster_state),
        "'new', or 'existing' for a member that joins. Without meaning once there is data.",
    ),
    flag(
        "initial-cluster-token",
        Text(|c| &mut c.initial_cluster_token),
        "Tells the ids of this cluster from those of others.",
    ),
    flag(
        "advertise-client-urls",
        Urls(|c| &mut c.advertise_client_urls),
        "Where clients find this member.",
    ),
    flag(
        "discovery-token",
        Text(|c| &mut c.discovery.token),
        "Discovery: the token of the cluster.",
    ),
    flag(
        "discovery-endpoints",
        WordSet(|c| &mut c.discovery.endpoints),
        "Discovery: endpoints of the service.",
    ),
    unheeded(
        "discovery-dial-timeout",
        Time(|c| &mut c.discovery.dial_timeout),
        "Discovery: time to connect.",
    ),
    unheeded(
        "discovery-request-timeout",
        Time(|c| &mut c.discovery.request_timeout),
        "Discovery: time of a request.",
    ),
    unheeded(
        "discovery-keepalive-time",
        Time(|c| &mut c.discovery.keepalive_time),
        "Discovery: idle time before a ping.",
    ),
    unheeded(
        "discovery-keepalive-timeout",
        Time(|c| &mut c.discovery.keepalive_timeout),
        "Discovery: time to answer a ping.",
    ),
    unheeded(
        "discovery-insecure-transport",
        Switch(|c| &mut c.discovery.insecure_transport),
        "Discovery: without TLS.",
    ),
    unheeded(
        "discovery-insecure-skip-tls-verify",
        Switch(|c| &mut c.discovery.insecure_skip_tls_verify),
        "Discovery: do not check the service's certificate.",
    ),
    unheeded("discovery-cert", Text(|c| &mut c.discovery.cert), "Discovery: our certificate."),
    unheeded("discovery-key", Text(|c| &mut c.discovery.key), "Discovery: its key."),
    unheeded(
        "discovery-cacert",
        Text(|c| &mut c.discovery.cacert),
        "Discovery: authorities to trust.",
    ),
    unheeded(
        "discovery-user",
        Text(|c| &mut c.discovery.user),
        "Discovery: 'name' or 'name:password'.",
    ),
    unheeded("discovery-password", Text(|c| &mut c.discovery.password), "Discovery: the password."),
    unheeded(
        "discovery-fallback",
        Choice(&["exit", "proxy"], |c| &mut c.discovery.fallback),
        "What to do when discovery fails: 'exit'.",
    ),
    flag(
        "discovery-srv",
        Text(|c| &mut c.discovery.srv),
        "Domain whose SRV records name the members.",
    ),
    flag(
        "discovery-srv-name",
        Text(|c| &mut c.discovery.srv_name),
        "Suffix of the service's name in those records.",
    ),
    unheeded(
        "strict-reconfig-check",
        Switch(|c| &mut c.strict_reconfig_check),
        "Refuse membership changes that would lose the quorum.",
    ),
    flag(
        "pre-vote",
        Switch(|c| &mut c.pre_vote),
        "Ask before an election whether it could be won.",
    ),
    flag(
        "auto-compaction-retention",
        Text(|c| &mut c.auto_compaction_retention),
        "How much history compaction leaves: a time (hours without a unit) or a number of revisions; 0 turns it off.",
    ),
    flag(
        "auto-compaction-mode",
        Text(|c| &mut c.auto_compaction_mode),
        "'periodic' or 'revision': what the retention counts.",
    ),
    unheeded(
        "v2-deprecation",
        Phases(&["gone", "write-only", "write-only-drop-data", "write-only-skip-check"]),
        "Deprecated; the value is not used.",
    ),
];

static SECURITY: &[Flag] = &[
    flag(
        "cert-file",
        Text(|c| &mut c.client_tls.cert_file),
        "Certificate shown to clients on https:// and unixs:// URLs; read again when it changes.",
    ),
    flag("key-file", Text(|c| &mut c.client_tls.key_file), "Its key."),
    flag(
        "client-cert-auth",
        Switch(|c| &mut c.client_tls.client_cert_auth),
        "Demand a certificate from clients.",
    ),
    flag(
        "client-cert-file",
        Text(|c| &mut c.client_tls.client_cert_file),
        "Certificate for when this member is a client.",
    ),
    flag("client-key-file", Text(|c| &mut c.client_tls.client_key_file), "Its key."),
    flag(
        "client-crl-file",
        Text(|c| &mut c.client_tls.crl_file),
        "Client certificates that were revoked.",
    ),
    flag(
        "client-cert-allowed-hostname",
        Words(|c| &mut c.client_tls.allowed_hostname),
        "Host names let in by client certificate.",
    ),
    flag(
        "trusted-ca-file",
        Text(|c| &mut c.client_tls.trusted_ca_file),
        "Authorities of client certificates.",
    ),
    flag(
        "auto-tls",
        Switch(|c| &mut c.client_tls.auto),
        "TLS towards clients with a certificate of our own making.",
    ),
    flag("peer-cert-file", Text(|c| &mut c.peer_tls.cert_file), "Certificate shown to members."),
    flag("peer-key-file", Text(|c| &mut c.peer_tls.key_file), "Its key."),
    flag(
        "peer-client-cert-auth",
        Switch(|c| &mut c.peer_tls.client_cert_auth),
        "Demand a certificate from members.",
    ),
    flag(
        "peer-client-cert-file",
        Text(|c| &mut c.peer_tls.client_cert_file),
        "Certificate for calls to members.",
    ),
    flag("peer-client-key-file", Text(|c| &mut c.peer_tls.client_key_file), "Its key."),
    flag(
        "peer-trusted-ca-file",
        Text(|c| &mut c.peer_tls.trusted_ca_file),
        "Authorities of members' certificates.",
    ),
    flag(
        "peer-cert-allowed-cn",
        Words(|c| &mut c.peer_tls.allowed_cn),
        "Common names let in between members.",
    ),
    flag(
        "peer-cert-allowed-hostname",
        Words(|c| &mut c.peer_tls.allowed_hostname),
        "Host names let in between members.",
    ),
    flag(
        "peer-auto-tls",
        Switch(|c| &mut c.peer_tls.auto),
        "TLS between members with a certificate of our own making.",
    ),
    flag(
        "self-signed-cert-validity",
        Unsigned(|c| &mut c.self_signed_cert_validity),
        "Years that such certificates are good for.",
    ),
    flag(
        "peer-crl-file",
        Text(|c| &mut c.peer_tls.crl_file),
        "Members' certificates that were revoked.",
    ),
    flag(
        "cipher-suites",
        Words(|c| &mut c.cipher_suites),
        "Cipher suites of TLS 1.2 by Go's names (all good ones if not given).",
    ),
    flag(
        "cors",
        Origins(|c| &mut c.cors),
        "Origins that browsers may ask from ('*' or none is any).",
    ),
    flag(
        "host-whitelist",
        WordSet(|c| &mut c.host_whitelist),
        "Host names that plain HTTP may be asked under ('*' or none is any).",
    ),
    flag("tls-min-version", Text(|c| &mut c.tls_min_version), "Oldest TLS: TLS1.2 or TLS1.3."),
    flag("tls-max-version", Text(|c| &mut c.tls_max_version), "Newest TLS: TLS1.2 or TLS1.3."),
];

static AUTH: &[Flag] = &[
    flag("auth-token", Text(|c| &mut c.auth_token), "'simple' or 'jwt' with its options."),
    flag("bcrypt-cost", Unsigned(|c| &mut c.bcrypt_cost), "Cost of hashing a password, 4 to 31."),
    flag(
        "auth-token-ttl",
        Unsigned(|c| &mut c.auth_token_ttl),
        "Seconds that a token is good for.",
    ),
];

static MONITORING: &[Flag] = &[
    flag(
        "enable-pprof",
        Switch(|c| &mut c.enable_pprof),
        "Answer below /debug/pprof/ with profiles of the processor's time, for `go tool pprof`.",
    ),
    flag(
        "metrics",
        Text(|c| &mut c.metrics),
        "'basic', or 'extensive' with histograms of gRPC calls.",
    ),
    flag(
        "listen-metrics-urls",
        Urls(|c| &mut c.listen_metrics_urls),
        "Where to listen for metrics and health alone.",
    ),
];

static LOGGING: &[Flag] = &[
    flag("logger", Text(|c| &mut c.logger), "'zap': lines as it writes them."),
    flag("log-outputs", WordSet(|c| &mut c.log_outputs), "'default', 'stderr', 'stdout' or files."),
    flag("log-level", Text(|c| &mut c.log_level), "debug, info, warn, error, panic or fatal."),
    flag("log-format", Text(|c| &mut c.log_format), "'json' or 'console'."),
    flag(
        "enable-log-rotation",
        Switch(|c| &mut c.enable_log_rotation),
        "Set a log file aside when it is full.",
    ),
    flag(
        "log-rotation-config-json",
        Text(|c| &mut c.log_rotation_config_json),
        "When it is full: maxsize (MB), maxage (days), maxbackups. localtime and compress are not used.",
    ),
    flag(
        "warning-unary-request-duration",
        Time(|c| &mut c.warning_unary_request_duration),
        "A unary call that takes longer is logged.",
    ),
];

static TRACING: &[Flag] = &[
    unheeded(
        "enable-distributed-tracing",
        Switch(|c| &mut c.tracing.enable),
        "Send traces to a collector.",
    ),
    unheeded("distributed-tracing-address", Text(|c| &mut c.tracing.address), "The collector."),
    unheeded(
        "distributed-tracing-service-name",
        Text(|c| &mut c.tracing.service_name),
        "Name of the service, the same on all members.",
    ),
    unheeded(
        "distributed-tracing-instance-id",
        Text(|c| &mut c.tracing.instance_id),
        "Name of this member, another on each.",
    ),
    unheeded(
        "distributed-tracing-sampling-rate",
        Signed(|c| &mut c.tracing.sampling_rate),
        "Traces of a million calls.",
    ),
];

static FEATURES: &[Flag] = &[
    unheeded(
        "corrupt-check-time",
        Time(|c| &mut c.corrupt_check_time),
        "Time between two corruption checks of the cluster.",
    ),
    unheeded(
        "compact-hash-check-time",
        Time(|c| &mut c.compact_hash_check_time),
        "Time between two comparisons of compaction hashes.",
    ),
    flag(
        "compaction-batch-limit",
        Signed(|c| &mut c.compaction_batch_limit),
        "Most revisions of one step of a compaction (0 is 1000).",
    ),
    unheeded(
        "peer-skip-client-san-verification",
        Switch(|c| &mut c.peer_tls.skip_client_san_verification),
        "Take members' certificates whatever address they come from.",
    ),
    flag(
        "watch-progress-notify-interval",
        Time(|c| &mut c.watch_progress_notify_interval),
        "Time between two notices of progress on a quiet watch (0 is 10m).",
    ),
    unheeded(
        "warning-apply-duration",
        Time(|c| &mut c.warning_apply_duration),
        "An entry that takes longer to apply is logged.",
    ),
    unheeded(
        "bootstrap-defrag-threshold-megabytes",
        Unsigned(|c| &mut c.bootstrap_defrag_threshold_megabytes),
        "Defragment at start if that frees so much (0 is never).",
    ),
    flag("max-learners", Signed(|c| &mut c.max_learners), "Most learners of a cluster."),
    flag(
        "compaction-sleep-interval",
        Time(|c| &mut c.compaction_sleep_interval),
        "Pause between two steps of a compaction (0 is 10ms).",
    ),
    unheeded(
        "downgrade-check-time",
        Time(|c| &mut c.downgrade_check_time),
        "Time between two looks at a downgrade under way.",
    ),
    flag(
        "snapshot-catchup-entries",
        Unsigned(|c| &mut c.snapshot_catchup_entries),
        "Entries kept behind a snapshot for members that lag.",
    ),
];

static UNSAFE: &[Flag] = &[
    flag(
        "force-new-cluster",
        Switch(|c| &mut c.force_new_cluster),
        "Make a cluster of one member out of the data.",
    ),
    flag(
        "unsafe-no-fsync",
        Switch(|c| &mut c.unsafe_no_fsync),
        "Do not wait for the disk: a crash loses data.",
    ),
];

/// What stands in no group of the help text.
pub(super) static OTHERS: &[Flag] = &[
    flag("config-file", Text(|c| &mut c.config_file), "The configuration file."),
    flag("version", Switch(|c| &mut c.version), "Print the version and exit."),
    unheeded("cluster-active-size", Ignored, ""),
    unheeded("cluster-remove-delay", Ignored, ""),
    unheeded("cluster-sync-interval", Ignored, ""),
    unheeded("config", Ignored, ""),
    unheeded("force", Ignored, ""),
    unheeded("max-result-buffer", Ignored, ""),
    unheeded("max-retry-attempts", Ignored, ""),
    unheeded("peer-heartbeat-interval", Ignored, ""),
    unheeded("peer-election-timeout", Ignored, ""),
    unheeded("retry-interval", Ignored, ""),
    unheeded("snapshot", Ignored, ""),
    unheeded("v", Ignored, ""),
    unheeded("vv", Ignored, ""),
    unheeded("test.coverprofile", Ignored, ""),
    unheeded("test.outputdir", Ignored, ""),
];
