//! `version`: which etcdctl this one stands for. Not here: the server's version (`endpoint status`).

use etch_cli::{Command, Failure, Matches};

use crate::display::print;
use crate::program;

/// The etcdctl that this one stands for.
const ETCDCTL: &str = "3.7.1";
/// The version of the API.
const API: &str = "3.7";

/// The command.
pub fn command() -> Command {
    Command::new("version", "Prints the version of etcdctl", run).group(program::UTILITY)
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let mut said = format!("etcdctl version: {ETCDCTL}\nAPI version: {API}\n");
    // Its own number only where it is called by its own name.
    if matches.program.name != "etcdctl" {
        said.push_str(&format!("etch version: {}\n", env!("CARGO_PKG_VERSION")));
    }
    print(said.as_bytes())
}
