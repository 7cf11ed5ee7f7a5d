//! What a program's commands are, and what one call of it holds. Not here: how arguments are read (`parse`),
//! shown (`help`) or completed (`complete`).

use crate::flag::{Flag, Value};
use std::borrow::Cow;

/// How a command failed: what it says, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub code: u8,
    /// What is printed behind `Error: `; nothing is printed where it is empty.
    pub text: String,
}

impl Failure {
    /// A failure with this status and text.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// One that has been told already: the exit status alone.
    pub fn silent(code: u8) -> Self {
        Self { code, text: String::new() }
    }
}

/// How many arguments a command takes. Most of etcd's commands take any number and check themselves, with
/// texts of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Args {
    /// Any; but a word behind the program's own name must be a command.
    Any,
    /// None at all.
    None,
    /// As many as this.
    Exactly(usize),
    /// As many as this, each one of the command's `valid_args`.
    ExactlyValid(usize),
}

/// What a command does.
pub type Run = fn(&Matches) -> Result<(), Failure>;

/// A heading in the list of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(pub &'static str);

/// One command, with those below it.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its name and how it is called, such as `get [options] <key> [range_end]`.
    pub usage: &'static str,
    /// One line about it, for the list of commands.
    pub short: &'static str,
    /// All about it; where it is empty `short` stands for it.
    pub long: Cow<'static, str>,
    /// Examples, as they are to be shown.
    pub example: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// The heading that it is listed under.
    pub group: Option<Group>,
    /// Whether lists leave it out.
    pub hidden: bool,
    /// What to use instead, where it is on its way out.
    pub deprecated: &'static str,
    /// Flags of this command alone.
    pub flags: Vec<Flag>,
    /// Flags of this command and of all below it.
    pub persistent: Vec<Flag>,
    /// How many arguments it takes.
    pub args: Args,
    /// Whether its usage line ends without `[flags]`.
    pub hides_flags: bool,
    /// The arguments that completion offers.
    pub valid_args: &'static [&'static str],
    /// What it does; without this it shows its help.
    pub run: Option<Run>,
    /// The commands below it.
    pub children: Vec<Command>,
}

impl Command {
    /// A command that takes any arguments.
    pub fn new(usage: &'static str, short: &'static str, run: Run) -> Self {
        Self { run: Some(run), ..Self::parent(usage, short, Vec::new()) }
    }

    /// A command that only has others below it.
    pub fn parent(usage: &'static str, short: &'static str, children: Vec<Command>) -> Self {
        Self {
            usage,
            short,
            long: "".into(),
            example: "",
            aliases: &[],
            group: None,
            hidden: false,
            deprecated: "",
            flags: Vec::new(),
            persistent: Vec::new(),
            args: Args::Any,
            hides_flags: false,
            valid_args: &[],
            run: None,
            children,
        }
    }

    /// With flags of its own.
    pub fn flags(mut self, flags: Vec<Flag>) -> Self {
        self.flags = flags;
        self
    }

    /// With flags that hold below it, too.
    pub fn persistent(mut self, flags: Vec<Flag>) -> Self {
        self.persistent = flags;
        self
    }

    /// With all that is to be said about it.
    pub fn long(mut self, long: &'static str) -> Self {
        self.long = long.into();
        self
    }

    /// With examples.
    pub fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// Listed under a heading.
    pub fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// With a rule for its arguments.
    pub fn args(mut self, args: Args) -> Self {
        self.args = args;
        self
    }

    /// The first word of its usage.
    pub fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }

    /// Whether lists show it.
    pub(crate) fn is_listed(&self) -> bool {
        !self.hidden && self.deprecated.is_empty()
    }

    /// Whether this word names it.
    pub(crate) fn is_called(&self, word: &str) -> bool {
        self.name() == word || self.aliases.contains(&word)
    }
}

/// A program: its root command, and in what its manner differs from others'.
#[derive(Clone, Debug)]
pub struct Program {
    /// How it was called: what stands before each command in its texts, such as `etcdctl` or `etch ctl`.
    pub name: &'static str,
    /// The root command, whose usage is not shown.
    pub root: Command,
    /// Headings of the list of commands, in order.
    pub groups: Vec<Group>,
    /// The heading that `help` and `completion` are listed under.
    pub help_group: Option<Group>,
    /// Whether help begins with what the command is about; otherwise it is the usage alone.
    pub help_has_long: bool,
    /// A line at the end of each help.
    pub help_footer: &'static str,
    /// Whether `-h` is left out of the root's own flags.
    pub hide_root_help: bool,
    /// Whether a wrong call's error is printed once more at the end.
    pub repeats_errors: bool,
}

/// What one call holds: the command's flags with their values, and its arguments.
#[derive(Clone, Debug)]
pub struct Matches {
    /// The program's name and the commands' down to this one, as help writes them.
    pub path: String,
    /// The flags that the command knows, with their values.
    pub flags: Vec<Flag>,
    /// The words that are no flags.
    pub args: Vec<String>,
    /// Where in `args` a `--` stood: the number of words before it.
    pub dash: Option<usize>,
    /// The program, for commands that show all flags or write completion.
    pub program: std::rc::Rc<Program>,
}

impl Matches {
    /// Reads words that came later, such as a line of input, as if they stood behind a command with these flags.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn again(&self, flags: Vec<Flag>, words: &[String]) -> Result<Self, String> {
        let parsed = crate::parse::parse(flags, words).map_err(|wrong| wrong.0)?;
        let (flags, args, dash) = (parsed.flags, parsed.args, parsed.dash);
        let program = std::rc::Rc::clone(&self.program);
        Ok(Self { path: self.path.clone(), flags, args, dash, program })
    }

    /// The flag with this name.
    ///
    /// # Panics
    /// If the command has no such flag: the command is written wrong.
    pub fn flag(&self, name: &str) -> &Flag {
        let found = self.flags.iter().find(|f| f.name == name);
        found.unwrap_or_else(|| panic!("no flag --{name} here"))
    }

    /// Whether the flag was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.flag(name).given
    }

    /// Gives a flag its value from elsewhere, such as the environment.
    ///
    /// # Errors
    /// The flag's own word about a value that it does not take.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let found = self.flags.iter_mut().find(|f| f.name == name);
        found.map_or(Ok(()), |flag| flag.set(value))
    }

    /// A flag's text.
    pub fn text(&self, name: &str) -> &str {
        match &self.flag(name).value {
            Value::Text(text) => text,
            other => panic!("--{name} is no text but {other:?}"),
        }
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        match self.flag(name).value {
            Value::Switch(on) => on,
            ref other => panic!("--{name} is no switch but {other:?}"),
        }
    }

    /// A flag's number.
    pub fn number(&self, name: &str) -> i64 {
        match self.flag(name).value {
            Value::Int(number) => number,
            ref other => panic!("--{name} is no number but {other:?}"),
        }
    }

    /// A flag's number that is never negative.
    pub fn unsigned(&self, name: &str) -> u64 {
        match self.flag(name).value {
            Value::Uint(number) => number,
            Value::Uint32(number) => u64::from(number),
            ref other => panic!("--{name} is no unsigned number but {other:?}"),
        }
    }

    /// A flag's span of time, in nanoseconds; it may be negative.
    pub fn duration_ns(&self, name: &str) -> i64 {
        match self.flag(name).value {
            Value::Duration(ns) => ns,
            ref other => panic!("--{name} is no duration but {other:?}"),
        }
    }

    /// A flag's list.
    pub fn list(&self, name: &str) -> &[String] {
        match &self.flag(name).value {
            Value::List(list) => list,
            other => panic!("--{name} is no list but {other:?}"),
        }
    }
}
