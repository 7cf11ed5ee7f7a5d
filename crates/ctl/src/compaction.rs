//! `compaction`: drops history. Not here: what a revision is.

use etch_cli::{Command, Failure, Flag, Matches, go};

use crate::connect::Ctl;
use crate::display::print;
use crate::{bad_args, exit, program};

/// The command.
pub fn command() -> Command {
    let physical = "'true' to wait for compaction to physically remove all old revisions";
    Command::new("compaction [options] <revision>", "Compacts the event history in etcd", run)
        .group(program::KV)
        .flags(vec![Flag::switch("physical", physical)])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let [revision] = &matches.args[..] else {
        return Err(bad_args("compaction command needs 1 argument"));
    };
    let revision = decimal(revision).map_err(|why| Failure::new(exit::ERROR, why))?;
    let ctl = Ctl::new(matches)?;
    let physical = matches.is_on("physical");
    ctl.ask(async |client| {
        let compact = client.compact(revision);
        if physical { compact.physical().await } else { compact.await }
    })?;
    print(format!("compacted revision {revision}\n").as_bytes())
}

/// `strconv.ParseInt` with base 10.
pub fn decimal(text: &str) -> Result<i64, String> {
    let wrong = |why| format!("strconv.ParseInt: parsing {}: {why}", go::quote(text));
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong("invalid syntax"));
    }
    text.parse().map_err(|_| wrong("value out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        assert_eq!(decimal("+010"), Ok(10));
        let wrong = |text: &str, why: &str| {
            assert_eq!(decimal(text), Err(format!("strconv.ParseInt: parsing \"{text}\": {why}")));
        };
        wrong("0x1", "invalid syntax");
        wrong("", "invalid syntax");
        wrong("9223372036854775808", "value out of range");
    }
}
