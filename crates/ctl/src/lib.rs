//! `etchctl`: the client on the command line, a stand-in for etcdctl 3.7. One file a command.
//!
//! Here: the program and its commands. Not here: data directories (`etch_utl`), the calls (`etch_client`), how
//! command lines are read (`etch_cli`). `connect` goes from flags to a client, `display` from an answer to what is
//! printed; a command is what is between them.

#![forbid(unsafe_code)]

mod alarm;
mod auth;
mod check;
mod compaction;
mod completion;
mod connect;
mod defrag;
mod del;
mod display;
mod downgrade;
mod elect;
mod endpoint;
mod env;
mod exec;
mod fail;
mod get;
mod lease;
mod line;
mod lock;
mod log;
mod member;
mod mirror;
mod move_leader;
mod options;
mod password;
mod program;
mod put;
mod role;
mod signals;
mod snapshot;
mod trace;
mod txn;
mod user;
mod version;
mod watch;
mod words;

use std::ffi::OsString;

use etch_cli::{Failure, Program, Streams};

pub use defrag::run as defrag;
pub use program::program;

/// Exit statuses, as etcdctl has them.
mod exit {
    /// Something went wrong.
    pub const ERROR: u8 = 1;
    /// The cluster could not be reached, or the login failed.
    pub const BAD_CONNECTION: u8 = 2;
    /// A line of input made no sense.
    pub const INVALID_INPUT: u8 = 3;
    /// A flag's value, or the output format, is not there for this.
    pub const BAD_FEATURE: u8 = 4;
    /// The server ended a watch, or a snapshot could not be saved.
    pub const INTERRUPTED: u8 = 5;
    /// The call was wrong.
    pub const BAD_ARGS: u8 = 128;
}

/// Runs a call of the program; the words do not hold its name. Gives back the exit status.
pub fn run(program: Program, words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<String> = words.into_iter().map(words::from_os).collect();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    etch_cli::run(program, &words, &mut Streams { out: &mut out, err: &mut err })
}

/// A call that is wrong.
fn bad_args(text: impl Into<String>) -> Failure {
    Failure::new(exit::BAD_ARGS, text)
}

/// A value that a flag does not take.
fn bad_feature(text: impl Into<String>) -> Failure {
    Failure::new(exit::BAD_FEATURE, text)
}
