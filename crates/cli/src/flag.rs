//! One flag: its name, its kind and value, how it takes a new one, and its line in the help. Not here: how a
//! command line is cut into flags (`parse`).

use crate::go;

/// A flag's kind together with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// Any text.
    Text(String),
    /// A number.
    Int(i64),
    /// A number that is never negative.
    Uint(u64),
    /// The same in 32 bits.
    Uint32(u32),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// Texts, separated by commas or given one by one.
    List(Vec<String>),
}

/// One flag of a command.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Its letter, if it has one.
    pub short: Option<char>,
    /// What it does. A word in backquotes names its value.
    pub help: &'static str,
    /// What it holds now; at first its default.
    pub value: Value,
    /// What it held at first, as the help shows it: empty for a value that goes without saying.
    pub default: String,
    /// Whether help leaves it out.
    pub hidden: bool,
    /// Whether a call without it is refused.
    pub required: bool,
    /// What to use instead, where it is on its way out.
    pub deprecated: &'static str,
    /// The values that completion offers.
    pub values: &'static [&'static str],
    /// Whether it was given.
    pub given: bool,
}

impl Flag {
    fn new(name: &'static str, value: Value, help: &'static str) -> Self {
        let default = shown(&value);
        Self {
            name,
            short: None,
            help,
            value,
            default,
            hidden: false,
            required: false,
            deprecated: "",
            values: &[],
            given: false,
        }
    }

    /// A switch that is off by default.
    pub fn switch(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Value::Switch(false), help)
    }

    /// A switch with a default of its own.
    pub fn switch_with(name: &'static str, default: bool, help: &'static str) -> Self {
        Self::new(name, Value::Switch(default), help)
    }

    /// A text.
    pub fn text(name: &'static str, default: &str, help: &'static str) -> Self {
        Self::new(name, Value::Text(default.to_owned()), help)
    }

    /// A number.
    pub fn int(name: &'static str, default: i64, help: &'static str) -> Self {
        Self::new(name, Value::Int(default), help)
    }

    /// A number that is never negative.
    pub fn uint(name: &'static str, default: u64, help: &'static str) -> Self {
        Self::new(name, Value::Uint(default), help)
    }

    /// A number that is never negative and has 32 bits.
    pub fn uint32(name: &'static str, default: u32, help: &'static str) -> Self {
        Self::new(name, Value::Uint32(default), help)
    }

    /// A span of time, its default in nanoseconds.
    pub fn duration(name: &'static str, default_ns: i64, help: &'static str) -> Self {
        Self::new(name, Value::Duration(default_ns), help)
    }

    /// A list.
    pub fn list(name: &'static str, default: &[&str], help: &'static str) -> Self {
        let list = default.iter().map(|item| (*item).to_owned()).collect();
        Self::new(name, Value::List(list), help)
    }

    /// With a letter.
    pub fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// Left out of help.
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// That must be given.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// With values for completion.
    pub fn values(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    /// Whether it stands for itself, without a value behind it.
    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.value, Value::Switch(_))
    }

    /// Takes a new value.
    ///
    /// # Errors
    /// Go's text, if the flag's kind cannot be read from it.
    pub(crate) fn set(&mut self, text: &str) -> Result<(), String> {
        match &mut self.value {
            Value::Switch(on) => *on = go::parse_bool(text)?,
            Value::Text(held) => text.clone_into(held),
            Value::Int(number) => *number = go::parse_int(text)?,
            Value::Uint(number) => *number = go::parse_uint(text)?,
            Value::Uint32(number) => *number = go::parse_uint32(text)?,
            Value::Duration(ns) => *ns = go::parse_duration(text)?,
            Value::List(list) => {
                if !self.given {
                    list.clear();
                }
                if !text.is_empty() {
                    list.extend(text.split(',').map(str::to_owned));
                }
            }
        }
        self.given = true;
        Ok(())
    }

    /// What its value is called in help, and its description without the backquotes.
    fn described(&self) -> (String, String) {
        let mut parts = self.help.splitn(3, '`');
        if let (Some(before), Some(name), Some(after)) = (parts.next(), parts.next(), parts.next())
        {
            return (name.to_owned(), format!("{before}{name}{after}"));
        }
        let kind = match self.value {
            Value::Switch(_) => "",
            Value::Text(_) => "string",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Uint32(_) => "uint32",
            Value::Duration(_) => "duration",
            Value::List(_) => "strings",
        };
        (kind.to_owned(), self.help.to_owned())
    }

    /// Its columns in help: the name's, and the description's.
    pub(crate) fn columns(&self) -> (String, String) {
        let (kind, help) = self.described();
        let mut left = match self.short {
            Some(letter) => format!("  -{letter}, --{}", self.name),
            None => format!("      --{}", self.name),
        };
        if !kind.is_empty() {
            left = format!("{left} {kind}");
        }
        let mut right = help;
        if !self.default.is_empty() {
            right = format!("{right} (default {})", self.default);
        }
        if !self.deprecated.is_empty() {
            right = format!("{right} (DEPRECATED: {})", self.deprecated);
        }
        (left, right)
    }
}

/// A default as help shows it; nothing for what goes without saying.
fn shown(value: &Value) -> String {
    match value {
        Value::Switch(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => String::new(),
        Value::Switch(true) => "true".to_owned(),
        Value::Text(text) if text.is_empty() => String::new(),
        Value::Text(text) => go::quote(text),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Uint32(number) => number.to_string(),
        Value::Duration(ns) => go::duration(*ns),
        Value::List(list) if list.is_empty() => String::new(),
        Value::List(list) => format!("[{}]", list.join(",")),
    }
}

/// The lines of help for flags, by name, in two columns, for commands that list them.
pub fn flag_usages(flags: &[Flag]) -> String {
    usages(flags.iter())
}

/// The lines of help for these flags, by name, in two columns.
pub(crate) fn usages<'f>(flags: impl Iterator<Item = &'f Flag>) -> String {
    let mut flags: Vec<&Flag> = flags.filter(|f| !f.hidden).collect();
    flags.sort_by_key(|f| f.name);
    let columns: Vec<_> = flags.iter().map(|f| f.columns()).collect();
    let width = columns.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (left, right) in columns {
        let gap = " ".repeat(width - left.chars().count() + 3);
        out.push_str(&format!("{left}{gap}{right}\n"));
    }
    out
}
