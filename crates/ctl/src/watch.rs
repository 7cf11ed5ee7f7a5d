//! `watch`: shows what happens to keys, and runs a command for each event. Not here: how events look
//! (`display::watch`), running commands (`exec`).

use std::io::stdin;

use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::{Client, Error, Watch, WatchStream};
use tokio::sync::mpsc;

use crate::connect::Ctl;
use crate::display::watch::{Watched, kind};
use crate::display::{Display, print};
use crate::fail::{failed, text};
use crate::line::{self, invalid};
use crate::{bad_args, exec, exit, program, trace, words};

/// The variable that names the key, and the one that names the range's end.
const KEY: &str = "ETCDCTL_WATCH_KEY";
const RANGE_END: &str = "ETCDCTL_WATCH_RANGE_END";

const NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const SEPARATOR: &str = "bad number of arguments (found separator --, but no commands)";
const EXCLUSIVE: &str = "`range_end` and `--prefix` are mutually exclusive";

/// The command.
pub fn command() -> Command {
    let usage = "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]";
    Command::new(usage, "Watches events stream on keys or prefixes", run)
        .group(program::KV)
        .flags(flags())
}

fn flags() -> Vec<Flag> {
    vec![
        Flag::switch("interactive", "Interactive mode").short('i'),
        Flag::switch("prefix", "Watch on a prefix if prefix is set"),
        Flag::int("rev", 0, "Revision to start watching"),
        Flag::switch("prev-kv", "get the previous key-value pair before the event happens"),
        Flag::switch("progress-notify", "get periodic watch progress notification from server"),
    ]
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let given = Given::from_env()?;
    if matches.is_on("interactive") {
        let ctl = lasting(matches)?;
        return ctl.run(interactive(&ctl, &given));
    }
    let asked = Asked::new(matches, &given).map_err(bad_args)?;
    let ctl = lasting(matches)?;
    let spec = asked.spec.check().map_err(bad_args)?;
    ctl.run(async {
        follow(spec.watch(&ctl.client).await, ctl.display, &asked.exec).await?;
        Err(Failure::new(exit::INTERRUPTED, "watch is canceled by the server"))
    })
}

fn lasting(matches: &Matches) -> Result<Ctl, Failure> {
    if !matches.is_on("debug") {
        trace::connections("watch");
    }
    Ctl::lasting(matches)
}

/// What the variables name.
#[derive(Default)]
struct Given {
    key: Option<String>,
    end: Option<String>,
}

impl Given {
    fn from_env() -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let given = Self {
            key: variable(KEY).map(words::from_os),
            end: variable(RANGE_END).map(words::from_os),
        };
        match (&given.key, &given.end) {
            (None, Some(end)) => {
                let end = go::quote(words::bytes(end));
                Err(bad_args(format!("{KEY} is empty but got {RANGE_END}={end}")))
            }
            _ => Ok(given),
        }
    }
}

/// A watch, and the command to run for each of its events.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    spec: Spec,
    exec: Vec<String>,
}

impl Asked {
    fn new(matches: &Matches, given: &Given) -> Result<Self, String> {
        let (keys, exec) = matches.args.split_at(matches.dash.unwrap_or(matches.args.len()));
        if matches.dash.is_some() && exec.is_empty() {
            return Err(SEPARATOR.into());
        }
        if given.key.is_some() && !keys.is_empty() {
            return Err(CONFLICT.into());
        }
        let from_env = given.key.iter().chain(given.end.iter()).cloned();
        let keys: Vec<String> = from_env.chain(keys.iter().cloned()).collect();
        if keys.is_empty() {
            return Err(NUMBER.into());
        }
        let spec = Spec {
            keys,
            prefix: matches.is_on("prefix"),
            rev: matches.number("rev"),
            prev_kv: matches.is_on("prev-kv"),
            progress: matches.is_on("progress-notify"),
        };
        Ok(Self { spec, exec: exec.to_vec() })
    }
}

/// What is watched, and how.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    keys: Vec<String>,
    prefix: bool,
    rev: i64,
    prev_kv: bool,
    progress: bool,
}

impl Spec {
    fn check(&self) -> Result<&Self, String> {
        let is_range = self.keys.len() == 2;
        if is_range && self.prefix { Err(EXCLUSIVE.into()) } else { Ok(self) }
    }

    fn watch(&self, client: &Client) -> Watch {
        let mut watch = client.watch(words::bytes(&self.keys[0])).rev(self.rev).require_leader();
        if let [_, end] = &self.keys[..] {
            watch = watch.range(words::bytes(end));
        }
        if self.prefix {
            watch = watch.prefix();
        }
        if self.prev_kv {
            watch = watch.prev_kv();
        }
        if self.progress {
            watch = watch.progress_notify();
        }
        watch
    }
}

/// Shows what a watch tells until it ends.
async fn follow(
    watch: Result<WatchStream, Error>,
    display: Display,
    exec: &[String],
) -> Result<(), Failure> {
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => return over(&display, None, &error),
    };
    let created = *watch.created();
    while let Some(message) = watch.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return over(&display, Some(created), &error),
        };
        let revision = message.header.revision;
        if message.is_progress() {
            print(format!("progress notify: {revision}\n").as_bytes())?;
        }
        let header = Some(message.header);
        let watched = Watched { header, events: message.events, ..Watched::default() };
        display.watched(&watched)?;
        for event in watched.events.iter().filter(|_| !exec.is_empty()) {
            run_for(event, revision, exec).await?;
        }
    }
    Ok(())
}

/// Says why a watch is over.
fn over(
    display: &Display,
    created: Option<etch_client::pb::ResponseHeader>,
    error: &Error,
) -> Result<(), Failure> {
    eprintln!("watch was canceled ({})", text(error));
    let (compact_revision, cancel_reason) = match error {
        Error::Compacted { revision } => (*revision, String::new()),
        error => (0, text(error)),
    };
    // The server's last word bears no revision.
    let header = created.map(|header| etch_client::pb::ResponseHeader { revision: 0, ..header });
    let canceled = true;
    display.watched(&Watched { header, compact_revision, canceled, cancel_reason, events: vec![] })
}

async fn run_for(
    event: &etch_client::Event,
    revision: i64,
    exec: &[String],
) -> Result<(), Failure> {
    let kv = event.kv.clone().unwrap_or_default();
    let variables = vec![
        ("ETCD_WATCH_REVISION", revision.to_string().into()),
        ("ETCD_WATCH_EVENT_TYPE", go::quote(kind(event)).into()),
        ("ETCD_WATCH_KEY", go::quote(&kv.key).into()),
        ("ETCD_WATCH_VALUE", go::quote(&kv.value).into()),
    ];
    exec::run(exec, variables).await.map_err(|ended| {
        let exec: Vec<String> = exec.iter().map(|word| go::quote(words::bytes(word))).collect();
        eprintln!("command [{}] error ({})", exec.join(" "), ended.why);
        Failure::silent(exit::ERROR)
    })
}

/// Reads watches, and wishes for signs of progress, line by line.
async fn interactive(ctl: &Ctl, given: &Given) -> Result<(), Failure> {
    let (send, mut lines) = mpsc::unbounded_channel();
    // Reading cannot be called off: the thread ends with the process.
    std::thread::spawn(move || {
        let mut input = stdin().lock();
        loop {
            let line = line::next(&mut input);
            let is_last = !matches!(line, Ok(Some(_)));
            if send.send(line).is_err() || is_last {
                return;
            }
        }
    });
    let (tell, mut failures) = mpsc::unbounded_channel();
    loop {
        let line = tokio::select! {
            Some(failure) = failures.recv() => return Err(failure),
            line = lines.recv() => line,
        };
        let what = "error reading watch request line:";
        let Some(line) = line.transpose()?.flatten() else {
            return Err(invalid(format!("{what} EOF")));
        };
        obey(ctl, given, &line, &tell).await?;
    }
}

/// Does what a line says.
async fn obey(
    ctl: &Ctl,
    given: &Given,
    line: &[u8],
    tell: &mpsc::UnboundedSender<Failure>,
) -> Result<(), Failure> {
    let words = line::split(line)?;
    let line = String::from_utf8_lossy(line);
    let Some((first, rest)) = words.split_first() else {
        eprintln!("Invalid command: {line} (watch and progress supported)");
        return Ok(());
    };
    match first.as_str() {
        "watch" if rest.is_empty() && given.key.is_none() => {
            eprintln!("Invalid command {line} (command type or key is not provided)");
        }
        "watch" => {
            let matches = ctl.matches.again(flags(), rest).map_err(bad_args)?;
            let asked = Asked::new(&matches, given).map_err(bad_args)?;
            if let Err(why) = asked.spec.check() {
                eprintln!("Invalid command {line} ({why})");
                return Ok(());
            }
            let (watch, display, tell) = (asked.spec.watch(&ctl.client), ctl.display, tell.clone());
            tokio::spawn(async move {
                if let Err(failure) = follow(watch.await, display, &asked.exec).await {
                    // The command is over already if nobody listens.
                    let _ = tell.send(failure);
                }
            });
        }
        "progress" => {
            let client = ctl.client.with_require_leader();
            client.request_progress().await.map_err(failed)?;
        }
        _ => eprintln!("Invalid command {line} (only support watch)"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, given: &Given) -> Result<(Vec<String>, Vec<String>), String> {
        let matches = words::tests::matches(flags(), line).map_err(|f| f.text)?;
        let asked = Asked::new(&matches, given)?;
        asked.spec.check()?;
        Ok((asked.spec.keys, asked.exec))
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_are_keys_up_to_the_dashes() {
        let none = Given::default();
        let rows = [
            ("a", Ok((list(&["a"]), list(&[])))),
            ("a b --rev 3", Ok((list(&["a", "b"]), list(&[])))),
            ("a --rev 3 b -- ls -l a", Ok((list(&["a", "b"]), list(&["ls", "-l", "a"])))),
            ("", Err(NUMBER.to_owned())),
            ("-- ls", Err(NUMBER.to_owned())),
            ("a --", Err(SEPARATOR.to_owned())),
            ("a b --prefix", Err(EXCLUSIVE.to_owned())),
        ];
        for (line, want) in rows {
            assert_eq!(asked(line, &none), want, "{line}");
        }
    }

    #[test]
    fn keys_may_be_variables() {
        let given = Given { key: Some("k".into()), end: Some("l".into()) };
        assert_eq!(asked("-- ls", &given), Ok((list(&["k", "l"]), list(&["ls"]))));
        assert_eq!(asked("--rev 1", &given), Ok((list(&["k", "l"]), list(&[]))));
        assert_eq!(asked("a -- ls", &given), Err(CONFLICT.into()));
        assert_eq!(asked("a", &given), Err(CONFLICT.into()));
    }
}
