//! What `--help`, `--version` and a wrong flag print. Not here: the flags themselves (`table`).

use std::fmt::Write as _;

use super::gates::GATES;
use super::{Config, ETCD_VERSION, table};

/// How to call the program: goes with every flag that is wrong.
pub(super) const USAGE: &str = "Usage:

  etcd [flags]
    Start a member.

  etcd --version
    Show the version.

  etcd -h | --help
    Show every flag.

  etcd --config-file
    Path of a configuration file in YAML or JSON. With a file, other flags and the environment count for
    nothing. Durations in it are whole numbers of nanoseconds (600000000000 is 10m).
";

/// Every flag with its default, by group.
pub(super) fn flags() -> String {
    let mut defaults = Config::default();
    let mut out = String::new();
    for (group, flags) in table::GROUPS {
        let _ = writeln!(out, "\n{group}:");
        for flag in *flags {
            let default = match flag.name {
                "data-dir" => "${name}.etcd".to_owned(),
                _ => flag.show(&mut defaults),
            };
            let _ = writeln!(out, "  --{} '{default}'\n    {}", flag.name, flag.help);
            if flag.effect == table::Effect::None {
                out.push_str("    Accepted, without effect in this release.\n");
            }
            if flag.name == "feature-gates" {
                for gate in GATES {
                    let _ = writeln!(
                        out,
                        "    {}=true|false ({} - default={})",
                        gate.name, gate.stage, gate.default
                    );
                }
            }
        }
    }
    out.push_str("\nWhere data is dear, leave the unsafe flags alone: they give up what consensus promises.\n");
    out
}

/// The lines of `--version`: etcd's, for what reads them, and our own.
pub(super) fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {}\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\n\
         etch Version: {}\n",
        git_sha(),
        go_os(),
        go_arch(),
        env!("CARGO_PKG_VERSION"),
    )
}

pub(super) fn git_sha() -> &'static str {
    option_env!("ETCH_GIT_SHA").unwrap_or("Not provided")
}

/// The operating system under Go's name.
pub(super) fn go_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    }
}

/// The architecture under Go's name.
pub(super) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        arch => arch,
    }
}
