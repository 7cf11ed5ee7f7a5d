//! The command line as Go's `flag` package reads it, and the environment. Not here: what a flag takes
//! (`table`), and whether the values go together (`validate`).

use std::collections::BTreeSet;

use serde_json::json;

use super::Config;
use super::table;
use crate::logging::Level;

/// Something to be logged once there is a log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    pub level: Level,
    pub message: String,
    pub fields: Vec<(&'static str, serde_json::Value)>,
}

impl Note {
    pub fn new(
        level: Level,
        message: impl Into<String>,
        fields: Vec<(&'static str, serde_json::Value)>,
    ) -> Note {
        Note { level, message: message.into(), fields }
    }
}

/// Why a command line was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommandLineError {
    /// Help was asked for.
    Help,
    /// The `flag` package's text.
    Flag(String),
    /// An argument that is not a flag.
    Argument(String),
}

/// Reads the arguments behind the program's name into `config`.
pub(super) fn command_line(config: &mut Config, args: &[String]) -> Result<(), CommandLineError> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            break;
        }
        let Some(body) = arg.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Err(CommandLineError::Argument(arg.clone()));
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(CommandLineError::Flag(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(flag) = table::find(name) else {
            return Err(match name {
                "help" | "h" => CommandLineError::Help,
                _ => CommandLineError::Flag(format!("flag provided but not defined: -{name}")),
            });
        };
        let value = match value {
            Some(value) => value,
            None if flag.is_switch() => "true".to_owned(),
            None => rest.next().cloned().ok_or_else(|| {
                CommandLineError::Flag(format!("flag needs an argument: -{name}"))
            })?,
        };
        flag.set(config, &value).map_err(|why| {
            CommandLineError::Flag(if flag.is_switch() {
                format!("invalid boolean value {value:?} for -{name}: {why}")
            } else {
                format!("invalid value {value:?} for flag -{name}: {why}")
            })
        })?;
        config.given.insert(flag.name.to_owned());
    }
    match rest.next() {
        Some(left) => Err(CommandLineError::Argument(left.clone())),
        None => Ok(()),
    }
}

/// The environment variable of a flag.
pub(super) fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_uppercase().replace('-', "_"))
}

/// Reads the environment into `config`, where the command line has not said otherwise.
pub(super) fn environment(
    config: &mut Config,
    env: &[(String, String)],
    notes: &mut Vec<Note>,
) -> Result<(), String> {
    let mut result = Ok(());
    let mut used = BTreeSet::new();
    let given: BTreeSet<String> = config.given.iter().map(|flag| variable(flag)).collect();
    let mut flags: Vec<_> = table::all().collect();
    flags.sort_by_key(|flag| flag.name);
    for flag in flags {
        let name = variable(flag.name);
        let value = env.iter().find(|(key, value)| *key == name && !value.is_empty());
        let Some((_, value)) = value.filter(|_| name != "ETCD_VERSION" && !given.contains(&name))
        else {
            continue;
        };
        used.insert(name.clone());
        match flag.set(config, value) {
            Ok(()) => {
                config.given.insert(flag.name.to_owned());
                let shown = if is_secret(flag.name) { "***" } else { value };
                notes.push(Note::new(
                    Level::Info,
                    "recognized and used environment variable",
                    vec![("variable-name", json!(name)), ("variable-value", json!(shown))],
                ));
            }
            Err(why) => result = Err(format!("invalid value {value:?} for {name}: {why}")),
        }
    }
    leftovers(env, &used, &given, notes)?;
    result
}

/// What to say of the variables that no flag took. One that a flag of the command line hides is an error.
fn leftovers(
    env: &[(String, String)],
    used: &BTreeSet<String>,
    given: &BTreeSet<String>,
    notes: &mut Vec<Note>,
) -> Result<(), String> {
    for (name, value) in env.iter().filter(|(name, _)| !used.contains(name)) {
        if given.contains(name) {
            return Err(format!(
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag)): {name}"
            ));
        }
        if name == "ETCD_VERSION" && !value.is_empty() {
            notes.push(Note::new(
                Level::Warn,
                "cannot set special environment variable",
                vec![("key", json!(name)), ("value", json!(value))],
            ));
        } else if name.starts_with("ETCD_") {
            let shown = if is_secret(&name.to_lowercase()) { "***" } else { value };
            notes.push(Note::new(
                Level::Warn,
                "unrecognized environment variable",
                vec![("environment-variable", json!(format!("{name}={shown}")))],
            ));
        }
    }
    Ok(())
}

fn is_secret(name: &str) -> bool {
    name.contains("password") || name.ends_with("discovery-user")
}

/// The command line as it may be shown: without passwords.
pub(super) fn without_secrets(args: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(args.len());
    let mut hide_next = false;
    for arg in args {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        let secret = arg.starts_with('-') && is_secret(name);
        shown.push(match value {
            _ if hide_next => "***".to_owned(),
            Some(_) if secret => format!("{name}=***"),
            _ => arg.clone(),
        });
        hide_next = !hide_next && secret && value.is_none();
    }
    shown
}
