//! `alarm`: what the cluster complains of. Not here: how alarms look (`display::cluster`).

use etch_cli::{Command, Failure, Matches};
use etch_client::pb;

use crate::connect::Ctl;
use crate::{bad_args, program};

/// The command.
pub fn command() -> Command {
    let short = "Alarm related commands. Use `etcdctl alarm --help` to see subcommands";
    let children = vec![
        Command::new("disarm", "Disarms all alarms", disarm),
        Command::new("list", "Lists all alarms", list),
    ];
    Command::parent("alarm <subcommand>", short, children)
        .long("Alarm related commands")
        .group(program::CLUSTER)
}

fn disarm(matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        return Err(bad_args("alarm disarm command accepts no arguments"));
    }
    let ctl = Ctl::new(matches)?;
    let all = pb::AlarmMember::default();
    let answer = ctl.ask(async |client| client.alarm_disarm(all).await)?;
    ctl.display.alarms(&answer)
}

fn list(matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        return Err(bad_args("alarm list command accepts no arguments"));
    }
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.alarm_list().await)?;
    ctl.display.alarms(&answer)
}
