//! Segment files: their names, and new ones. Not here: what is written into them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PAGE, WalError};
use crate::fs::{Disk, File, Open};

/// What the next segment is called until its head is durable. etcd uses this name too.
pub(super) const NEXT: &str = "0.tmp";

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

/// A new file, locked, with room for `size` bytes; what bore its name is removed.
pub(super) fn create(disk: &dyn Disk, path: &Path, size: u64) -> Result<Arc<dyn File>, WalError> {
    let make = || -> io::Result<Option<Arc<dyn File>>> {
        if disk.exists(path) {
            disk.remove(path)?;
        }
        let file = disk.open(path, Open::Create)?;
        if !file.try_lock()? {
            return Ok(None);
        }
        file.allocate(size)?;
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

/// Writes zeros over a range, by pages and without a flush.
pub(super) fn zero(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let n = (PAGE - at as usize % PAGE).min((to - at) as usize);
        file.write_at(&[0; PAGE][..n], at)?;
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
