//! `completion`: the script that makes a shell complete this program's command lines. Not here: the scripts
//! (`etch_cli::complete`).

use etch_cli::complete::{SHELLS, script};
use etch_cli::{Args, Command, Failure, Matches};

use crate::display::print;
use crate::{bad_args, program};

const LONG: &str = "To load completions:

Bash:

  $ source <(etcdctl completion bash)

  # To load completions for each session, execute once:
  # Linux:
  $ etcdctl completion bash > /etc/bash_completion.d/etcdctl
  # macOS:
  $ etcdctl completion bash > /usr/local/etc/bash_completion.d/etcdctl

Zsh:

  # If shell completion is not already enabled in your environment,
  # you will need to enable it.  You can execute the following once:

  $ echo \"autoload -U compinit; compinit\" >> ~/.zshrc

  # To load completions for each session, execute once:
  $ etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"

  # You will need to start a new shell for this setup to take effect.

fish:

  $ etcdctl completion fish | source

  # To load completions for each session, execute once:
  $ etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish

PowerShell:

  PS> etcdctl completion powershell | Out-String | Invoke-Expression

  # To load completions for every new session, run:
  PS> etcdctl completion powershell > etcdctl.ps1
  # and source this file from your PowerShell profile.
";

/// The command.
pub fn command() -> Command {
    let usage = "completion [bash|zsh|fish|powershell]";
    let mut command = Command::new(usage, "Generate completion script", run)
        .long(LONG)
        .args(Args::ExactlyValid(1))
        .group(program::UTILITY);
    command.valid_args = SHELLS;
    command.hides_flags = true;
    command
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let text = script(matches.program.name, &matches.args[0]);
    print(text.ok_or_else(|| bad_args("no such shell"))?.as_bytes())
}
