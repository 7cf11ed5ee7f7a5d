//! The binary: looks at the name that it was called by and at its first argument, and hands over to the
//! server or to one of the tools. Not here: everything else.

mod ctl;
mod memory;

use std::path::Path;
use std::process::ExitCode;

use etch_server::{config, log_fatal, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match part(&args) {
        Part::Utl(name, words) => return ExitCode::from(etch_utl::run(name, words)),
        Part::Ctl(name, skip) => {
            return ExitCode::from(etch_ctl::run(
                ctl::program(name),
                std::env::args_os().skip(skip),
            ));
        }
        Part::Proxy(name, words) => {
            memory::give_back();
            return ExitCode::from(etch_proxy::run(name, words));
        }
        Part::Server => memory::give_back(),
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

/// Which of etcd's programs was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Server,
    /// `etchutl`, by the name that its texts call it, with the words behind it.
    Utl(&'static str, &'a [String]),
    /// `etchctl`, by the name that its texts call it, and how many words stand before its own. It takes them as
    /// they are: keys are bytes.
    Ctl(&'static str, usize),
    /// `gateway` or `grpc-proxy`, by the name that its texts call the program, with all words.
    Proxy(&'static str, &'a [String]),
}

fn part(args: &[String]) -> Part<'_> {
    let name = args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let words = args.get(1..).unwrap_or_default();
    match (name.unwrap_or_default(), words.first().map_or("", String::as_str)) {
        ("etcdutl", _) => Part::Utl("etcdutl", words),
        ("etchutl", _) => Part::Utl("etchutl", words),
        (_, "utl") => Part::Utl("etch utl", &words[1..]),
        ("etcdctl", _) => Part::Ctl("etcdctl", 1),
        ("etchctl", _) => Part::Ctl("etchctl", 1),
        (_, "ctl") => Part::Ctl("etch ctl", 2),
        ("etcd", "gateway" | "grpc-proxy") => Part::Proxy("etcd", words),
        (_, "gateway" | "grpc-proxy") => Part::Proxy("etch", words),
        _ => Part::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(args: &[&str]) -> Vec<String> {
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }

    #[test]
    fn the_name_or_the_first_word_says_which_program() {
        let status = words(&["snapshot", "status"]);
        let gateway = words(&["gateway", "start"]);
        let grpc_proxy = words(&["grpc-proxy", "start"]);
        let rows: &[(&[&str], Part<'_>)] = &[
            (&["/usr/bin/etcdutl", "snapshot", "status"], Part::Utl("etcdutl", &status)),
            (&["etchutl"], Part::Utl("etchutl", &[])),
            (&["etch", "utl", "snapshot", "status"], Part::Utl("etch utl", &status)),
            (&["/usr/bin/etcdctl", "get", "x"], Part::Ctl("etcdctl", 1)),
            (&["/bin/etcd", "gateway", "start"], Part::Proxy("etcd", &gateway)),
            (&["etch", "gateway", "start"], Part::Proxy("etch", &gateway)),
            (&["etcd", "grpc-proxy", "start"], Part::Proxy("etcd", &grpc_proxy)),
            (&["etch", "grpc-proxy", "start"], Part::Proxy("etch", &grpc_proxy)),
            (&["etch", "ctl"], Part::Ctl("etch ctl", 2)),
            (&["etcd"], Part::Server),
            (&["etch", "--name", "ctl"], Part::Server),
            (&["/usr/bin/etcd", "--version"], Part::Server),
            (&[], Part::Server),
        ];
        for (args, want) in rows {
            assert_eq!(part(&words(args)), *want, "{args:?}");
        }
    }
}
