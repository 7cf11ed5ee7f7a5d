//! `txn`: reads comparisons and requests from standard input and sends them as one transaction. Not here: the
//! requests' flags (`put`, `get`, `del`), how lines become words (`line`).

use std::io::{BufRead, stdin};

use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::{Compare, Comparison, Op};

use crate::compaction::decimal;
use crate::connect::Ctl;
use crate::display::print;
use crate::line::{self, invalid};
use crate::put::parse_hexadecimal;
use crate::{bad_args, del, get, program, put};

const LONG: &str = "Txn reads multiple etcd requests from standard input and applies them as a single atomic transaction.

A transaction consists of three components:
1) a list of conditions,
2) a list of requests to apply if all the conditions are true,
3) a list of requests to apply if any condition is false.

Example interactive stdin usage:

---
etcdctl txn -i
# compares:
mod(\"key1\") > \"0\"

# success requests (get, put, delete):
put key1 \"overwrote-key1\"

# failure requests (get, put, delete):
put key1 \"created-key1\"
put key2 \"some extra key\"
---

Refer to https://github.com/etcd-io/etcd/blob/main/etcdctl/README.md#txn-options.";

/// The command.
pub fn command() -> Command {
    let short = "Txn processes all the requests in one transaction";
    let interactive = Flag::switch("interactive", "Input transaction in interactive mode");
    Command::new("txn [options]", short, run)
        .long(LONG)
        .group(program::KV)
        .flags(vec![interactive.short('i')])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    if !matches.args.is_empty() {
        return Err(bad_args("txn command does not accept argument"));
    }
    let ctl = Ctl::new(matches)?;
    let mut input = stdin().lock();
    let interactive = matches.is_on("interactive");
    let prompt = |text: &str| if interactive { print(text.as_bytes()) } else { Ok(()) };
    prompt("compares:\n")?;
    let compares = until_empty(&mut input, comparison)?;
    prompt("success requests (get, put, del):\n")?;
    let success = until_empty(&mut input, |line| operation(matches, line))?;
    prompt("failure requests (get, put, del):\n")?;
    let failure = until_empty(&mut input, |line| operation(matches, line))?;
    let answer = ctl.ask(async |client| {
        client.txn().when_all(compares).then_all(success).otherwise_all(failure).await
    })?;
    ctl.display.txn(&answer)
}

/// Reads lines up to an empty one.
fn until_empty<T>(
    input: &mut impl BufRead,
    read: impl Fn(&[u8]) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    loop {
        let line = line::next(input)?.ok_or_else(|| invalid("EOF"))?;
        match line.trim_ascii() {
            [] => return Ok(items),
            line => items.push(read(line)?),
        }
    }
}

/// A request's line: a command's name, and what would stand behind it.
fn operation(matches: &Matches, line: &[u8]) -> Result<Op, Failure> {
    let words = line::split(line)?;
    let line = String::from_utf8_lossy(line);
    let [name, rest @ ..] = &words[..] else {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    };
    if rest.is_empty() {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    }
    let again = |flags| {
        let read = matches.again(flags, rest);
        read.map_err(|_| invalid(format!("invalid txn request: {line}")))
    };
    // A name may be cut short, as on the command line.
    let is = |command: &str| command.starts_with(name.as_str());
    if is("put") {
        // Standard input is the transaction's.
        Ok(put::request(&again(put::flags())?, || None)?.into())
    } else if is("get") {
        Ok(get::request(&again(get::flags())?)?.into())
    } else if is("del") {
        Ok(del::request(&again(del::flags())?)?.into())
    } else {
        Err(invalid(format!("invalid txn request: {line}")))
    }
}

/// A comparison's line, such as `mod("key") > "0"`.
fn comparison(line: &[u8]) -> Result<Comparison, Failure> {
    let text = String::from_utf8_lossy(line);
    let Some(open) = line.iter().position(|b| *b == b'(') else {
        return Err(invalid(format!("malformed comparison: {text}")));
    };
    let target = String::from_utf8_lossy(&line[..open]);
    let scanned = Scanned::new(&line[open + 1..]);
    let Scanned { key, operator, value, complete } = scanned;
    if !complete {
        let (key, value) = (go::quote(key), go::quote(value));
        let got = format!("{target}({key}) {operator} {value}");
        return Err(invalid(format!("malformed comparison: {text}; got {got}")));
    }
    let request = || invalid(format!("invalid txn compare request: {text}"));
    let number = || decimal(&String::from_utf8_lossy(&value)).map_err(|_| request());
    let unknown = || invalid(format!("malformed comparison: {text} (unknown operator {operator})"));
    macro_rules! against {
        ($compare:expr, $value:expr) => {
            match operator.as_str() {
                "=" => $compare.equal($value),
                "!=" => $compare.not_equal($value),
                ">" => $compare.greater($value),
                "<" => $compare.less($value),
                _ => return Err(unknown()),
            }
        };
    }
    Ok(match &*target {
        "ver" | "version" => against!(Compare::version(key), number()?),
        "c" | "create" => against!(Compare::create_revision(key), number()?),
        "m" | "mod" => against!(Compare::mod_revision(key), number()?),
        "val" | "value" => against!(Compare::value(key), value),
        // Written as everywhere else, in hexadecimal. etcdctl breaks down here.
        "lease" => {
            let id = parse_hexadecimal(&String::from_utf8_lossy(&value)).map_err(|_| request())?;
            against!(Compare::lease(key), id)
        }
        _ => {
            let why = format!("malformed comparison: {text} (unknown target {target})");
            return Err(invalid(why));
        }
    })
}

/// What stands behind a comparison's bracket, as far as it could be read: `"key") operator "value"`.
#[derive(Default)]
struct Scanned {
    key: Vec<u8>,
    operator: String,
    value: Vec<u8>,
    complete: bool,
}

impl Scanned {
    fn new(text: &[u8]) -> Self {
        let mut scanned = Self::default();
        let Some((key, rest)) = quoted(text) else { return scanned };
        scanned.key = key;
        let Some(rest) = rest.strip_prefix(b")").and_then(past_spaces) else { return scanned };
        let end = rest.iter().position(|b| line::is_space(*b)).unwrap_or(rest.len());
        scanned.operator = String::from_utf8_lossy(&rest[..end]).into_owned();
        let Some((value, _)) = past_spaces(&rest[end..]).and_then(quoted) else { return scanned };
        Self { value, complete: true, ..scanned }
    }
}

/// What follows a space or more.
fn past_spaces(text: &[u8]) -> Option<&[u8]> {
    text.first().filter(|b| line::is_space(**b)).map(|_| text.trim_ascii_start())
}

/// Text in quotes, and what is behind it. Text in backquotes has no escapes.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = text.trim_ascii_start();
    if let Some(raw) = text.strip_prefix(b"`") {
        let end = raw.iter().position(|b| *b == b'`')?;
        return Some((raw[..end].to_vec(), &raw[end + 1..]));
    }
    let end = text.starts_with(b"\"").then(|| line::quoted_end(text))??;
    Some((line::unquote(&text[..end])?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_client::pb::compare::{CompareResult, CompareTarget, TargetUnion};
    use etch_client::{pb, txn};

    fn compared(line: &str) -> Result<pb::Compare, Failure> {
        let comparison = comparison(line.as_bytes())?;
        Ok(txn().when(comparison).into_request().compare.remove(0))
    }

    #[test]
    fn comparisons_are_read() {
        let found = compared("mod(\"k\\xff\") > \"7\"").expect("right");
        assert_eq!(found.key, &b"k\xff"[..]);
        assert_eq!(found.result, CompareResult::Greater as i32);
        assert_eq!(found.target, CompareTarget::Mod as i32);
        assert_eq!(found.target_union, Some(TargetUnion::ModRevision(7)));
        let found = compared("val(`k`)  != \"\" and more").expect("right");
        assert_eq!(found.target_union, Some(TargetUnion::Value("".into())));
        let found = compared("lease(\"k\") = \"1f\"").expect("right");
        assert_eq!(found.target_union, Some(TargetUnion::Lease(31)));
    }

    #[test]
    fn wrong_comparisons_are_told_in_etcdctls_words() {
        let rows = [
            ("foo", "malformed comparison: foo"),
            ("mod(\"k\") > x", "malformed comparison: mod(\"k\") > x; got mod(\"k\") > \"\""),
            ("mod(k) > \"0\"", "malformed comparison: mod(k) > \"0\"; got mod(\"\")  \"\""),
            ("mod(\"k\")>\"0\"", "malformed comparison: mod(\"k\")>\"0\"; got mod(\"k\")  \"\""),
            ("mod(\"k\") > \"x\"", "invalid txn compare request: mod(\"k\") > \"x\""),
            ("no(\"k\") > \"1\"", "malformed comparison: no(\"k\") > \"1\" (unknown target no)"),
            ("mod(\"k\") ? \"1\"", "malformed comparison: mod(\"k\") ? \"1\" (unknown operator ?)"),
        ];
        for (line, why) in rows {
            assert_eq!(compared(line), Err(invalid(why)), "{line}");
        }
    }

    #[test]
    fn requests_are_commands() {
        let matches = crate::words::tests::matches(Vec::new(), "").expect("right");
        let read = |line: &str| {
            let op = operation(&matches, line.as_bytes())?;
            Ok::<_, Failure>(txn().then(op).into_request().success.remove(0).request)
        };
        use pb::request_op::Request;
        let Ok(Some(Request::RequestPut(put))) = read("put 'a b' \"c\\x00\" --prev-kv") else {
            panic!("a put");
        };
        assert_eq!((&put.key[..], &put.value[..]), (&b"a b"[..], &b"c\0"[..]));
        assert!(put.prev_kv);
        assert!(matches!(read("d x"), Ok(Some(Request::RequestDeleteRange(_)))));
        for (line, why) in [
            ("put", "invalid txn compare request: put"),
            ("nope x", "invalid txn request: nope x"),
            ("get a --limit x", "invalid txn request: get a --limit x"),
        ] {
            assert_eq!(read(line), Err(invalid(why)), "{line}");
        }
    }
}
