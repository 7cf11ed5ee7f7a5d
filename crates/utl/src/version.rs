//! `version`: which etcd's tool this one stands for, and its own number
//! where it is called by its own name.

use etch_cli::{Command, Failure, Matches, print_line};
use etch_state::version::ETCD;

/// The command.
pub fn command() -> Command {
    Command::new("version", "Prints the version of etcdutl", run)
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let (major, minor) = (ETCD.major, ETCD.minor);
    print_line(&format!("etcdutl version: {ETCD}\nAPI version: {major}.{minor}"))?;
    match matches.program.name {
        "etcdutl" => Ok(()),
        _ => print_line(&format!("etch version: {}", env!("CARGO_PKG_VERSION"))),
    }
}
