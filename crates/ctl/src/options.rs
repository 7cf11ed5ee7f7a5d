//! `options`: the flags that all commands have. Not here: what they do (`connect`).

use etch_cli::{Command, Failure, Matches, flag_usages};

use crate::display::print;
use crate::program::{self, global_flags};

/// The command.
pub fn command() -> Command {
    Command::new("options", "Show the global command-line flags", run).group(program::UTILITY)
}

fn run(_: &Matches) -> Result<(), Failure> {
    let flags = flag_usages(&global_flags());
    let said = format!("The following options can be passed to any command:\n\n{flags}");
    print(said.as_bytes())
}
