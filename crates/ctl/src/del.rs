//! `del`: deletes a key, or a range of them. Not here: how its answer looks (`display::kv`).

use std::time::Duration;

use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::Delete;

use crate::connect::Ctl;
use crate::{bad_args, program, words};

/// How long one has to think it over.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

/// The command.
pub fn command() -> Command {
    let short = "Removes the specified key or range of keys [key, range_end)";
    Command::new("del [options] <key> [range_end]", short, run).group(program::KV).flags(flags())
}

/// Its flags, which a transaction's lines have as well.
pub fn flags() -> Vec<Flag> {
    let from_key = "delete keys that are greater than or equal to the given key using byte compare";
    vec![
        Flag::switch("prefix", "delete keys with matching prefix"),
        Flag::switch("prev-kv", "return deleted key-value pairs"),
        Flag::switch("from-key", from_key),
        Flag::switch("range", "delete range of keys"),
    ]
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let request = request(matches)?.into_request();
    let ctl = Ctl::new(matches)?;
    let answer =
        ctl.ask(async |client| client.kv().delete_range(client.options().clone(), request).await)?;
    ctl.display.del(&answer)
}

/// What is asked for. A range of which one was not warned waits for second thoughts first.
pub fn request(matches: &Matches) -> Result<Delete, Failure> {
    let (prefix, from_key) = (matches.is_on("prefix"), matches.is_on("from-key"));
    let (key, end) = match &matches.args[..] {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => {
            let why = "del command needs one argument as key and an optional argument as range_end";
            return Err(bad_args(why));
        }
    };
    crate::get::check_range(prefix, from_key, end.is_some())?;
    if let Some(end) = end.filter(|_| !matches.is_on("range")) {
        eprintln!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to \
             cancel. You can provide `--range` flag to avoid the delay.",
            go::quote(words::bytes(key)),
            go::quote(words::bytes(end)),
        );
        std::thread::sleep(SECOND_THOUGHTS);
    }
    let mut del = etch_client::delete(words::bytes(key));
    if let Some(end) = end {
        del = del.range(words::bytes(end));
    }
    if prefix {
        del = del.prefix();
    }
    if from_key {
        del = del.from_key();
    }
    if matches.is_on("prev-kv") {
        del = del.prev_kv();
    }
    Ok(del)
}
