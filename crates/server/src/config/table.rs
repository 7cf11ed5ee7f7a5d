//! What a flag is: name, what it takes, whether this release heeds it, and what it is for. Not here: the
//! flags themselves (`flags`), and how a command line is read.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Config;
use super::gates::FeatureGates;
use super::urls::{self, Url};
use super::values::{self, PARSE_ERROR};
use crate::logging::go_duration;

pub(super) const DEFAULT_ROTATION: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

/// What a flag takes, and where in [`Config`] it goes.
pub(super) enum Kind {
    Text(fn(&mut Config) -> &mut String),
    Switch(fn(&mut Config) -> &mut bool),
    Unsigned(fn(&mut Config) -> &mut u64),
    Unsigned32(fn(&mut Config) -> &mut u32),
    Signed(fn(&mut Config) -> &mut i64),
    Time(fn(&mut Config) -> &mut Duration),
    Urls(fn(&mut Config) -> &mut Vec<Url>),
    /// Words between commas, in their order.
    Words(fn(&mut Config) -> &mut Vec<String>),
    /// Different words between commas.
    WordSet(fn(&mut Config) -> &mut BTreeSet<String>),
    /// URLs between commas, or `*`.
    Origins(fn(&mut Config) -> &mut BTreeSet<String>),
    Choice(&'static [&'static str], fn(&mut Config) -> &mut String),
    /// Choices between commas, which are checked and then forgotten.
    Phases(&'static [&'static str]),
    Gates(fn(&mut Config) -> &mut FeatureGates),
    /// A flag of ancient times: taken as a switch, without effect.
    Ignored,
}

/// Whether this release heeds a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// It does, or refuses to start where it cannot.
    Heeded,
    /// It does not; who gives the flag is told so.
    None,
}

/// One flag.
pub(super) struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    pub effect: Effect,
    pub help: &'static str,
}

/// A flag that this release heeds.
pub(super) const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, kind, effect: Effect::Heeded, help }
}

/// A flag that is accepted and does nothing.
pub(super) const fn unheeded(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, kind, effect: Effect::None, help }
}

use Kind::*;

pub(super) use super::flags::GROUPS;

/// Every flag.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|(_, flags)| flags.iter()).chain(super::flags::OTHERS)
}

/// The flag of this name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

impl Flag {
    /// True if the flag may stand without a value.
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Switch(_) | Ignored)
    }

    /// Sets the flag; the error is the text of what reads such a value.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let number = |error: values::NumberError| error.flag_text();
        match self.kind {
            Text(field) => text.clone_into(field(config)),
            Switch(field) => {
                *field(config) = values::parse_bool(text).ok_or_else(|| PARSE_ERROR.to_owned())?;
            }
            Unsigned(field) => *field(config) = values::parse_unsigned(text).map_err(number)?,
            Unsigned32(field) => {
                *field(config) = values::parse_unsigned(text)
                    .and_then(|n| n.try_into().map_err(|_| values::NumberError::Range))
                    .map_err(|error| error.strconv_text("ParseUint", text))?;
            }
            Signed(field) => *field(config) = values::parse_signed(text).map_err(number)?,
            Time(field) => {
                let nanos = values::parse_duration(text).map_err(|_| PARSE_ERROR.to_owned())?;
                *field(config) = values::duration(nanos);
            }
            // An empty list leaves what was there.
            Urls(_) if text.is_empty() => {}
            Urls(field) => {
                let mut list = urls::parse_list(text)?;
                list.dedup();
                *field(config) = list;
            }
            Words(field) => *field(config) = text.split(',').map(str::to_owned).collect(),
            WordSet(field) => *field(config) = text.split(',').map(str::to_owned).collect(),
            Origins(field) if text == "*" => {
                field(config).insert(text.to_owned());
            }
            Origins(field) => {
                *field(config) = urls::parse_list(text)?.iter().map(Url::to_string).collect();
            }
            Choice(choices, field) if choices.contains(&text) => text.clone_into(field(config)),
            Choice(..) => return Err("invalid value".to_owned()),
            Phases(choices) => {
                if let Some(bad) = text.split(',').find(|phase| !choices.contains(phase)) {
                    return Err(format!("invalid value {bad:?}"));
                }
            }
            Gates(field) => field(config).set(text)?,
            Ignored => {}
        }
        Ok(())
    }

    /// The value of the flag as it would be given.
    pub fn show(&self, config: &mut Config) -> String {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(",");
        match self.kind {
            Text(field) | Choice(_, field) => field(config).clone(),
            Switch(field) => field(config).to_string(),
            Unsigned(field) => field(config).to_string(),
            Unsigned32(field) => field(config).to_string(),
            Signed(field) => field(config).to_string(),
            Time(field) => go_duration(*field(config)),
            Urls(field) => urls::join(field(config)),
            Words(field) => field(config).join(","),
            WordSet(field) | Origins(field) => list(field(config)),
            Phases(_) => config.v2_deprecation.clone(),
            Gates(field) => field(config).to_string(),
            Ignored => String::new(),
        }
    }
}
