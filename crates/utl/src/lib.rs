//! `etchutl`: what is done to a data directory or a snapshot file while no server runs on it. One file a
//! command.
//!
//! Here: the program and its commands. Not here: sockets; the formats (`etch_disk`), what the rows mean
//! (`etch_state`), how command lines are read (`etch_cli`).

#![forbid(unsafe_code)]

mod cluster;
mod completion;
mod defrag;
mod files;
mod hashkv;
mod log;
mod migrate;
mod print;
mod restore;
mod status;
mod time;
mod v2;
mod verify;
mod version;
mod wal;

use etch_cli::{Command, Failure, Flag, Matches, Program, Streams};

/// Exit statuses, as etcd's tools have them.
mod exit {
    /// Something went wrong.
    pub const ERROR: u8 = 1;
    /// The output format is not there for this.
    pub const BAD_FEATURE: u8 = 4;
    /// The call was wrong.
    pub const BAD_ARGS: u8 = 128;
}

/// The program, under the name that it was called by.
pub fn program(name: &'static str) -> Program {
    let snapshot = Command::parent(
        "snapshot <subcommand>",
        "Manages etcd node snapshots",
        vec![restore::command(), status::command()],
    );
    let mut ours = vec![
        verify::command(),
        Command::parent("wal", "Looks into the write-ahead log", vec![wal::command()]),
    ];
    // Called by etcd's name, the program shows etcd's commands.
    ours.iter_mut().for_each(|command| command.hidden = name == "etcdutl");
    let root = Command::parent(
        name.rsplit(' ').next().unwrap_or(name),
        "An administrative command line tool for etcd3.",
        vec![
            defrag::command(),
            snapshot,
            hashkv::command(),
            version::command(),
            completion::command(),
            migrate::command(),
        ]
        .into_iter()
        .chain(ours)
        .collect(),
    );
    let timeout = "time to wait to obtain a file lock on db file, 0 to block indefinitely";
    let formats = "set the output format (fields, json, protobuf, simple, table)";
    let root = root.persistent(vec![
        Flag::duration("timeout", 10_000_000_000, timeout),
        Flag::text("write-out", "simple", formats).short('w').values(print::FORMATS),
    ]);
    Program {
        name,
        root,
        groups: Vec::new(),
        help_group: None,
        help_has_long: false,
        help_footer: "",
        hide_root_help: false,
        repeats_errors: true,
    }
}

/// Runs a call of the program; the words do not hold its name. Gives back the exit status.
pub fn run(name: &'static str, words: &[String]) -> u8 {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    etch_cli::run(program(name), words, &mut Streams { out: &mut out, err: &mut err })
}

/// `snapshot status` and `snapshot restore` as etcdctl had them before 3.6, for `etchctl`.
pub fn snapshot_commands() -> Vec<Command> {
    vec![restore::command(), status::command()]
}

/// `migrate` as etcdctl had it before 3.5, for `etchctl`: not `etchutl`'s, which sets the storage version.
pub fn migrate_command() -> Command {
    v2::command()
}

/// `defrag --data-dir` as etcdctl had it before 3.6, for `etchctl`.
///
/// # Errors
/// The directory is in use or broken.
pub fn defrag_data_dir(matches: &Matches) -> Result<(), Failure> {
    defrag::run(matches)
}
