//! The flags of `grpc-proxy start`: etcd's names, defaults and texts. Not here: what they mean (`config`).

use etch_cli::Flag;

const SECOND: i64 = 1_000_000_000;

/// All of them.
pub(crate) fn flags() -> Vec<Flag> {
    let mut all = listening();
    all.extend(cluster());
    all.extend(sizes_and_pings());
    all.extend(client_side());
    all.extend(proxy_side());
    all.extend(experimental());
    all
}

fn listening() -> Vec<Flag> {
    vec![
        Flag::text("listen-addr", "127.0.0.1:23790", "listen address"),
        Flag::text(
            "metrics-addr",
            "",
            "listen for endpoint /metrics requests on an additional interface",
        ),
        Flag::text(
            "advertise-client-url",
            "127.0.0.1:23790",
            "advertise address to register (must be reachable by client)",
        ),
        Flag::text(
            "resolver-prefix",
            "",
            "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
        ),
        Flag::int("resolver-ttl", 0, "specify TTL, in seconds, when registering proxy endpoints"),
        Flag::text("namespace", "", "string to prefix to all keys for namespacing requests"),
        Flag::switch(
            "enable-pprof",
            "Answer below /debug/pprof/ with profiles of the processor's time, for `go tool pprof`.",
        ),
        Flag::text("data-dir", "default.proxy", "Data directory for persistent data"),
        Flag::switch("debug", "Enable debug-level logging for grpc-proxy."),
    ]
}

fn cluster() -> Vec<Flag> {
    vec![
        Flag::text(
            "discovery-srv",
            "",
            "domain name to query for SRV records describing cluster endpoints",
        ),
        Flag::text("discovery-srv-name", "", "service name to query when using DNS discovery"),
        Flag::switch("insecure-discovery", "accept insecure SRV records"),
        Flag::list("endpoints", &["127.0.0.1:2379"], "comma separated etcd cluster endpoints"),
        Flag::duration(
            "endpoints-auto-sync-interval",
            0,
            "etcd endpoints auto sync interval (disabled by default)",
        ),
        Flag::duration(
            "dial-keepalive-time",
            0,
            "keepalive time for client(grpc-proxy) connections (default 0, disable).",
        ),
        Flag::duration(
            "dial-keepalive-timeout",
            20 * SECOND,
            "keepalive timeout for client(grpc-proxy) connections (default 20s).",
        ),
        Flag::switch(
            "permit-without-stream",
            "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
        ),
    ]
}

fn sizes_and_pings() -> Vec<Flag> {
    vec![
        Flag::int(
            "max-send-bytes",
            3 << 19,
            "message send limits in bytes (default value is 1.5 MiB)",
        ),
        Flag::int(
            "max-recv-bytes",
            i64::from(i32::MAX),
            "message receive limits in bytes (default value is math.MaxInt32)",
        ),
        Flag::duration(
            "grpc-keepalive-min-time",
            5 * SECOND,
            "Minimum interval duration that a client should wait before pinging proxy.",
        ),
        Flag::duration(
            "grpc-keepalive-interval",
            7200 * SECOND,
            "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable).",
        ),
        Flag::duration(
            "grpc-keepalive-timeout",
            20 * SECOND,
            "Additional duration of wait before closing a non-responsive connection (0 to disable).",
        ),
        Flag::uint32(
            "max-concurrent-streams",
            u32::MAX,
            "Maximum concurrent streams that each client can open at a time.",
        ),
    ]
}

fn client_side() -> Vec<Flag> {
    vec![
        Flag::text(
            "cert",
            "",
            "identify secure connections with etcd servers using this TLS certificate file",
        ),
        Flag::text(
            "key",
            "",
            "identify secure connections with etcd servers using this TLS key file",
        ),
        Flag::text(
            "cacert",
            "",
            "verify certificates of TLS-enabled secure etcd servers using this CA bundle",
        ),
        Flag::switch(
            "insecure-skip-tls-verify",
            "skip authentication of etcd server TLS certificates (CAUTION: this option should be enabled only for testing purposes)",
        ),
    ]
}

fn proxy_side() -> Vec<Flag> {
    vec![
        Flag::text(
            "cert-file",
            "",
            "identify secure connections to the proxy using this TLS certificate file",
        ),
        Flag::text(
            "key-file",
            "",
            "identify secure connections to the proxy using this TLS key file",
        ),
        Flag::text(
            "trusted-ca-file",
            "",
            "verify certificates of TLS-enabled secure proxy using this CA bundle",
        ),
        Flag::list(
            "listen-cipher-suites",
            &[],
            "Comma-separated list of supported TLS cipher suites between client/proxy (empty will be auto-populated by Go).",
        ),
        Flag::switch("auto-tls", "proxy TLS using generated certificates"),
        Flag::text("client-crl-file", "", "proxy client certificate revocation list file."),
        Flag::uint(
            "self-signed-cert-validity",
            1,
            "The validity period of the proxy certificates, unit is year",
        ),
        Flag::text(
            "tls-min-version",
            "TLS1.2",
            "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
        ),
        Flag::text(
            "tls-max-version",
            "",
            "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty defers to Go).",
        ),
    ]
}

fn experimental() -> Vec<Flag> {
    vec![
        Flag::switch(
            "experimental-serializable-ordering",
            "Ensure serializable reads have monotonically increasing store revisions across endpoints.",
        ),
        Flag::text(
            "experimental-leasing-prefix",
            "",
            "leasing metadata prefix for disconnected linearized reads.",
        ),
        Flag::switch("experimental-enable-grpc-logging", "logging all grpc requests and responses"),
    ]
}
