//! What can go wrong with the log, told so that an operator knows which file and which byte.
//!
//! Not here: what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// An error of the log.
#[derive(Debug)]
pub enum WalError {
    /// The disk refused. After one of a write or a flush the log is poisoned.
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// Bytes that were once durable cannot be read. Nothing was changed.
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// No segment in the directory, or none old enough for the snapshot.
    NotFound {
        /// The directory.
        dir: PathBuf,
        /// The snapshot's index.
        index: u64,
    },
    /// There is a log already.
    Exists(PathBuf),
    /// Another process holds this segment.
    Locked(PathBuf),
    /// Segments are missing before this one.
    MissingSegment(PathBuf),
    /// The log holds no note of the snapshot it was opened at.
    SnapshotNotFound {
        /// The snapshot's index.
        index: u64,
        /// The snapshot's term.
        term: u64,
    },
    /// The log's note of the snapshot has another term.
    SnapshotMismatch {
        /// The snapshot's index.
        index: u64,
        /// The term asked for.
        term: u64,
        /// The term in the log.
        found: u64,
    },
    /// The caller asked for something that must not be written.
    Invalid(&'static str),
    /// An earlier write or flush failed: what is on disk is unknown, and nothing more may be acknowledged.
    Poisoned,
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "wal: {}: {error}", path.display()),
            Self::Corrupt { path, offset, what } => {
                write!(f, "wal: {} is corrupt at byte {offset}: {what}", path.display())
            }
            Self::NotFound { dir, index } => {
                write!(
                    f,
                    "wal: no file in {} which matches the snapshot index {index}",
                    dir.display()
                )
            }
            Self::Exists(dir) => write!(f, "wal: {} holds a log already", dir.display()),
            Self::Locked(path) => write!(f, "wal: {} is locked by another process", path.display()),
            Self::MissingSegment(path) => {
                write!(f, "wal: the segments before {} are missing", path.display())
            }
            Self::SnapshotNotFound { index, term } => {
                write!(f, "wal: snapshot at index {index}, term {term} not found")
            }
            Self::SnapshotMismatch { index, term, found } => {
                write!(f, "wal: snapshot at index {index} has term {found}, not {term}")
            }
            Self::Invalid(what) => write!(f, "wal: {what}"),
            Self::Poisoned => write!(f, "wal: an earlier write failed, the log takes no more"),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
