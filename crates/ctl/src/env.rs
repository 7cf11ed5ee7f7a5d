//! `ETCDCTL_*` variables: each flag that all commands have may be given by one. Not here: what the flags mean.

use etch_cli::{Failure, Flag, Matches, Value, go};

use crate::program::is_global;
use crate::{exit, log};

const PREFIX: &str = "ETCDCTL_";

/// Variables that are understood without being a flag: the version of the API, which older scripts set, and what
/// `watch` reads itself.
const SILENT: &[&str] = &["ETCDCTL_API", "ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// The variable that stands for a flag.
fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// What was found among the variables.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Flags and their values.
    set: Vec<(&'static str, String)>,
    /// Whole variables that stand for no flag.
    unknown: Vec<String>,
    /// The first one whose flag stands on the command line as well.
    conflict: Option<String>,
}

fn look(flags: &[Flag], variables: &[(String, String)]) -> Found {
    let mut found = Found::default();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let flag = flags.iter().find(|f| is_global(f.name) && variable(f.name) == *name);
        match flag {
            Some(flag) if flag.given => {
                found.conflict = Some(name.clone());
                break;
            }
            Some(flag) if !value.is_empty() => found.set.push((flag.name, value.clone())),
            _ if SILENT.contains(&name.as_str()) => {}
            _ => found.unknown.push(format!("{name}={value}")),
        }
    }
    found
}

/// Gives the flags that were not given their values from the variables.
///
/// # Errors
/// If a flag is given in both ways.
pub fn apply(matches: &mut Matches) -> Result<(), Failure> {
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let found = look(&matches.flags, &variables);
    for text in &found.unknown {
        log::line("warn", "unrecognized environment variable", &[("environment-variable", text)]);
    }
    if let Some(name) = found.conflict {
        let why = "conflicting environment variable is shadowed by corresponding command-line flag \
                   (either unset environment variable or disable flag))";
        log::line("fatal", why, &[("environment-variable", &name)]);
        return Err(Failure::silent(exit::ERROR));
    }
    for (flag, value) in found.set {
        // What cannot be read leaves the flag as it is, as in etcdctl; but it is said.
        if let Err(why) = matches.set(flag, &value) {
            let name = variable(flag);
            let fields = [("environment-variable", name.as_str()), ("error", why.as_str())];
            log::line("warn", "invalid value of environment variable is not heeded", &fields);
        }
    }
    if matches.is_on("debug") {
        show(matches);
        crate::trace::everything();
    }
    Ok(())
}

/// Lists the flags as variables, for `--debug`; without what is secret.
fn show(matches: &Matches) {
    let mut flags: Vec<&Flag> = matches.flags.iter().filter(|f| is_global(f.name)).collect();
    flags.sort_by_key(|flag| flag.name);
    for flag in flags {
        eprintln!("{}={}", variable(flag.name), text(flag));
    }
}

fn text(flag: &Flag) -> String {
    match &flag.value {
        Value::Switch(on) => on.to_string(),
        Value::Text(text) if text.is_empty() => String::new(),
        Value::Text(_) if matches!(flag.name, "password" | "auth-jwt-token") => "<hidden>".into(),
        Value::Text(text) if flag.name == "user" => {
            text.split_once(':').map_or(text.clone(), |(name, _)| format!("{name}:<hidden>"))
        }
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Uint32(number) => number.to_string(),
        Value::Duration(ns) => go::duration(*ns),
        Value::List(list) => format!("[{}]", list.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::global_flags;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_variable_sets_its_flag_or_is_unknown() {
        let given = variables(&[
            ("ETCDCTL_DIAL_TIMEOUT", "3s"),
            ("ETCDCTL_API", "3"),
            ("ETCDCTL_NOPE", "1"),
            ("ETCDCTL_USER", ""),
            ("PATH", "/bin"),
        ]);
        let want = Found {
            set: vec![("dial-timeout", "3s".into())],
            unknown: vec!["ETCDCTL_NOPE=1".into(), "ETCDCTL_USER=".into()],
            conflict: None,
        };
        assert_eq!(look(&global_flags(), &given), want);
    }

    #[test]
    fn a_flag_given_in_both_ways_is_a_conflict() {
        let mut flags = global_flags();
        flags[0].given = true;
        let given = variables(&[("ETCDCTL_ENDPOINTS", "x:1"), ("ETCDCTL_NOPE", "1")]);
        assert_eq!(look(&flags, &given).conflict.as_deref(), Some("ETCDCTL_ENDPOINTS"));
    }
}
