//! `hashkv`: etcd's hash over the history in a file. Not here: the hash itself (`etch_state`).

use std::path::Path;

use etch_cli::{Args, Command, Failure, Flag, Matches};
use etch_state::mvcc::ReadError;
use etch_state::mvcc::survey::{ROOM, Survey};

use crate::exit;
use crate::files;
use crate::print::{self, Hash};

/// The command.
pub fn command() -> Command {
    Command::new("hashkv <filename>", "Prints the KV history hash of a given file", run)
        .args(Args::Exactly(1))
        .flags(vec![Flag::int("rev", 0, "maximum revision to hash (default: latest revision)")])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    print::check_format(matches)?;
    let (snapshot, _held) = files::open_to_read(Path::new(&matches.args[0]), matches)?;
    let survey = Survey::new(snapshot, ROOM).map_err(|e| files::invalid(&e))?;
    let found = survey.hash_kv(matches.number("rev")).map_err(|e| match e {
        ReadError::Request(error) => Failure::new(exit::ERROR, plain(error.message())),
        ReadError::Io(error) => files::invalid(&error),
    })?;
    let hash = Hash {
        hash: found.hash,
        revision: found.hash_revision,
        compact_revision: found.compact_revision,
    };
    print::hash(matches, &hash)
}

/// The store's own words, without the name of the service that a client would see.
fn plain(message: &str) -> String {
    message.strip_prefix("etcdserver: ").unwrap_or(message).to_owned()
}
