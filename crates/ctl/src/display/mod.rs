//! Answers in the forms that `--write-out` names: simple, fields, json, protobuf; table is the commands' own. Not
//! here: what an answer says (one file for each kind of message), how it was got.

pub mod auth;
pub mod cluster;
pub mod fields;
pub mod json;
mod kv;
mod lease;
pub mod watch;

pub use etch_cli::print;
use etch_cli::{Failure, Matches};
use prost::{Message, Name};

use crate::bad_feature;

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, and for most scripts.
    Simple,
    /// A name and a value a line.
    Fields,
    /// As Go's `encoding/json` writes the messages.
    Json,
    /// The message itself.
    Protobuf,
    /// A drawn table.
    Table,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    /// The form.
    pub format: Format,
    /// Whether bytes, or identifiers, are hexadecimal.
    pub hex: bool,
    /// Whether keys are left out, in the simple form.
    pub value_only: bool,
}

impl Display {
    /// As the flags say.
    pub fn new(matches: &Matches) -> Result<Self, Failure> {
        let format = match matches.text("write-out") {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(bad_feature("unsupported output format")),
        };
        Ok(Self { format, hex: matches.is_on("hex"), value_only: false })
    }

    /// Prints a message: the simple form and the fields as these write them, the others by the message itself.
    pub fn message<M: Message + Name>(
        &self,
        message: &M,
        simple: impl FnOnce(&mut Vec<u8>),
        fields: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => simple(&mut out),
            Format::Fields => fields(&mut out),
            Format::Json => {
                out = json::message(message, false).into_bytes();
                out.push(b'\n');
            }
            Format::Protobuf => out = message.encode_to_vec(),
            Format::Table => return Err(self.unsupported()),
        }
        print(&out)
    }

    /// What is said where there is no such form of an answer.
    pub fn unsupported(&self) -> Failure {
        let name = match self.format {
            Format::Simple => "simple",
            Format::Fields => "fields",
            Format::Json => "json",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
        };
        bad_feature(format!("{name} not supported as output format"))
    }
}
