//! Where lines go: the targets of `--log-outputs`. Not here: how a file is rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::rotate::{RotatedFile, Rotation};

/// The targets of one log. Each takes a line in one write; an error is dropped, for there is nowhere to
/// report it.
pub struct Outputs(Vec<Output>);

enum Output {
    Stderr,
    Stdout,
    File(File),
    Rotated(Mutex<RotatedFile>),
    #[cfg(test)]
    Memory(std::sync::Arc<Mutex<Vec<u8>>>),
}

impl Outputs {
    /// Nowhere.
    pub fn none() -> Outputs {
        Outputs(Vec::new())
    }

    /// Standard error.
    pub fn stderr() -> Outputs {
        Outputs(vec![Output::Stderr])
    }

    #[cfg(test)]
    pub(crate) fn memory(lines: &std::sync::Arc<Mutex<Vec<u8>>>) -> Outputs {
        Outputs(vec![Output::Memory(std::sync::Arc::clone(lines))])
    }

    /// Opens the targets of `--log-outputs`: `default`, `stderr`, `stdout`, or the path of a file, which is
    /// appended to. The journal of systemd takes what stands on stderr, so that is where its lines go.
    pub fn open(targets: &[String], rotation: Option<&Rotation>) -> io::Result<Outputs> {
        let mut outputs = Vec::with_capacity(targets.len());
        for target in targets {
            outputs.push(match target.as_str() {
                "default" | "stderr" | "systemd/journal" => Output::Stderr,
                "stdout" => Output::Stdout,
                path => Output::file(path.strip_prefix("file://").unwrap_or(path), rotation)
                    .map_err(|error| io::Error::new(error.kind(), open_error(path, &error)))?,
            });
        }
        Ok(Outputs(outputs))
    }

    /// Writes a line to each.
    pub(super) fn write(&self, line: &[u8]) {
        for output in &self.0 {
            let _ = output.write(line);
        }
    }
}

impl Output {
    fn file(path: &str, rotation: Option<&Rotation>) -> io::Result<Output> {
        Ok(match rotation {
            Some(rotation) => Output::Rotated(Mutex::new(RotatedFile::open(path, rotation)?)),
            None => Output::File(OpenOptions::new().append(true).create(true).open(path)?),
        })
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        match self {
            Output::Stderr => io::stderr().lock().write_all(line),
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line)?;
                stdout.flush()
            }
            Output::File(file) => (&mut &*file).write_all(line),
            Output::Rotated(file) => {
                file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
            }
            #[cfg(test)]
            Output::Memory(lines) => {
                lines.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line);
                Ok(())
            }
        }
    }
}

fn open_error(path: &str, error: &io::Error) -> String {
    format!("open sink {path:?}: open {path}: {}", crate::os_error_text(error))
}
