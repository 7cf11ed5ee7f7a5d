//! The tree of commands and the flags that all of them have. Not here: what a command does.

use etch_cli::{Command, Flag, Group, Program};

use crate::{
    alarm, auth, check, compaction, completion, defrag, del, downgrade, elect, endpoint, get,
    lease, lock, member, mirror, move_leader, options, put, role, snapshot, txn, user, version,
    watch,
};

/// Commands on keys.
pub const KV: Group = Group("Key-value commands");
/// Commands on the cluster.
pub const CLUSTER: Group = Group("Cluster maintenance commands");
/// Locks and elections.
pub const CONCURRENCY: Group = Group("Concurrency commands");
/// Users and roles.
pub const AUTHENTICATION: Group = Group("Authentication commands");
/// All others.
pub const UTILITY: Group = Group("Utility commands");

const SECOND: i64 = 1_000_000_000;

/// The forms of output.
const FORMATS: &[&str] = &["fields", "json", "protobuf", "simple", "table"];

/// The program, under the name that it was called by.
pub fn program(name: &'static str) -> Program {
    let root = Command::parent(
        name.rsplit(' ').next().unwrap_or(name),
        "A simple command line client for etcd3.",
        [
            vec![
                get::command(),
                put::command(),
                del::command(),
                txn::command(),
                compaction::command(),
                watch::command(),
                lease::command(),
                lock::command(),
                elect::command(),
                mirror::command(),
                check::command(),
            ],
            admin_commands(),
        ]
        .concat(),
    );
    // They are listed by `options`, not in each command's help.
    let flags = global_flags().into_iter().map(Flag::hidden).collect();
    Program {
        name,
        root: root.persistent(flags),
        groups: vec![KV, CLUSTER, CONCURRENCY, AUTHENTICATION, UTILITY],
        help_group: Some(UTILITY),
        help_has_long: true,
        help_footer: footer(name),
        hide_root_help: true,
        repeats_errors: false,
    }
}

/// The last line of each help; leaked once in a call.
fn footer(name: &str) -> &'static str {
    let text = "for a list of global command-line options (applies to all commands).";
    Box::leak(format!("Use \"{name} options\" {text}").into_boxed_str())
}

/// The commands that are about the cluster and its users, not about keys.
fn admin_commands() -> Vec<Command> {
    vec![
        alarm::command(),
        defrag::command(),
        endpoint::command(),
        move_leader::command(),
        version::command(),
        member::command(),
        snapshot::command(),
        auth::command(),
        user::command(),
        role::command(),
        downgrade::command(),
        options::command(),
        completion::command(),
    ]
}

/// The flags of all commands.
pub fn global_flags() -> Vec<Flag> {
    vec![
        Flag::list("endpoints", &["127.0.0.1:2379"], "gRPC endpoints"),
        Flag::switch("debug", "enable client-side debug logging"),
        Flag::text(
            "write-out",
            "simple",
            "set the output format (fields, json, protobuf, simple, table)",
        )
        .short('w')
        .values(FORMATS),
        Flag::switch("hex", "print byte strings as hex encoded strings"),
        Flag::duration("dial-timeout", 2 * SECOND, "dial timeout for client connections"),
        Flag::duration(
            "command-timeout",
            5 * SECOND,
            "timeout for short running command (excluding dial timeout)",
        ),
        Flag::duration("keepalive-time", 2 * SECOND, "keepalive time for client connections"),
        Flag::duration("keepalive-timeout", 6 * SECOND, "keepalive timeout for client connections"),
        Flag::int(
            "max-request-bytes",
            0,
            "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)",
        ),
        Flag::int(
            "max-recv-bytes",
            0,
            "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
        ),
        Flag::switch_with(
            "insecure-transport",
            true,
            "disable transport security for client connections",
        ),
        Flag::switch_with(
            "insecure-discovery",
            true,
            "accept insecure SRV records describing cluster endpoints",
        ),
        Flag::switch(
            "insecure-skip-tls-verify",
            "skip server certificate verification (CAUTION: this option should be enabled only for testing purposes)",
        ),
        Flag::text("cert", "", "identify secure client using this TLS certificate file"),
        Flag::text("key", "", "identify secure client using this TLS key file"),
        Flag::text(
            "cacert",
            "",
            "verify certificates of TLS-enabled secure servers using this CA bundle",
        ),
        Flag::text(
            "auth-jwt-token",
            "",
            "JWT token used for authentication (if this option is used, --user and --password should not be set)",
        ),
        Flag::text(
            "user",
            "",
            "username[:password] for authentication (prompt if password is not supplied)",
        ),
        Flag::text(
            "password",
            "",
            "password for authentication (if this option is used, --user option shouldn't include password)",
        ),
        Flag::text(
            "discovery-srv",
            "",
            "domain name to query for SRV records describing cluster endpoints",
        )
        .short('d'),
        Flag::text("discovery-srv-name", "", "service name to query when using DNS discovery"),
    ]
}

/// The flags of all commands as `options` and help list them.
pub fn is_global(name: &str) -> bool {
    global_flags().iter().any(|flag| flag.name == name)
}
