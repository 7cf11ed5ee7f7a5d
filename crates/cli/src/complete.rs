//! Completion: what may stand at the end of a command line, asked for by the shells' scripts through a hidden
//! command, and these scripts. Not here: how a command line is read (`parse`).

use crate::command::{Command, Program};
use crate::flag::Flag;
use crate::help;
use crate::parse::{self, Found, find};
use crate::run::{Streams, say};

/// Shells may offer files.
const DEFAULT: u8 = 0;
/// Shells must not offer files.
const NO_FILES: u8 = 4;

/// A question of a shell's script.
pub(crate) struct Asked<'w> {
    words: &'w [String],
    described: bool,
}

/// Whether this call is a question of a shell's script.
pub(crate) fn asked(words: &[String]) -> Option<Asked<'_>> {
    let (first, words) = words.split_first()?;
    match first.as_str() {
        "__complete" => Some(Asked { words, described: true }),
        "__completeNoDesc" => Some(Asked { words, described: false }),
        _ => None,
    }
}

/// Writes one line for each offer, then what the shell is to do with them.
pub(crate) fn answer(program: &Program, asked: Asked<'_>, streams: &mut Streams<'_>) -> u8 {
    let Some((last, before)) = asked.words.split_last() else {
        return no_words(program, streams);
    };
    let found = find(&program.root, before);
    let (offers, directive) = match unknown(&found) {
        Some(word) => {
            let arguments = before[before.iter().position(|w| w == word).unwrap_or(0)..].join(" ");
            let why = format!("unable to find a command for arguments: [{arguments}]");
            say(streams.err, &format!("[Debug] [Error] {why}\n"));
            (Vec::new(), DEFAULT)
        }
        None => offers(program, &found, last),
    };
    let mut out = String::new();
    for (name, about) in offers {
        out.push_str(&name);
        if asked.described && !about.is_empty() {
            out.push('\t');
            out.push_str(&about);
        }
        out.push('\n');
    }
    say(streams.out, &format!("{out}:{directive}\n"));
    let name = if directive == NO_FILES { "NoFileComp" } else { "Default" };
    say(streams.err, &format!("Completion ended with directive: ShellCompDirective{name}\n"));
    0
}

/// The question without a word of a command line.
fn no_words(program: &Program, streams: &mut Streams<'_>) -> u8 {
    let why = "Error: requires at least 1 arg(s), only received 0\n";
    let mut command = Command::new("__complete [command-line]", "", |_| Ok(()));
    command.aliases = &["__completeNoDesc"];
    let found = Found { path: vec![&program.root, &command], rest: Vec::new() };
    let again = if program.repeats_errors { why } else { "" };
    // Flags of its own are not spoken of.
    let usage = help::usage(program, &found, true).replacen("] [flags]", "]", 1);
    say(streams.err, &format!("{why}{usage}\n{again}"));
    1
}

/// The word right behind the program's name, where it is no command.
fn unknown<'f>(found: &'f Found<'_>) -> Option<&'f String> {
    if found.path.len() > 1 {
        return None;
    }
    parse::without_flags(&found.rest, &found.flags()).first().map(|at| &found.rest[*at])
}

type Offers = Vec<(String, String)>;

fn offers(program: &Program, found: &Found<'_>, last: &str) -> (Offers, u8) {
    let mut flags = found.flags();
    let is_root = found.path.len() == 1;
    flags.iter_mut().filter(|f| f.name == "help").for_each(|f| {
        f.hidden |= is_root && program.hide_root_help;
    });
    if let Some(flag) = flag_before(found, last, &flags) {
        let values = flag.values.iter().map(|v| ((*v).to_owned(), String::new()));
        return (values.collect(), DEFAULT);
    }
    if last.starts_with('-') {
        let (own, above) = flags.split_at(found.own_flags());
        return ([flag_names(above, last), flag_names(own, last)].concat(), NO_FILES);
    }
    let command = found.command();
    if command.name() == "help" && found.path.len() == 2 {
        let asked = find(&program.root, &found.rest);
        if unknown(&asked).is_some() {
            return (Vec::new(), NO_FILES);
        }
        return (children(asked.command(), last), NO_FILES);
    }
    if !command.children.is_empty() {
        return (children(command, last), NO_FILES);
    }
    if command.valid_args.is_empty() {
        return (Vec::new(), DEFAULT);
    }
    let valid = command.valid_args.iter().filter(|arg| arg.starts_with(last));
    (valid.map(|arg| ((*arg).to_owned(), String::new())).collect(), NO_FILES)
}

/// The flag whose value the last word is.
fn flag_before<'f>(found: &Found<'_>, last: &str, flags: &'f [Flag]) -> Option<&'f Flag> {
    if let Some((name, _)) = last.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
        return flags.iter().find(|f| f.name == name);
    }
    let word = found.rest.last().filter(|word| parse::takes_next(word, flags))?;
    let name = word.trim_start_matches('-');
    flags.iter().find(|f| f.name == name || f.short.is_some_and(|s| name == s.to_string()))
}

fn flag_names(flags: &[Flag], last: &str) -> Offers {
    let mut names: Offers = Vec::new();
    let mut flags: Vec<&Flag> = flags.iter().filter(|f| !f.hidden && !f.given).collect();
    flags.sort_by_key(|flag| flag.name);
    for flag in flags {
        let long = format!("--{}", flag.name);
        if long.starts_with(last) {
            names.push((long, flag.help.to_owned()));
        }
        if let Some(letter) = flag.short.filter(|_| last == "-") {
            names.push((format!("-{letter}"), flag.help.to_owned()));
        }
    }
    names
}

fn children(command: &Command, last: &str) -> Offers {
    let listed = command.children.iter().filter(|c| c.is_listed() && c.name().starts_with(last));
    let mut names: Offers = listed.map(|c| (c.name().to_owned(), c.short.to_owned())).collect();
    names.sort();
    names
}

/// The shells that there are scripts for.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];

/// The script that makes a shell complete the program's command lines; nothing for another shell.
pub fn script(program: &str, shell: &str) -> Option<String> {
    let text = match shell {
        "bash" => include_str!("scripts/bash"),
        "zsh" => include_str!("scripts/zsh"),
        "fish" => include_str!("scripts/fish"),
        "powershell" => include_str!("scripts/powershell"),
        _ => return None,
    };
    Some(text.replace("PROGRAM", program))
}
