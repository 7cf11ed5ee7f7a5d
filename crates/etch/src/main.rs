//! The binary: looks at the name that it was called by and at its first argument, and hands over to the
//! server. Not here: everything else.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use etch_server::{config, log_fatal, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(missing) = not_in_this_release(&args) {
        eprintln!("{missing} is not part of this release of etch, which is the server alone");
        return ExitCode::FAILURE;
    }
    let env: Vec<(String, String)> = std::env::vars_os()
        .map(|(key, value)| {
            (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    let (config, log) = match config::start(&args, &env) {
        Ok(started) => started,
        Err(code) => return ExitCode::from(code),
    };
    match run::run(&config, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log_fatal!(log, "the server has failed", "error" => error);
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, if it is another of etcd's programs.
fn not_in_this_release(args: &[String]) -> Option<&'static str> {
    let name = args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    match (name.unwrap_or_default(), args.get(1).map_or("", String::as_str)) {
        ("etcdctl" | "etchctl", _) => Some("etcdctl"),
        ("etcdutl" | "etchutl", _) => Some("etcdutl"),
        (_, "ctl") => Some("etch ctl"),
        (_, "utl") => Some("etch utl"),
        (_, "gateway") => Some("the gateway"),
        (_, "grpc-proxy") => Some("the gRPC proxy"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_are_not_pretended() {
        let ask = |args: &[&str]| {
            not_in_this_release(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(ask(&["/usr/bin/etcdctl", "get", "x"]), Some("etcdctl"));
        assert_eq!(ask(&["etcdutl"]), Some("etcdutl"));
        assert_eq!(ask(&["etcd", "gateway", "start"]), Some("the gateway"));
        assert_eq!(ask(&["etch", "grpc-proxy", "start"]), Some("the gRPC proxy"));
        assert_eq!(ask(&["etch", "ctl"]), Some("etch ctl"));
        for server in
            [&["etcd"][..], &["etch", "--name", "ctl"], &["/usr/bin/etcd", "--version"], &[]]
        {
            assert_eq!(ask(server), None, "{server:?}");
        }
    }
}
