//! `role`: what users may do with which keys. Not here: who has which roles (`user`).

use bytes::Bytes;
use etch_cli::{Command, Failure, Flag, Matches};
use etch_client::{KeySpan, PermissionType};

use crate::connect::Ctl;
use crate::display::auth::interval;
use crate::{bad_args, program, words};

/// The command.
pub fn command() -> Command {
    let short = "Role related commands. Use `etcdctl role --help` to see subcommands";
    let grant_usage = "grant-permission [options] <role name> <permission type> <key> [endkey]";
    let children = vec![
        Command::new("add <role name>", "Adds a new role", add),
        Command::new("delete <role name>", "Deletes a role", delete),
        Command::new("get <role name>", "Gets detailed information of a role", get),
        Command::new("list", "Lists all roles", list),
        Command::new(grant_usage, "Grants a key to a role", grant).flags(vec![
            Flag::switch("prefix", "grant a prefix permission"),
            Flag::switch(
                "from-key",
                "grant a permission of keys that are greater than or equal to the given key using byte compare",
            ),
        ]),
        Command::new(
            "revoke-permission <role name> <key> [endkey]",
            "Revokes a key from a role",
            revoke,
        )
        .flags(vec![
            Flag::switch("prefix", "revoke a prefix permission"),
            Flag::switch(
                "from-key",
                "revoke a permission of keys that are greater than or equal to the given key using byte compare",
            ),
        ]),
    ];
    Command::parent("role <subcommand>", short, children)
        .long("Role related commands")
        .group(program::AUTHENTICATION)
}

fn one<'m>(matches: &'m Matches, command: &str) -> Result<&'m str, Failure> {
    match &matches.args[..] {
        [name] => Ok(name),
        _ => Err(bad_args(format!("role {command} command requires role name as its argument"))),
    }
}

fn add(matches: &Matches) -> Result<(), Failure> {
    let name = one(matches, "add")?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.role_add(name).await)?;
    let said = format!("Role {name} created\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}

fn delete(matches: &Matches) -> Result<(), Failure> {
    let name = one(matches, "delete")?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.role_delete(name).await)?;
    let said = format!("Role {name} deleted\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}

fn get(matches: &Matches) -> Result<(), Failure> {
    let name = one(matches, "get")?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.role_get(name).await)?;
    ctl.display.role(name, &answer)
}

fn list(matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        return Err(bad_args("role list command requires no arguments"));
    }
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.role_list().await)?;
    ctl.display.roles(&answer)
}

fn grant(matches: &Matches) -> Result<(), Failure> {
    let [name, kind, keys @ ..] = &matches.args[..] else {
        return Err(bad_args(GRANT_USAGE));
    };
    if keys.is_empty() {
        return Err(bad_args(GRANT_USAGE));
    }
    let what = match kind.to_uppercase().as_str() {
        "READ" => PermissionType::Read,
        "WRITE" => PermissionType::Write,
        "READWRITE" => PermissionType::Readwrite,
        _ => return Err(bad_args(format!("invalid permission type: {kind}"))),
    };
    let span = span(matches, keys)?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.role_grant_permission(name, span, what).await)?;
    let said = format!("Role {name} updated\n");
    ctl.display.done(&answer, answer.header.as_ref(), said.as_bytes())
}

const GRANT_USAGE: &str =
    "role grant command requires role name, permission type, and key [endkey] as its argument";

fn revoke(matches: &Matches) -> Result<(), Failure> {
    let [name, keys @ ..] = &matches.args[..] else {
        return Err(bad_args(REVOKE_USAGE));
    };
    let Some(key) = keys.first() else { return Err(bad_args(REVOKE_USAGE)) };
    let span = span(matches, keys)?;
    let (key, end) = (words::bytes(key), span.range_end.clone());
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.role_revoke_permission(name, span).await)?;
    let what = match end.is_empty() {
        true => [b"key ", &key[..]].concat(),
        false => [b"range ", &interval(&key, &end)[..]].concat(),
    };
    let said =
        [b"Permission of ", &what[..], b" is revoked from role ", name.as_bytes(), b"\n"].concat();
    ctl.display.done(&answer, answer.header.as_ref(), &said)
}

const REVOKE_USAGE: &str =
    "role revoke-permission command requires role name and key [endkey] as its argument";

/// The keys that these words and the flags name. An empty key is the first there can be.
fn span(matches: &Matches, keys: &[String]) -> Result<KeySpan, Failure> {
    let (prefix, from_key) = (matches.is_on("prefix"), matches.is_on("from-key"));
    let key = words::bytes(&keys[0]);
    if prefix && from_key && (key.is_empty() || keys.len() == 1) {
        return Err(bad_args("--from-key and --prefix flags are mutually exclusive"));
    }
    if key.is_empty() {
        let end = if prefix || from_key { &b"\0"[..] } else { b"" };
        return Ok(KeySpan { key: Bytes::from_static(b"\0"), range_end: end.into() });
    }
    match keys.get(1) {
        None if prefix => Ok(KeySpan::prefix(key)),
        None if from_key => Ok(KeySpan::from_key(key)),
        None => Ok(KeySpan::key(key)),
        Some(_) if prefix => Err(bad_args("unexpected endkey argument with --prefix flag")),
        Some(_) if from_key => Err(bad_args("unexpected endkey argument with --from-key flag")),
        Some(end) => Ok(KeySpan::range(key, words::bytes(end))),
    }
}
