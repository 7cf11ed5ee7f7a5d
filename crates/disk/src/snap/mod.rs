//! Raft's snapshots as files: `<term>-<index>.snap`, the cluster's membership at that point of the log.
//!
//! Here: saving so that a crash leaves a whole file or none, loading the newest that is whole and that the log
//! knows of, and clearing up. Below: `v2`, the tree inside. Not here: the key space, which is in `db`, nor when
//! a snapshot is due.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32c::crc32c;
use etch_api::pb::raftpb::Snapshot;
use etch_api::pb::{snappb, walpb};
use prost::Message;

use crate::fs::{Disk, Open, read_all};
use crate::mutants::{self, Mutant};

mod v2;

pub use v2::{MemberRecord, MembersV2, decode_v2, encode_v2};

/// How many snapshot files are kept, as in etcd.
pub const KEEP: usize = 5;

/// An error with a snapshot file.
#[derive(Debug)]
pub enum SnapError {
    /// The disk refused.
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// The file is not what was written.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for SnapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "snap: {}: {error}", path.display()),
            Self::Corrupt { path, what } => write!(f, "snap: {}: {what}", path.display()),
        }
    }
}

impl std::error::Error for SnapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Corrupt { .. } => None,
        }
    }
}

/// A snapshot that was loaded, and what was passed over on the way to it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Newer files that could not be read. They bear the ending `.broken` now, unless the loading was
    /// without a change.
    pub broken: Vec<PathBuf>,
}

/// The directory of snapshot files.
#[derive(Clone)]
pub struct Snapshotter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Snapshotter {
    /// Over a directory that exists.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.into() }
    }

    /// Writes a snapshot, durably. The log's note of it may be written after this, and not before.
    pub fn save(&self, snapshot: &Snapshot) -> Result<PathBuf, SnapError> {
        let path = self.dir.join(file_name(snapshot));
        let tmp = self.dir.join(format!("{}.tmp", file_name(snapshot)));
        let bytes = encode(snapshot);
        let write = || {
            if self.disk.exists(&tmp) {
                self.disk.remove(&tmp)?;
            }
            let file = self.disk.open(&tmp, Open::Create)?;
            file.write_at(&bytes, 0)?;
            if mutants::on(Mutant::I12691) {
                return self.disk.rename(&tmp, &path);
            }
            file.sync()?;
            self.disk.rename(&tmp, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        match write() {
            Ok(()) => Ok(path),
            Err(error) => {
                // Half a file is of no use, and the room may be what is missing.
                let _ = self.disk.remove(&tmp);
                Err(SnapError::Io { path, error })
            }
        }
    }

    /// The newest whole snapshot that the log has a note of. Broken ones on the way are renamed to
    /// `.broken`, and what a crash left half made is removed.
    pub fn load_newest_available(&self, notes: &[walpb::Snapshot]) -> Result<Loaded, SnapError> {
        for name in self.list()? {
            // What a defragmentation and a save leave when they are cut short.
            if name.ends_with(".snap.tmp") || name.starts_with("db.tmp") {
                self.remove(&name)?;
            }
        }
        let loaded = self.find(notes)?;
        for path in &loaded.broken {
            let mut aside = path.clone().into_os_string();
            aside.push(".broken");
            let renamed = self.disk.rename(path, Path::new(&aside));
            renamed.map_err(|error| SnapError::Io { path: path.clone(), error })?;
        }
        Ok(loaded)
    }

    /// The same without a change, for tools.
    pub fn find(&self, notes: &[walpb::Snapshot]) -> Result<Loaded, SnapError> {
        let noted = |s: &Snapshot| {
            let (index, term) = position(s);
            notes.iter().any(|n| n.index() == index && n.term() == term)
        };
        let mut loaded = Loaded::default();
        for name in self.snapshots()?.into_iter().rev() {
            let path = self.dir.join(name);
            match read(self.disk.as_ref(), &path) {
                Ok(snapshot) if noted(&snapshot) => {
                    loaded.snapshot = Some(snapshot);
                    break;
                }
                Ok(_) => {}
                Err(SnapError::Corrupt { path, .. }) => loaded.broken.push(path),
                Err(error) => return Err(error),
            }
        }
        Ok(loaded)
    }

    /// Removes the oldest snapshots until `keep` are left; 0 keeps all. Returns what was removed.
    pub fn purge(&self, keep: usize) -> Result<Vec<PathBuf>, SnapError> {
        if keep == 0 {
            return Ok(Vec::new());
        }
        let names = self.snapshots()?;
        let surplus = names.len().saturating_sub(keep);
        names[..surplus].iter().map(|name| self.remove(name)).collect()
    }

    /// Index of the oldest snapshot there is: what the log must still reach back to.
    pub fn oldest_index(&self) -> Result<Option<u64>, SnapError> {
        let names = self.snapshots()?;
        Ok(names.iter().filter_map(|n| parse_name(n)).map(|(_, index)| index).min())
    }

    /// Where a database that the leader sends for this index is kept until it is taken into use.
    pub fn db_path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:016x}.snap.db"))
    }

    /// Removes databases that were sent for an index before this one and are of no use any more.
    pub fn release_dbs(&self, index: u64) -> Result<Vec<PathBuf>, SnapError> {
        let stale = |name: &String| {
            let sent = name.strip_suffix(".snap.db").and_then(hex);
            sent.is_some_and(|sent| sent < index)
        };
        self.list()?.iter().filter(|n| stale(n)).map(|name| self.remove(name)).collect()
    }

    /// Names of the snapshot files, oldest first.
    fn snapshots(&self) -> Result<Vec<String>, SnapError> {
        let mut names = self.list()?;
        names.retain(|n| parse_name(n).is_some());
        Ok(names)
    }

    fn list(&self) -> Result<Vec<String>, SnapError> {
        self.disk.list(&self.dir).map_err(|error| SnapError::Io { path: self.dir.clone(), error })
    }

    fn remove(&self, name: &str) -> Result<PathBuf, SnapError> {
        let path = self.dir.join(name);
        match self.disk.remove(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(SnapError::Io { path, error }),
        }
    }
}

/// The name of a snapshot's file.
pub fn file_name(snapshot: &Snapshot) -> String {
    let (index, term) = position(snapshot);
    format!("{term:016x}-{index:016x}.snap")
}

/// The content of a snapshot's file.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let data = snapshot.encode_to_vec();
    snappb::Snapshot::of(crc32c(&data), data.into()).encode_to_vec()
}

/// Reads one snapshot file.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Snapshot, SnapError> {
    let bytes = disk.open(path, Open::Read).and_then(|file| read_all(file.as_ref()));
    let bytes = bytes.map_err(|error| SnapError::Io { path: path.into(), error })?;
    decode(&bytes).map_err(|what| SnapError::Corrupt { path: path.into(), what })
}

/// A snapshot out of its file's content.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, &'static str> {
    if bytes.is_empty() {
        return Err("the file is empty");
    }
    let envelope = snappb::Snapshot::decode(bytes).map_err(|_| "not a snapshot file")?;
    let data = envelope.data();
    if data.is_empty() || envelope.crc() == 0 {
        return Err("the snapshot is empty");
    }
    if crc32c(data) != envelope.crc() {
        return Err("the checksum is wrong");
    }
    Snapshot::decode(data).map_err(|_| "not a snapshot")
}

/// Index and term.
fn position(snapshot: &Snapshot) -> (u64, u64) {
    snapshot.metadata.as_ref().map_or((0, 0), |m| (m.index(), m.term()))
}

/// Term and index out of a file's name.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some((hex(term)?, hex(index)?))
}

fn hex(digits: &str) -> Option<u64> {
    let whole = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    whole.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests;
