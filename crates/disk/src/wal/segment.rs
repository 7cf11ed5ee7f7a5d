//! Segment files: their names, and the one made ready before it is needed.
//!
//! Not here: what is written into them. No thread is started here either: whoever drives the log calls
//! [`Preparer::prepare`] from wherever it disturbs no commit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Options, WalError};
use crate::fs::{Disk, File, Open};

/// Zeros written at a time, each followed by a flush: a commit that is flushed meanwhile waits for one of
/// them at the most.
const ZEROS: usize = 1 << 20;

/// `<sequence>-<index of the first entry>.wal`, both as 16 hex digits.
pub fn name(seq: u64, index: u64) -> String {
    format!("{seq:016x}-{index:016x}.wal")
}

/// Sequence and first index of a segment's name; `None` for the name of anything else.
pub fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let hex = |s: &str| {
        let digits = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(s, 16).ok()).flatten()
    };
    Some((hex(seq)?, hex(index)?))
}

/// A segment's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// Sequence number.
    pub seq: u64,
    /// Index that the first entry in it has, or may have.
    pub index: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// The segments in a directory, oldest first.
pub fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>, WalError> {
    let names = disk.list(dir).map_err(|error| WalError::Io { path: dir.into(), error })?;
    let parse = |n: String| {
        parse_name(&n).map(|(seq, index)| SegmentName { seq, index, path: dir.join(n) })
    };
    let mut found: Vec<_> = names.into_iter().filter_map(parse).collect();
    found.sort_by_key(|s| s.seq);
    Ok(found)
}

/// The slot for the next segment. Cheap to clone, and callable from another thread than the writer's.
#[derive(Clone)]
pub struct Preparer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    state: Arc<Mutex<State>>,
}

/// Of the two names `0.tmp` and `1.tmp`, which is in use for what.
#[derive(Default)]
struct State {
    ready: Option<(usize, Arc<dyn File>)>,
    making: Option<usize>,
    taken: Option<usize>,
}

impl Preparer {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: Options) -> Self {
        Self { disk, dir, options, state: Arc::default() }
    }

    /// Makes the next segment ready, unless one is, or is being made: allocated, filled with zeros (see
    /// `docs/format.md`) and flushed. Tells whether it did. An error here is not the log's: when no segment
    /// is ready, the writer makes one itself.
    pub fn prepare(&self) -> Result<bool, WalError> {
        let slot = {
            let mut state = self.lock();
            if state.ready.is_some() || state.making.is_some() {
                return Ok(false);
            }
            let slot = usize::from(state.taken == Some(0));
            state.making = Some(slot);
            slot
        };
        let made = self.make(slot, self.options.zero_ahead);
        let mut state = self.lock();
        state.making = None;
        state.ready = Some((slot, made?));
        Ok(true)
    }

    /// True if the next segment is neither ready nor being made.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.ready.is_none() && state.making.is_none()
    }

    /// The next segment and its temporary name: the one that is ready, or else a new one without zeros.
    pub(super) fn take(&self) -> Result<(PathBuf, Arc<dyn File>), WalError> {
        let slot = {
            let mut state = self.lock();
            if let Some((slot, file)) = state.ready.take() {
                state.taken = Some(slot);
                return Ok((self.path(slot), file));
            }
            let slot = usize::from(state.making == Some(0));
            state.taken = Some(slot);
            slot
        };
        Ok((self.path(slot), self.make(slot, false)?))
    }

    /// The segment taken has its own name now.
    pub(super) fn renamed(&self) {
        self.lock().taken = None;
    }

    /// Gives up the segment that is ready.
    pub(super) fn discard(&self) {
        if let Some((slot, _)) = self.lock().ready.take() {
            // Left there it does no harm: whoever opens the log next removes it.
            let _ = self.disk.remove(&self.path(slot));
        }
    }

    fn make(&self, slot: usize, zeros: bool) -> Result<Arc<dyn File>, WalError> {
        let path = self.path(slot);
        if self.disk.exists(&path) {
            self.disk.remove(&path).map_err(|error| WalError::Io { path: path.clone(), error })?;
        }
        create(self.disk.as_ref(), &path, self.options.segment_bytes, zeros)
    }

    fn path(&self, slot: usize) -> PathBuf {
        self.dir.join(format!("{slot}.tmp"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is three plain values, right after every step: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new file of `size` bytes, locked; with `zeros` each block of it has been written once.
pub(super) fn create(
    disk: &dyn Disk,
    path: &Path,
    size: u64,
    zeros: bool,
) -> Result<Arc<dyn File>, WalError> {
    let make = || -> io::Result<Option<Arc<dyn File>>> {
        let file = disk.open(path, Open::Create)?;
        if !file.try_lock()? {
            return Ok(None);
        }
        file.allocate(size)?;
        if zeros {
            zero(file.as_ref(), 0, size, true)?;
        }
        Ok(Some(file))
    };
    match make() {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(WalError::Locked(path.into())),
        Err(error) => {
            // A half-made file keeps room that somebody may need more.
            let _ = disk.remove(path);
            Err(WalError::Io { path: path.into(), error })
        }
    }
}

/// Writes zeros over a range, with a flush after each piece if `flush` says so.
pub(super) fn zero(file: &dyn File, from: u64, to: u64, flush: bool) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let n = zeros.len().min((to - at) as usize);
        file.write_at(&zeros[..n], at)?;
        if flush {
            file.sync()?;
        }
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(name(1, 0x2f), "0000000000000001-000000000000002f.wal");
        assert_eq!(parse_name(&name(u64::MAX, 7)), Some((u64::MAX, 7)));
        for other in ["0.tmp", "a-b.wal", "0000000000000001-000000000000002f.wal.broken"] {
            assert_eq!(parse_name(other), None);
        }
        assert_eq!(parse_name("1-2.wal"), None);
        assert_eq!(parse_name("+000000000000001-0000000000000001.wal"), None);
    }
}
