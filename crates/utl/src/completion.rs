//! `completion`: the script that makes a shell complete this program's command lines.

use etch_cli::complete::{SHELLS, script};
use etch_cli::{Args, Command, Failure, Matches, print};

use crate::exit;

/// The command.
pub fn command() -> Command {
    let usage = "completion [bash|zsh|fish|powershell]";
    let mut command =
        Command::new(usage, "Generate completion script", run).args(Args::ExactlyValid(1));
    command.valid_args = SHELLS;
    command.hides_flags = true;
    command
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let Some(text) = script(matches.program.name, &matches.args[0]) else {
        return Err(Failure::new(exit::BAD_ARGS, "no such shell"));
    };
    print(text.as_bytes())
}
