//! A command line in the manner that etcd's tools have it, so that scripts find the flags, the texts and the
//! exit codes that they were written for: a tree of commands, flags as Go's tools take them, help, completion
//! for shells, tables.
//!
//! Not here: any command (`ctl`, `utl`), etcd's messages, files, sockets. Why not a crate such as clap: scripts
//! match the texts, and `-w json`, `--write-out=json`, a command cut short to what is still unique, and help
//! without its own formatting are not what those offer.

#![forbid(unsafe_code)]

mod command;
pub mod complete;
mod flag;
pub mod go;
mod help;
pub mod human;
mod man;
mod out;
mod parse;
mod printable;
pub mod progress;
mod run;
mod suggest;
pub mod table;
#[cfg(test)]
mod tests;

pub use command::{Args, Command, Failure, Group, Matches, Program};
pub use flag::{Flag, Value, flag_usages};
pub use out::{print, print_line};
pub use run::{Streams, run};
