//! `auth`: whether users have to log in. Not here: users (`user`), roles (`role`).

use etch_cli::{Command, Failure, Matches};
use etch_client::{Client, EtcdError};

use crate::connect::Ctl;
use crate::display::print;
use crate::{bad_args, program};

/// The command.
pub fn command() -> Command {
    let short = "Enable or disable authentication. Use `etcdctl auth --help` to see subcommands";
    let children = vec![
        Command::new("enable", "Enables authentication", enable),
        Command::new("disable", "Disables authentication", disable),
        Command::new("status", "Returns authentication status", status),
    ];
    Command::parent("auth <enable or disable>", short, children)
        .long("Enable or disable authentication")
        .group(program::AUTHENTICATION)
}

fn no_arguments(matches: &Matches, command: &str) -> Result<(), Failure> {
    match matches.args.is_empty() {
        true => Ok(()),
        false => Err(bad_args(format!("auth {command} command does not accept any arguments"))),
    }
}

fn enable(matches: &Matches) -> Result<(), Failure> {
    no_arguments(matches, "enable")?;
    Ctl::new(matches)?.ask(turn_on)?;
    print(b"Authentication Enabled\n")
}

/// The role that whoever turns it on must have is made if there is none.
async fn turn_on(client: Client) -> etch_client::Result<()> {
    loop {
        match client.auth_enable().await {
            Ok(_) => return Ok(()),
            Err(error) if error.is(EtcdError::RootRoleNotExist) => {
                client.role_add("root").await?;
                client.user_grant_role("root", "root").await?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn disable(matches: &Matches) -> Result<(), Failure> {
    no_arguments(matches, "disable")?;
    Ctl::new(matches)?.ask(async |client| client.auth_disable().await)?;
    print(b"Authentication Disabled\n")
}

fn status(matches: &Matches) -> Result<(), Failure> {
    no_arguments(matches, "status")?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.auth_status().await)?;
    ctl.display.auth_status(&answer)
}
