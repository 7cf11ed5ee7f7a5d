//! What the client's library notes as it works, on standard error: all of it for `--debug`, lost and mended
//! connections for commands that last. Not here: errors, which are the commands' own.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Whose notes are of interest.
const LIBRARY: &str = "etch_client";
/// Whose notes are about connections.
const CONNECTIONS: &str = "etch_client::net::endpoint";

/// Writes every note from now on.
pub fn everything() {
    // One is set already only if the process runs two commands, and then it may stay.
    let _ = tracing::subscriber::set_global_default(Notes { of: None, lost: Mutex::default() });
}

/// Says from now on, on behalf of this command, when a connection is lost and when it is there again.
pub fn connections(command: &'static str) {
    let notes = Notes { of: Some(command), lost: Mutex::default() };
    let _ = tracing::subscriber::set_global_default(notes);
}

struct Notes {
    /// The command whose connections are told of; for none, everything is.
    of: Option<&'static str>,
    /// The endpoints that are not connected.
    lost: Mutex<HashSet<String>>,
}

impl Notes {
    /// The line for a note about a connection, if it is news.
    fn connection(&self, command: &str, note: &Note) -> Option<String> {
        let endpoint = note.endpoint.clone();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if note.message == "connected" {
            let was_lost = lost.remove(&endpoint);
            return was_lost.then(|| format!("{command}: connected to {endpoint}"));
        }
        let is_news = lost.insert(endpoint.clone());
        let why = &note.why;
        is_news.then(|| format!("{command}: not connected to {endpoint} ({why}), trying again"))
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = if self.of.is_some() { CONNECTIONS } else { LIBRARY };
        metadata.is_event() && metadata.target().starts_with(wanted)
    }

    fn event(&self, event: &Event<'_>) {
        let mut note = Note::default();
        event.record(&mut note);
        let line = match self.of {
            Some(command) => self.connection(command, &note),
            None => {
                let (level, target) = (event.metadata().level(), event.metadata().target());
                Some(format!("{level} {target}: {}{}", note.message, note.fields))
            }
        };
        if let Some(line) = line {
            eprintln!("{line}");
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A note's parts.
#[derive(Default)]
struct Note {
    message: String,
    endpoint: String,
    why: String,
    fields: String,
}

impl Note {
    fn take(&mut self, name: &str, value: String) {
        let _ = match name {
            "message" => {
                self.message = value;
                return;
            }
            _ => write!(self.fields, " {name}={value}"),
        };
        match name {
            "endpoint" => self.endpoint = value,
            "why" => self.why = value,
            _ => {}
        }
    }
}

impl Visit for Note {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_told_once_and_so_is_its_end() {
        let notes = Notes { of: Some("watch"), lost: Mutex::default() };
        let note = |message: &str| {
            let (message, why) = (message.to_owned(), "refused".to_owned());
            let note = Note { message, endpoint: "a:1".into(), why, fields: String::new() };
            notes.connection("watch", &note)
        };
        assert_eq!(note("connected"), None);
        let lost = "watch: not connected to a:1 (refused), trying again";
        assert_eq!(note("not connected").as_deref(), Some(lost));
        assert_eq!(note("not connected"), None);
        assert_eq!(note("connected").as_deref(), Some("watch: connected to a:1"));
        assert_eq!(note("connected"), None);
    }
}
