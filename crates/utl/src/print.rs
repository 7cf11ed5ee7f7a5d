//! What commands found out, in the forms that `--write-out` names. Not here: finding it out.

use etch_cli::table::table;
use etch_cli::{Failure, Matches, human, print_line};
use serde_json::json;

use crate::exit;

/// The forms.
pub const FORMATS: &[&str] = &["fields", "json", "protobuf", "simple", "table"];

/// What `snapshot status` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over the names, keys and values of all buckets.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// How many keys live at it.
    pub total_keys: u64,
    /// The file's size without the digest at its end, in bytes.
    pub total_size: u64,
    /// The storage version; empty for etcd 3.5 and older.
    pub version: String,
}

/// What `hashkv` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// etcd's hash over the history.
    pub hash: u32,
    /// Up to which revision.
    pub revision: i64,
    /// The compacted revision, or -1.
    pub compact_revision: i64,
}

/// Looks at the asked form before there is anything to print.
pub fn check_format(matches: &Matches) -> Result<(), Failure> {
    let format = matches.text("write-out");
    if FORMATS.contains(&format) {
        return Ok(());
    }
    Err(Failure::new(exit::BAD_FEATURE, "unsupported output format"))
}

/// Prints a status.
pub fn status(matches: &Matches, status: &Status) -> Result<(), Failure> {
    let row = [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_keys.to_string(),
        human::bytes(status.total_size),
        status.version.clone(),
    ];
    let headings = ["hash", "revision", "total keys", "total size", "version"];
    let json = format!(
        "{{\"hash\":{},\"revision\":{},\"totalKey\":{},\"totalSize\":{},\"version\":{}}}",
        status.hash,
        status.revision,
        status.total_keys,
        status.total_size,
        json!(status.version)
    );
    let fields = format!(
        "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n\"Version\" : {}",
        status.hash, status.revision, status.total_keys, status.total_size, status.version
    );
    print(matches, &headings, &row, &json, &fields)
}

/// Prints a hash.
pub fn hash(matches: &Matches, hash: &Hash) -> Result<(), Failure> {
    let Hash { hash, revision, compact_revision } = hash;
    let row = [hash.to_string(), revision.to_string(), compact_revision.to_string()];
    let headings = ["hash", "hash revision", "compact revision"];
    let json = format!(
        "{{\"hash\":{hash},\"hashRevision\":{revision},\"compactRevision\":{compact_revision}}}"
    );
    let fields = format!(
        "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\"Compact revision\" : {compact_revision}"
    );
    print(matches, &headings, &row, &json, &fields)
}

fn print(
    matches: &Matches,
    headings: &[&str],
    row: &[String],
    json: &str,
    fields: &str,
) -> Result<(), Failure> {
    match matches.text("write-out") {
        "simple" => print_line(&row.join(", ")),
        "json" => print_line(json),
        "fields" => print_line(fields),
        "table" => etch_cli::print(table(headings, &[row.to_vec()]).as_bytes()),
        other => {
            let why = format!("{other} not supported as output format");
            Err(Failure::new(exit::BAD_FEATURE, why))
        }
    }
}
