//! `version`: which etcd's tool this one stands for, and its own number
//! where it is called by its own name.

use etch_cli::{Command, Failure, Matches};
use etch_state::version::ETCD;

/// The command.
pub fn command() -> Command {
    Command::new("version", "Prints the version of etcdutl", run)
}

fn run(matches: &Matches) -> Result<(), Failure> {
    println!("etcdutl version: {ETCD}\nAPI version: {}.{}", ETCD.major, ETCD.minor);
    if matches.program.name != "etcdutl" {
        println!("etch version: {}", env!("CARGO_PKG_VERSION"));
    }
    Ok(())
}
