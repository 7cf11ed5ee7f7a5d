//! `put`: writes a key. Not here: how its answer looks (`display::kv`).

use std::io::Read as _;

use bytes::Bytes;
use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::Put;

use crate::connect::Ctl;
use crate::{bad_args, program, words};

const LONG: &str = "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
";

/// The command.
pub fn command() -> Command {
    let usage = "put [options] <key> <value> (<value> can also be given from stdin)";
    Command::new(usage, "Puts the given key into the store", run)
        .long(LONG)
        .group(program::KV)
        .flags(flags())
}

/// Its flags, which a transaction's lines have as well.
pub fn flags() -> Vec<Flag> {
    vec![
        Flag::text("lease", "0", "lease ID (in hexadecimal) to attach to the key"),
        Flag::switch("prev-kv", "return the previous key-value pair before modification"),
        Flag::switch("ignore-value", "updates the key using its current value"),
        Flag::switch("ignore-lease", "updates the key using its current lease"),
    ]
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let request = request(matches, from_stdin)?.into_request();
    let ctl = Ctl::new(matches)?;
    let answer =
        ctl.ask(async |client| client.kv().put(client.options().clone(), request).await)?;
    ctl.display.put(&answer)
}

/// What is asked for. A value that is no argument is got elsewhere.
pub fn request(
    matches: &Matches,
    elsewhere: impl FnOnce() -> Option<Bytes>,
) -> Result<Put, Failure> {
    const USAGE: &str = "put command needs 1 argument and input from stdin or 2 arguments";
    let keeps_value = matches.is_on("ignore-value");
    let (key, value) = match &matches.args[..] {
        [] => return Err(bad_args(USAGE)),
        [_, _, ..] if keeps_value => {
            return Err(bad_args("put command needs only 1 argument when 'ignore-value' is set"));
        }
        [key] if keeps_value => (key, Bytes::new()),
        [key] => (key, elsewhere().ok_or_else(|| bad_args(USAGE))?),
        [key, value, ..] => (key, words::bytes(value)),
    };
    let lease = lease_id(matches.text("lease"))?;
    let mut put = etch_client::put(words::bytes(key), value);
    if lease != 0 {
        put = put.lease(lease);
    }
    if matches.is_on("prev-kv") {
        put = put.prev_kv();
    }
    if keeps_value {
        put = put.ignore_value();
    }
    if matches.is_on("ignore-lease") {
        put = put.ignore_lease();
    }
    Ok(put)
}

/// A lease's identifier, which is written in hexadecimal.
pub fn lease_id(text: &str) -> Result<i64, Failure> {
    parse_hexadecimal(text).map_err(|why| {
        let why = format!("strconv.ParseInt: parsing {}: {why}", go::quote(text));
        bad_args(format!("bad lease ID ({why}), expecting ID in Hex"))
    })
}

/// `strconv.ParseInt` with base 16; an error is Go's reason.
pub fn parse_hexadecimal(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("invalid syntax");
    }
    i64::from_str_radix(text, 16).map_err(|_| "value out of range")
}

/// All of standard input; nothing if there is nothing.
fn from_stdin() -> Option<Bytes> {
    let mut value = Vec::new();
    std::io::stdin().read_to_end(&mut value).ok()?;
    (!value.is_empty()).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_hexadecimal() {
        assert_eq!(lease_id("7fffffffffffffff"), Ok(i64::MAX));
        assert_eq!(lease_id("-a"), Ok(-10));
        let wrong = |text: &str, why: &str| {
            let why = format!(
                "bad lease ID (strconv.ParseInt: parsing \"{text}\": {why}), expecting ID in Hex"
            );
            assert_eq!(lease_id(text), Err(bad_args(why)));
        };
        wrong("", "invalid syntax");
        wrong("x", "invalid syntax");
        wrong("+-1", "invalid syntax");
        wrong("8000000000000000", "value out of range");
    }
}
