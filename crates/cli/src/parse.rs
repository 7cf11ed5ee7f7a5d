//! How a command line is read: which command it names, and which flags and arguments it gives. Not here: what
//! is done with it (`run`).

use crate::command::Command;
use crate::flag::{Flag, usages};
use crate::suggest;

/// A command with all that leads to it.
pub(crate) struct Found<'p> {
    /// From the root down to the command.
    pub path: Vec<&'p Command>,
    /// The words that are left: its flags and arguments.
    pub rest: Vec<String>,
}

/// Flags and arguments of a command.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub flags: Vec<Flag>,
    pub args: Vec<String>,
    pub dash: Option<usize>,
    pub warnings: Vec<String>,
}

/// Why a command line is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong(pub String);

impl<'p> Found<'p> {
    pub fn command(&self) -> &'p Command {
        self.path.last().expect("the root at the least")
    }

    /// How many of [`flags`](Self::flags) are the command's own; they come first.
    pub fn own_flags(&self) -> usize {
        own_flags(self.command()).len()
    }

    /// The flags that hold here: the command's own, and those of all above it.
    pub fn flags(&self) -> Vec<Flag> {
        let command = self.command();
        let mut flags = own_flags(command);
        for above in &self.path[..self.path.len() - 1] {
            let new = above.persistent.iter().filter(|f| !has(&flags, f.name)).cloned();
            flags.extend(new.collect::<Vec<_>>());
        }
        flags
    }

    /// The lines of help for the flags of this command, and for those of the commands above it.
    pub fn usages(&self, with_help: bool) -> (String, String) {
        let own = own_flags(self.command());
        let own = own.iter().filter(|f| with_help || f.name != "help");
        let above = &self.path[..self.path.len() - 1];
        (usages(own), usages(above.iter().flat_map(|c| c.persistent.iter())))
    }
}

fn own_flags(command: &Command) -> Vec<Flag> {
    let mut flags = command.flags.clone();
    flags.extend(command.persistent.iter().cloned());
    if !has(&flags, "help") {
        let help: &'static str = help_of(command.name());
        let letter_is_free = !flags.iter().any(|f| f.short == Some('h'));
        let flag = Flag::switch("help", help);
        flags.push(if letter_is_free { flag.short('h') } else { flag });
    }
    flags
}

/// `help for NAME`; leaked once for each command that is looked at, a handful in a call.
fn help_of(name: &str) -> &'static str {
    Box::leak(format!("help for {name}").into_boxed_str())
}

fn has(flags: &[Flag], name: &str) -> bool {
    flags.iter().any(|f| f.name == name)
}

/// The command that these words name. A word cut short will do where it is unique.
pub(crate) fn find<'p>(root: &'p Command, words: &[String]) -> Found<'p> {
    let mut found = Found { path: vec![root], rest: words.to_vec() };
    loop {
        let flags = found.flags();
        let plain = without_flags(&found.rest, &flags);
        let Some(at) = plain.first().copied() else { return found };
        let Some(next) = child(found.command(), &found.rest[at]) else { return found };
        found.rest.remove(at);
        found.path.push(next);
    }
}

/// Where the words stand that are neither flags nor their values, up to a `--`.
pub(crate) fn without_flags(words: &[String], flags: &[Flag]) -> Vec<usize> {
    let mut plain = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_str();
        if word == "--" {
            break;
        }
        if takes_next(word, flags) {
            // The last word is nobody's value: it may be what is missing.
            if at + 2 >= words.len() {
                break;
            }
            at += 1;
        } else if !word.is_empty() && !word.starts_with('-') {
            plain.push(at);
        }
        at += 1;
    }
    plain
}

/// Whether the word behind this one is its value.
pub(crate) fn takes_next(word: &str, flags: &[Flag]) -> bool {
    if word.contains('=') {
        return false;
    }
    if let Some(name) = word.strip_prefix("--") {
        return !flags.iter().any(|f| f.name == name && f.is_switch());
    }
    match word.strip_prefix('-') {
        Some(rest) if rest.chars().count() == 1 => {
            !flags.iter().any(|f| f.short == rest.chars().next() && f.is_switch())
        }
        Some(rest) => single_dash(rest, flags).is_some_and(|(flag, _)| !flags[flag].is_switch()),
        None => false,
    }
}

/// A long flag behind a single dash, as Go's own flag package takes it: the flag's place, and its value where
/// one stands behind a `=`. Letters come first: only where the first is none does the name count.
fn single_dash<'w>(word: &'w str, flags: &[Flag]) -> Option<(usize, Option<&'w str>)> {
    let letter = word.chars().next()?;
    if flags.iter().any(|f| f.short == Some(letter)) {
        return None;
    }
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    Some((flags.iter().position(|f| f.name == name)?, value))
}

/// The command below this one that a word names, or the only one that it begins.
pub(crate) fn child<'p>(command: &'p Command, word: &str) -> Option<&'p Command> {
    if let Some(found) = command.children.iter().find(|c| c.is_called(word)) {
        return Some(found);
    }
    let begins = |c: &&Command| {
        c.name().starts_with(word) || c.aliases.iter().any(|alias| alias.starts_with(word))
    };
    let mut near = command.children.iter().filter(begins);
    near.next().filter(|_| near.next().is_none())
}

/// What is said of a word that names no command.
pub(crate) fn unknown_command(word: &str, path: &str, command: &Command) -> Wrong {
    let mut text =
        format!("unknown command {} for {}", crate::go::quote(word), crate::go::quote(path));
    let near: Vec<&str> = command
        .children
        .iter()
        .filter(|c| c.is_listed() && suggest::is_near(word, c.name()))
        .map(|c| c.name())
        .collect();
    if !near.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        near.iter().for_each(|name| text.push_str(&format!("\t{name}\n")));
    }
    Wrong(text)
}

/// Reads a command's words.
pub(crate) fn parse(mut flags: Vec<Flag>, words: &[String]) -> Result<Parsed, Wrong> {
    let (mut args, mut dash, mut warnings) = (Vec::new(), None, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            dash = Some(args.len());
            args.extend(words.by_ref().cloned());
        } else if let Some(long) = word.strip_prefix("--") {
            long_flag(long, &mut flags, &mut words, &mut warnings)?;
        } else if word.len() > 1 && word.starts_with('-') {
            short_flags(&word[1..], &mut flags, &mut words, &mut warnings)?;
        } else {
            args.push(word.clone());
        }
    }
    Ok(Parsed { flags, args, dash, warnings })
}

type Words<'w> = std::slice::Iter<'w, String>;

fn long_flag(
    word: &str,
    flags: &mut [Flag],
    rest: &mut Words<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Wrong> {
    if word.starts_with(['-', '=']) {
        return Err(Wrong(format!("bad flag syntax: --{word}")));
    }
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let Some(flag) = flags.iter_mut().find(|f| f.name == name) else {
        return Err(Wrong(format!("unknown flag: --{name}")));
    };
    let value = match value {
        Some(value) => value,
        None if flag.is_switch() => "true",
        None => match rest.next() {
            Some(next) => next,
            None => return Err(Wrong(format!("flag needs an argument: --{name}"))),
        },
    };
    set(flag, value, warnings)
}

/// One letter or several: `-w json`, `-wjson`, `-w=json`; or a long flag behind a single dash.
fn short_flags(
    word: &str,
    flags: &mut [Flag],
    rest: &mut Words<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Wrong> {
    if single_dash(word, flags).is_some() {
        return long_flag(word, flags, rest, warnings);
    }
    let mut letters = word;
    while let Some(letter) = letters.chars().next() {
        let behind = &letters[letter.len_utf8()..];
        let Some(flag) = flags.iter_mut().find(|f| f.short == Some(letter)) else {
            return Err(Wrong(format!("unknown shorthand flag: '{letter}' in -{letters}")));
        };
        if let Some(value) = behind.strip_prefix('=').filter(|value| !value.is_empty()) {
            return set(flag, value, warnings);
        }
        if flag.is_switch() {
            set(flag, "true", warnings)?;
            letters = behind;
            continue;
        }
        let value = if behind.is_empty() { rest.next().map(String::as_str) } else { Some(behind) };
        let Some(value) = value else {
            return Err(Wrong(format!("flag needs an argument: '{letter}' in -{letters}")));
        };
        return set(flag, value, warnings);
    }
    Ok(())
}

fn set(flag: &mut Flag, value: &str, warnings: &mut Vec<String>) -> Result<(), Wrong> {
    flag.set(value).map_err(|why| {
        let name = match flag.short {
            Some(letter) => format!("-{letter}, --{}", flag.name),
            None => format!("--{}", flag.name),
        };
        Wrong(format!("invalid argument {} for \"{name}\" flag: {why}", crate::go::quote(value)))
    })?;
    if !flag.deprecated.is_empty() {
        warnings.push(format!("Flag --{} has been deprecated, {}", flag.name, flag.deprecated));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::Value;

    fn flags() -> Vec<Flag> {
        vec![
            Flag::text("write-out", "simple", "form").short('w'),
            Flag::switch("prefix", "all that begin so"),
            Flag::switch("verbose", "more").short('v'),
            Flag::int("limit", 0, "at the most"),
            Flag::list("endpoints", &["127.0.0.1:2379"], "where"),
        ]
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
    }

    fn value(parsed: &Parsed, name: &str) -> Value {
        parsed.flags.iter().find(|f| f.name == name).expect("a flag").value.clone()
    }

    #[test]
    fn every_way_to_give_a_value() {
        for line in ["-w json", "-wjson", "-w=json", "--write-out json", "--write-out=json"] {
            let parsed = parse(flags(), &words(line)).expect(line);
            assert_eq!(value(&parsed, "write-out"), Value::Text("json".into()), "{line}");
        }
        let parsed = parse(flags(), &words("a -vw json --prefix=false b -endpoints x,y -- -z"));
        let parsed = parsed.expect("right");
        assert_eq!(parsed.args, ["a", "b", "-z"]);
        assert_eq!(parsed.dash, Some(2));
        assert_eq!(value(&parsed, "verbose"), Value::Switch(true));
        assert_eq!(value(&parsed, "endpoints"), Value::List(vec!["x".into(), "y".into()]));
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_that_scripts_know() {
        let rows = [
            ("--nope", "unknown flag: --nope"),
            ("-z", "unknown shorthand flag: 'z' in -z"),
            ("-vz", "unknown shorthand flag: 'z' in -z"),
            ("-w", "flag needs an argument: 'w' in -w"),
            ("--limit", "flag needs an argument: --limit"),
            ("--=x", "bad flag syntax: --=x"),
            (
                "--limit=x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
        ];
        for (line, want) in rows {
            let wrong = parse(flags(), &words(line)).expect_err(line);
            assert_eq!(wrong, Wrong(want.into()), "{line}");
        }
    }
}
