//! `lock`: holds a lock until it is told to stop, or while a command runs. Not here: the lock's own rules
//! (`etch_client::concurrency`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use etch_cli::{Command, Failure, Flag, Matches};
use etch_client::concurrency::{Guard, Mutex, Session};
use etch_client::{Client, Error};

use crate::connect::Ctl;
use crate::fail::failed;
use crate::signals::Signals;
use crate::{bad_args, exec, exit, log, program, words};

/// The command.
pub fn command() -> Command {
    let usage = "lock <lockname> [exec-command arg1 arg2 ...]";
    Command::new(usage, "Acquires a named lock", run)
        .group(program::CONCURRENCY)
        .flags(vec![Flag::int("ttl", 10, "timeout for session")])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let [name, command @ ..] = &matches.args[..] else {
        let why = "lock takes a lock name argument and an optional command to execute";
        return Err(bad_args(why));
    };
    let ctl = Ctl::lasting(matches)?;
    ctl.run(async {
        let mut signals = signals()?;
        let session = session(&ctl.client, matches.number("ttl")).await.map_err(failed)?;
        let result = hold(&ctl, &session, name, command, &mut signals).await;
        // The lease would run out by itself.
        let _ = session.close().await;
        result
    })
}

/// The signals that end a command.
pub fn signals() -> Result<Signals, Failure> {
    Signals::new().map_err(|e| Failure::new(exit::ERROR, e.to_string()))
}

/// A session with so many seconds of life.
async fn session(client: &Client, ttl: i64) -> Result<Session, Error> {
    if ttl > 0 {
        return Session::new(client).ttl(ttl).await;
    }
    let why = "WithTTL(): TTL should be > 0, preserving current TTL";
    log::line("warn", why, &[("current-session-ttl", "60")]);
    Session::new(client).await
}

/// What is said where a signal ended the waiting.
pub fn canceled() -> Failure {
    Failure::new(exit::ERROR, "context canceled")
}

async fn hold(
    ctl: &Ctl,
    session: &Session,
    name: &str,
    command: &[String],
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mutex = Mutex::new(session, words::bytes(name));
    let guard = tokio::select! {
        guard = mutex.lock() => guard.map_err(lost)?,
        () = signals.wait() => return Err(canceled()),
    };
    if !command.is_empty() {
        return run_under(guard, command).await;
    }
    let held = ctl.client.get(guard.key()).await.map_err(failed)?;
    if held.kvs.is_empty() {
        return Err(Failure::new(exit::ERROR, "lock lost on init"));
    }
    ctl.display.get(&held)?;
    tokio::select! {
        () = signals.wait() => guard.unlock().await.map_err(failed),
        _ = session.lost() => Err(Failure::new(exit::ERROR, "session expired")),
    }
}

fn lost(error: Error) -> Failure {
    match error {
        Error::LeaseLost(_) => Failure::new(exit::ERROR, "mutex: session is expired"),
        other => failed(other),
    }
}

/// Runs a command while the lock is held.
async fn run_under(guard: Guard, command: &[String]) -> Result<(), Failure> {
    let key = OsString::from_vec(guard.key().to_vec());
    let revision = guard.header().revision.to_string();
    let variables = vec![("ETCD_LOCK_KEY", key), ("ETCD_LOCK_REV", revision.into())];
    let ended = exec::run(command, variables).await;
    let unlocked = guard.unlock().await;
    ended.map_err(|ended| Failure::new(ended.code, ended.why))?;
    unlocked.map_err(failed)
}
