//! `user`: who may log in, with which roles. Not here: what roles may do (`role`).

use std::io::BufRead as _;

use etch_cli::{Command, Failure, Flag, Matches};

use crate::connect::Ctl;
use crate::display::print;
use crate::{bad_args, password, program};

/// The command.
pub fn command() -> Command {
    let short = "User related commands. Use `etcdctl user --help` to see subcommands";
    let detail = Flag::switch("detail", "Show permissions of roles granted to the user");
    let interactive = "If true, read password from stdin instead of interactive terminal";
    let children = vec![
        Command::new("add <user name or user:password> [options]", "Adds a new user", add)
            .flags(add_flags()),
        Command::new("delete <user name>", "Deletes a user", delete),
        Command::new("get <user name> [options]", "Gets detailed information of a user", get)
            .flags(vec![detail]),
        Command::new("list", "Lists all users", list),
        Command::new("passwd <user name> [options]", "Changes password of user", passwd)
            .flags(vec![Flag::switch_with("interactive", true, interactive)]),
        Command::new("grant-role <user name> <role name>", "Grants a role to a user", grant),
        Command::new("revoke-role <user name> <role name>", "Revokes a role from a user", revoke),
    ];
    Command::parent("user <subcommand>", short, children)
        .long("User related commands")
        .group(program::AUTHENTICATION)
}

fn add_flags() -> Vec<Flag> {
    vec![
        Flag::switch_with(
            "interactive",
            true,
            "Read password from stdin instead of interactive terminal",
        ),
        Flag::text("new-user-password", "", "Supply password from the command line flag"),
        Flag::switch("no-password", "Create a user without password (CN based auth only)"),
    ]
}

fn one<'m>(matches: &'m Matches, command: &str) -> Result<&'m str, Failure> {
    match &matches.args[..] {
        [name] => Ok(name),
        _ => Err(bad_args(format!("user {command} command requires user name as its argument"))),
    }
}

fn add(matches: &Matches) -> Result<(), Failure> {
    let given = one(matches, "add")?;
    let from_flag = matches.text("new-user-password");
    let (name, password) = if matches.is_on("no-password") {
        (given, None)
    } else if !from_flag.is_empty() {
        (given, Some(from_flag.to_owned()))
    } else if let Some((name, password)) = given.split_once(':') {
        if name.is_empty() {
            return Err(bad_args("empty user name is not allowed"));
        }
        (name, Some(password.to_owned()))
    } else {
        (given, Some(new_password(matches, given)?))
    };
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| match password {
        Some(password) => client.user_add(name, password).await,
        None => client.user_add_without_password(name).await,
    })?;
    let said = format!("User {name} created\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}

/// A password from whoever sits there, or a word of standard input.
fn new_password(matches: &Matches, name: &str) -> Result<String, Failure> {
    if !matches.is_on("interactive") {
        let mut line = String::new();
        // Nothing to read is an empty password.
        let _ = std::io::stdin().lock().read_line(&mut line);
        return Ok(line.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let ask = |prompt: String| {
        password::ask(&prompt).map_err(|e| bad_args(format!("failed to ask password: {}", e.text)))
    };
    let first = ask(format!("Password of {name}: "))?;
    if first.is_empty() {
        return Err(bad_args("empty password"));
    }
    let second = ask(format!("Type password of {name} again for confirmation: "))?;
    if first != second {
        return Err(bad_args("given passwords are different"));
    }
    Ok(first)
}

fn delete(matches: &Matches) -> Result<(), Failure> {
    let name = one(matches, "delete")?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.user_delete(name).await)?;
    let said = format!("User {name} deleted\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}

fn get(matches: &Matches) -> Result<(), Failure> {
    let name = one(matches, "get")?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.user_get(name).await)?;
    if !matches.is_on("detail") {
        return ctl.display.user(name, &answer);
    }
    print(format!("User: {name}\n").as_bytes())?;
    for role in &answer.roles {
        print(b"\n")?;
        let answer = ctl.ask(async |client| client.role_get(role).await)?;
        ctl.display.role(role, &answer)?;
    }
    Ok(())
}

fn list(matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        return Err(bad_args("user list command requires no arguments"));
    }
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.user_list().await)?;
    ctl.display.users(&answer)
}

fn passwd(matches: &Matches) -> Result<(), Failure> {
    let name = one(matches, "passwd")?;
    let password = new_password(matches, name)?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.user_change_password(name, password).await)?;
    ctl.display.done(&answer, answer.header.as_ref(), b"Password updated\n")
}

fn grant(matches: &Matches) -> Result<(), Failure> {
    let [user, role] = &matches.args[..] else {
        let why = "user grant command requires user name and role name as its argument";
        return Err(bad_args(why));
    };
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.user_grant_role(user, role).await)?;
    let said = format!("Role {role} is granted to user {user}\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}

fn revoke(matches: &Matches) -> Result<(), Failure> {
    let [user, role] = &matches.args[..] else {
        let why = "user revoke-role requires user name and role name as its argument";
        return Err(bad_args(why));
    };
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.user_revoke_role(user, role).await)?;
    let said = format!("Role {role} is revoked from user {user}\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}
