//! One call of a program from its words to its exit status: the order in which a call is looked at, and what
//! goes to which stream. Not here: reading words (`parse`), texts of help (`help`).

use std::io::Write;
use std::rc::Rc;

use crate::command::{Args, Command, Failure, Matches, Program};
use crate::go::quote;
use crate::parse::{self, Found, Wrong, find};
use crate::{complete, help, man};

/// Where a call's own texts go. Commands write to the process's streams themselves.
pub struct Streams<'s> {
    /// Help that was asked for.
    pub out: &'s mut dyn Write,
    /// Errors, and the usage behind them.
    pub err: &'s mut dyn Write,
}

/// Runs the command that these words name and gives back the exit status. Words do not hold the program's name.
pub fn run(program: Program, words: &[String], streams: &mut Streams<'_>) -> u8 {
    let program = Rc::new(with_help_command(program));
    if let Some(words) = complete::asked(words) {
        return complete::answer(&program, words, streams);
    }
    if words.len() == 1 && words[0] == man::COMMAND {
        say(streams.out, &man::page(&program));
        return 0;
    }
    let found = find(&program.root, words);
    let path = help::path(&program, &found);
    if let Err(Wrong(why)) = check_name(&found, &path) {
        say(streams.err, &format!("Error: {why}\nRun '{path} --help' for usage.\n"));
        if program.repeats_errors {
            say(streams.err, &format!("Error: {why}\n"));
        }
        return 1;
    }
    match call(&program, &found, &path, streams) {
        Ok(code) => code,
        Err(Wrong(why)) => {
            let usage = help::usage(&program, &found, true);
            say(streams.err, &format!("Error: {why}\n{usage}\n"));
            if program.repeats_errors {
                say(streams.err, &format!("Error: {why}\n"));
            }
            1
        }
    }
}

/// What cannot be written is nobody's to read any more.
pub(crate) fn say(stream: &mut dyn Write, text: &str) {
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}

/// Adds `help`, which every program has.
fn with_help_command(mut program: Program) -> Program {
    let mut help = Command::new("help [command]", "Help about any command", |_| Ok(()));
    help.long = format!(
        "Help provides help for any command in the application.\nSimply type {} help [path to command] for full details.",
        program.name
    )
    .into();
    help.group = program.help_group;
    program.root.children.push(help);
    program
}

/// A word right behind the program's name is a command or nothing.
fn check_name(found: &Found<'_>, path: &str) -> Result<(), Wrong> {
    let command = found.command();
    if found.path.len() > 1 || command.children.is_empty() {
        return Ok(());
    }
    let plain = parse::without_flags(&found.rest, &found.flags());
    match plain.first() {
        Some(at) => Err(parse::unknown_command(&found.rest[*at], path, command)),
        None => Ok(()),
    }
}

fn call(
    program: &Rc<Program>,
    found: &Found<'_>,
    path: &str,
    streams: &mut Streams<'_>,
) -> Result<u8, Wrong> {
    let command = found.command();
    if !command.deprecated.is_empty() {
        let text =
            format!("Command {} is deprecated, {}\n", quote(command.name()), command.deprecated);
        say(streams.err, &text);
    }
    let parsed = parse::parse(found.flags(), &found.rest)?;
    parsed.warnings.iter().for_each(|warning| say(streams.err, &format!("{warning}\n")));
    let matches = Matches {
        path: path.to_owned(),
        flags: parsed.flags,
        args: parsed.args,
        dash: parsed.dash,
        program: Rc::clone(program),
    };
    let Some(run) = command.run.filter(|_| !matches.is_on("help")) else {
        say(streams.out, &help::help(program, found));
        return Ok(0);
    };
    if found.path.len() == 2 && command.name() == "help" {
        return Ok(help_about(program, &matches.args, streams));
    }
    check_args(command, path, &matches.args)?;
    check_required(&matches)?;
    Ok(match run(&matches) {
        Ok(()) => 0,
        Err(Failure { code, text }) => {
            if !text.is_empty() {
                say(streams.err, &format!("Error: {text}\n"));
            }
            code
        }
    })
}

fn help_about(program: &Program, topic: &[String], streams: &mut Streams<'_>) -> u8 {
    let found = find(&program.root, topic);
    let path = help::path(program, &found);
    if check_name(&found, &path).is_ok() {
        say(streams.out, &help::help(program, &found));
        return 0;
    }
    let topic: Vec<String> = topic.iter().map(|word| format!("`{word}`")).collect();
    let root = Found { path: vec![&program.root], rest: Vec::new() };
    let usage = help::usage(program, &root, false);
    say(streams.err, &format!("Unknown help topic [{}]\n{usage}", topic.join(" ")));
    0
}

fn check_args(command: &Command, path: &str, args: &[String]) -> Result<(), Wrong> {
    let count = |want: usize| {
        let got = args.len();
        let text = || format!("accepts {want} arg(s), received {got}");
        if got == want { Ok(()) } else { Err(Wrong(text())) }
    };
    match command.args {
        Args::Any => Ok(()),
        Args::None => match args.first() {
            Some(word) => Err(parse::unknown_command(word, path, command)),
            None => Ok(()),
        },
        Args::Exactly(want) => count(want),
        Args::ExactlyValid(want) => {
            count(want)?;
            match args.iter().find(|arg| !command.valid_args.contains(&arg.as_str())) {
                Some(arg) => {
                    Err(Wrong(format!("invalid argument {} for {}", quote(arg), quote(path))))
                }
                None => Ok(()),
            }
        }
    }
}

fn check_required(matches: &Matches) -> Result<(), Wrong> {
    let missing = matches.flags.iter().filter(|f| f.required && !f.given);
    let mut names: Vec<String> = missing.map(|f| quote(f.name)).collect();
    names.sort();
    if names.is_empty() {
        return Ok(());
    }
    Err(Wrong(format!("required flag(s) {} not set", names.join(", "))))
}
