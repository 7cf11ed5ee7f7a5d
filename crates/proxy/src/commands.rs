//! The command lines of `gateway` and `grpc-proxy`: etcd's flags, defaults and texts. Not here: what they do.

use std::io::{self, Write};

use etch_cli::{Command, Failure, Flag, Program, Streams};

use crate::{gateway, grpc};

/// Runs `gateway` or `grpc-proxy`, under the name that the program was called by; the words do not hold that
/// name. Gives back the exit status.
pub fn run(name: &'static str, words: &[String]) -> u8 {
    let (mut out, mut err) = (io::stdout(), Told::default());
    let code = etch_cli::run(program(name), words, &mut Streams { out: &mut out, err: &mut err });
    if code != 0 {
        err.repeat();
    }
    code
}

fn program(name: &'static str) -> Program {
    let gateway = Command::parent(
        "gateway <subcommand>",
        "gateway related command",
        vec![Command::new("start", "start the gateway", gateway::start).flags(gateway_flags())],
    );
    let grpc_proxy = Command::parent(
        "grpc-proxy <subcommand>",
        "grpc-proxy related command",
        vec![Command::new("start", "start the grpc proxy", grpc::start).flags(grpc::flags())],
    );
    Program {
        name,
        root: Command::parent(name, "etcd server", vec![gateway, grpc_proxy]),
        groups: Vec::new(),
        help_group: None,
        help_has_long: true,
        help_footer: "",
        hide_root_help: false,
        repeats_errors: false,
    }
}

fn gateway_flags() -> Vec<Flag> {
    vec![
        Flag::text("listen-addr", "127.0.0.1:23790", "listen address"),
        Flag::text("discovery-srv", "", "DNS domain used to bootstrap initial cluster"),
        Flag::text("discovery-srv-name", "", "service name to query when using DNS discovery"),
        Flag::switch("insecure-discovery", "accept insecure SRV records"),
        Flag::text(
            "trusted-ca-file",
            "",
            "path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided.",
        ),
        Flag::list("endpoints", &["127.0.0.1:2379"], "comma separated etcd cluster endpoints"),
        Flag::duration(
            "retry-delay",
            60_000_000_000,
            "duration of delay before retrying failed endpoints",
        ),
    ]
}

/// What a start refuses, said on the standard output as etcd says it.
pub(crate) fn refuse(text: impl std::fmt::Display) -> Failure {
    println!("{text}");
    Failure::silent(1)
}

/// Standard error, which remembers its first line: etcd says what is wrong with a call once more at the end,
/// bare and without an end of line.
#[derive(Default)]
struct Told {
    first: Vec<u8>,
    whole: bool,
}

impl Told {
    fn repeat(&self) {
        if let Some(why) = self.first.strip_prefix(b"Error: ") {
            // Nobody reads it if it cannot be written.
            let _ = io::stderr().write_all(why);
        }
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.whole {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            self.first.extend_from_slice(line);
            self.whole = line.len() < bytes.len();
        }
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(words: &[&str]) -> (u8, String, String) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code =
            etch_cli::run(program("etcd"), &words, &mut Streams { out: &mut out, err: &mut err });
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (code, text(out), text(err))
    }

    #[test]
    fn help_is_etcds() {
        let (code, out, err) = called(&["gateway", "start", "--help"]);
        assert_eq!((code, err.as_str()), (0, ""));
        let want = "start the gateway\n\nUsage:\n  etcd gateway start [flags]\n\nFlags:\n      --discovery-srv string        DNS domain used to bootstrap initial cluster\n";
        assert!(out.starts_with(want), "{out}");
        assert!(out.contains("--retry-delay duration        duration of delay before retrying failed endpoints (default 1m0s)\n"), "{out}");
        let (code, out, _) = called(&["gateway"]);
        assert_eq!(code, 0);
        assert!(
            out.starts_with("gateway related command\n\nUsage:\n  etcd gateway [command]\n"),
            "{out}"
        );
    }

    #[test]
    fn a_wrong_call_is_told_twice() {
        let mut told = Told::default();
        told.write_all(b"Error: unknown flag: --foo\nUsage:\n").expect("written");
        told.write_all(b"more\n").expect("written");
        assert_eq!(told.first, b"Error: unknown flag: --foo");
        let (code, _, err) = called(&["gateway", "start", "--foo"]);
        assert_eq!(code, 1);
        assert!(
            err.starts_with("Error: unknown flag: --foo\nUsage:\n  etcd gateway start"),
            "{err}"
        );
    }
}
