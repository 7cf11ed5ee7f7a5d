//! The one door to storage: a small file system trait that every byte on disk goes through.
//!
//! Here: the traits `Disk`, `File` and `Mapping`, and below them the real file system (`real`) and the double
//! in memory that crashes (`mem`). Not here: anything that knows a file format (`wal`, `snap`, `backend`).
//!
//! The traits hold what the formats need and no more, so that a simulated world can lose, tear, reorder
//! and refuse each call.

use std::io;
use std::path::Path;
use std::sync::Arc;

mod map;
pub mod mem;
pub mod real;

pub(crate) use map::prefetch;
pub use mem::MemDisk;
pub use real::RealDisk;

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing, mode 0600. An error if it is there already.
    Create,
}

/// A file system: directories and names. Every call may fail, and none of them may panic.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Names of the entries of a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// True if the path names a file or a directory.
    fn exists(&self, path: &Path) -> bool;
    /// Makes a directory and its parents, mode 0700.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames, replacing what was there. Durable after [`Disk::sync_dir`] of the directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`] of its directory.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it. Durable after [`Disk::sync_dir`] of its parent.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Calls take `&self`: positions are explicit, and one writer is the caller's promise.
pub trait File: Send + Sync {
    /// Reads at most `buf.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`, growing the file where needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable, with the length needed to read it back (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True if the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves room up to `len` bytes and makes the file that long, so that later writes inside it
    /// need no new blocks. Fails with `StorageFull` where the room is not there.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Takes the file's exclusive lock (flock) without waiting; `false` if another process holds it.
    /// It is given up when the last handle goes.
    fn try_lock(&self) -> io::Result<bool>;
    /// A read-only view of the first `len` bytes. Bytes written later inside it may or may not be seen;
    /// the caller reads only what was written before the call. The file must not be cut below what a
    /// live mapping's users still read.
    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>>;
    /// True if views show what is written after they were made, so that one can serve for long.
    fn views_are_live(&self) -> bool {
        false
    }
    /// As [`File::map`], for a file that will grow: of a live view, the part past the end may not be read
    /// before the file has reached it. Other views end with the file.
    fn map_ahead(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        self.map(len.min(self.len()?))
    }
}

/// A read-only view of a file's beginning: a memory mapping of a real file, plain memory in the double.
pub trait Mapping: Send + Sync {
    /// The bytes of the view.
    fn bytes(&self) -> &[u8];
}

/// The whole file, read in one go.
pub fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        match file.read_at(&mut bytes[at..], at as u64)? {
            0 => break,
            n => at += n,
        }
    }
    // Cut by somebody else between the two calls: what was read is what there is.
    bytes.truncate(at);
    Ok(bytes)
}
