//! `downgrade`: readies the cluster for an older version. Not here: data directories (`etch_utl`'s `migrate`).

use std::io::Write as _;

use etch_cli::{Command, Failure, Matches};
use etch_client::DowngradeAction;

use crate::connect::Ctl;
use crate::{bad_args, program};

/// The command.
pub fn command() -> Command {
    let short = "Downgrade related commands. Use `etcdctl downgrade --help` to see subcommands";
    let children = vec![
        Command::new(
            "validate <TARGET_VERSION>",
            "Validate downgrade capability before starting downgrade",
            |matches| ask(matches, DowngradeAction::Validate, target(matches)?),
        ),
        Command::new("enable <TARGET_VERSION>", "Start a downgrade action to cluster", |matches| {
            ask(matches, DowngradeAction::Enable, target(matches)?)
        }),
        Command::new("cancel", "Cancel the ongoing downgrade action to cluster", |matches| {
            ask(matches, DowngradeAction::Cancel, "")
        }),
    ];
    Command::parent("downgrade <TARGET_VERSION>", short, children)
        .long("Downgrade related commands")
        .group(program::CLUSTER)
}

fn target(matches: &Matches) -> Result<&str, Failure> {
    match &matches.args[..] {
        [] => Err(bad_args("TARGET_VERSION not provided")),
        [version] if version.is_empty() => Err(bad_args("target version not provided")),
        [version] => Ok(version),
        _ => Err(bad_args("too many arguments")),
    }
}

fn ask(matches: &Matches, action: DowngradeAction, version: &str) -> Result<(), Failure> {
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.downgrade(action, version).await)?;
    let name = action.as_str_name().to_lowercase();
    ctl.display.without_fields(&answer, |out| {
        let _ = writeln!(out, "Downgrade {name} success, cluster version {}", answer.version);
    })
}
