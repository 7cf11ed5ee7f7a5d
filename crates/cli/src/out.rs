//! What commands print. Not here: help and errors, which go to the streams that `run` is given.

use std::io::{self, Write as _};
use std::path::Path;

use crate::command::Failure;
use crate::go;

/// Nobody reads what is printed: what a shell reports for a process that a closed pipe has ended.
const PIPE_CLOSED: u8 = 141;

/// Writes to standard output.
///
/// # Errors
/// A reader that has gone ends the command without a word; anything else is told.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(PIPE_CLOSED),
        _ => Failure::new(1, go::io_error("write", Path::new("/dev/stdout"), &error)),
    })
}

/// The same for a text, with the end of its line.
///
/// # Errors
/// As those of [`print`].
pub fn print_line(text: &str) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes())
}
