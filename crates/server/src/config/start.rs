//! From arguments and environment to a configuration and a log, or to the end of the process. Not here:
//! anything that runs.

use std::time::Duration;

use serde_json::json;

use super::file::{self, FileError};
use super::parse::{self, CommandLineError, Note};
use super::validate::UNSET_ADVERTISE;
use super::{Config, help};
use crate::logging::{Level, Logger};
use crate::{log_info, log_warn};

/// How the reading of a configuration ends.
#[derive(Debug)]
pub(super) enum Loaded {
    /// With a configuration and its log.
    Serve(Box<Config>, Logger),
    /// With a text on stdout.
    Print(String),
    /// With a text on stderr, and this code.
    Complain(String, u8),
    /// With lines in the log, and code 1.
    Refuse(String),
}

/// Reads the configuration and logs how that went, as etcd does. `args` begin with the program's name. An
/// error is the code to exit with: everything that there was to say has been said.
pub fn start(args: &[String], env: &[(String, String)]) -> Result<(Config, Logger), u8> {
    let mut notes = Vec::new();
    let loaded = load(args, env, &mut notes);
    let log = match &loaded {
        Loaded::Serve(_, log) => log.clone(),
        Loaded::Refuse(_) => Logger::bootstrap(),
        Loaded::Print(text) => {
            print!("{text}");
            return Err(0);
        }
        Loaded::Complain(text, code) => {
            eprint!("{text}");
            return Err(*code);
        }
    };
    for note in &notes {
        log.write(note.level, file!(), line!(), &note.message, |fields| {
            for (key, value) in &note.fields {
                fields.add(key, value);
            }
        });
    }
    log_info!(log, "Running: ", "args" => parse::without_secrets(args));
    match loaded {
        Loaded::Serve(mut config, log) => {
            config.command_line = parse::without_secrets(args);
            finish(&mut config, &log);
            Ok((*config, log))
        }
        Loaded::Refuse(error) => {
            log_warn!(log, "failed to verify flags", "error" => error);
            if error == UNSET_ADVERTISE {
                log_warn!(log, "advertise client URLs are not set", "error" => error);
            }
            Err(1)
        }
        Loaded::Print(_) | Loaded::Complain(..) => Err(0),
    }
}

pub(super) fn load(args: &[String], env: &[(String, String)], notes: &mut Vec<Note>) -> Loaded {
    let mut config = Config::default();
    match parse::command_line(&mut config, args.get(1..).unwrap_or_default()) {
        Ok(()) => {}
        Err(CommandLineError::Help) => {
            eprintln!("{}", help::USAGE);
            return Loaded::Print(help::flags());
        }
        Err(CommandLineError::Flag(error)) => {
            return Loaded::Complain(format!("{error}\n{}\n", help::USAGE), 2);
        }
        Err(CommandLineError::Argument(argument)) => {
            return Loaded::Refuse(format!("{argument:?} is not a valid flag"));
        }
    }
    if config.version {
        return Loaded::Print(help::version());
    }
    if config.config_file.is_empty() {
        let variable = parse::variable("config-file");
        let path = env.iter().find(|(key, _)| *key == variable).map(|(_, path)| path.clone());
        config.config_file = path.unwrap_or_default();
    }
    let read = if config.config_file.is_empty() {
        from_command_line(&mut config, env, notes)
    } else {
        let path = std::mem::take(&mut config.config_file);
        config = Config::default();
        let read = file::read(&mut config, &path);
        notes.push(Note::new(
            Level::Info,
            "loaded server configuration, other configuration command line flags and environment \
             variables will be ignored if provided",
            vec![("path", json!(path))],
        ));
        config.config_file = path;
        match read {
            Err(FileError::Url(error)) => return Loaded::Complain(format!("{error}\n"), 1),
            Err(FileError::Invalid(error)) => {
                notes.clear();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    };
    zero_is_the_default(&mut config);
    note_deprecated(&config, notes);
    // etcd panics here, with this text and this code.
    if read.is_ok() && Level::parse(&config.log_level).is_none() {
        return Loaded::Complain(format!("unrecognized level: {:?}\n", config.log_level), 2);
    }
    match read.and_then(|()| config.validate(notes)) {
        Ok(log) => Loaded::Serve(Box::new(config), log),
        Err(error) => Loaded::Refuse(error),
    }
}

fn from_command_line(
    config: &mut Config,
    env: &[(String, String)],
    notes: &mut Vec<Note>,
) -> Result<(), String> {
    parse::environment(config, env, notes)?;
    let least = Config::default().raft_read_timeout;
    config.raft_read_timeout = config.raft_read_timeout.max(least);
    config.raft_write_timeout = config.raft_write_timeout.max(least);
    let given = |flag: &str| config.given.contains(flag);
    // Who listens elsewhere has to say where clients find that; the default would be wrong.
    let unset = given("listen-client-urls") && !given("advertise-client-urls");
    let discovery = &config.discovery;
    let discovers = !(discovery.srv.is_empty()
        && discovery.srv_name.is_empty()
        && discovery.endpoints.is_empty());
    let no_cluster = discovers && !given("initial-cluster");
    if unset {
        config.advertise_client_urls.clear();
    }
    if no_cluster {
        config.initial_cluster.clear();
    }
    Ok(())
}

/// Values of which none makes sense stand for their defaults.
fn zero_is_the_default(config: &mut Config) {
    const SHORTEST_PROGRESS: Duration = Duration::from_millis(100);
    let default = Config::default();
    for (time, default) in [
        (&mut config.warning_unary_request_duration, default.warning_unary_request_duration),
        (&mut config.backend_batch_interval, default.backend_batch_interval),
        (&mut config.compaction_sleep_interval, default.compaction_sleep_interval),
        (&mut config.watch_progress_notify_interval, default.watch_progress_notify_interval),
    ] {
        if time.is_zero() {
            *time = default;
        }
    }
    for (number, default) in [
        (&mut config.backend_batch_limit, default.backend_batch_limit),
        (&mut config.compaction_batch_limit, default.compaction_batch_limit),
    ] {
        if *number <= 0 {
            *number = default;
        }
    }
    let progress = &mut config.watch_progress_notify_interval;
    *progress = SHORTEST_PROGRESS.max(*progress);
}

fn note_deprecated(config: &Config, notes: &mut Vec<Note>) {
    for (flag, text) in [
        (
            "max-snapshots",
            "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
        ),
        (
            "v2-deprecation",
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. \
             The default value is enforced, ignoring user input.",
        ),
    ] {
        if config.given.contains(flag) {
            notes.push(Note::new(Level::Warn, text, Vec::new()));
        }
    }
}

/// What is decided only once the flags are known to be good.
fn finish(config: &mut Config, log: &Logger) {
    if let Some(host) = config.complete() {
        log_info!(log, "detected default host for advertise", "host" => host);
    }
    if config.data_dir.is_empty() {
        config.data_dir = format!("{}.etcd", config.name);
        log_warn!(log, "'data-dir' was empty; using default", "data-dir" => config.data_dir);
    }
}
