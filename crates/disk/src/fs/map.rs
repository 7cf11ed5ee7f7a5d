//! The memory mapping of a real file, and what is asked of the processor about it: the one place of this crate that is
//! not safe Rust.
//!
//! Not here: what is read through it. A reader checks every offset against the view's length.

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

use super::Mapping;

/// A read-only mapping of a file's beginning.
pub(super) struct RealMapping(Option<Mmap>);

impl RealMapping {
    /// Maps the first `len` bytes; an error where the file is shorter.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        if len > file.metadata()?.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a view past the end of the file",
            ));
        }
        Self::ahead(file, len)
    }

    /// Maps `len` bytes of a file that may be shorter for now.
    pub(super) fn ahead(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the mapping is read-only and private to `Mmap`, which unmaps it once. Two things could
        // still break a `&[u8]` into it. (1) A read past the end of the file faults: `new` checks the length,
        // `File::map_ahead` binds its callers to read only what the file has reached, the file is held by
        // an exclusive flock, and `File::map` binds its callers never to cut what a live view reads. (2) Bytes change under a shared reference: the
        // formats are copy on write, a page that a reader can reach is not written again until that
        // reader has let go, and `File::map` binds callers to read only what was written before it.
        #[allow(unsafe_code)]
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(Self(Some(map)))
    }
}

impl Mapping for RealMapping {
    fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Bytes of a page that are fetched ahead: one of the usual size.
const AHEAD: usize = 4096;
/// Bytes that processors fetch at once.
const LINE: usize = 64;

/// Asks the processor to fetch the first bytes of a page that is about to be read into its caches. It goes on meanwhile,
/// where a read would wait for memory line after line; on processors that we know no such request for, this does nothing.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in bytes[..bytes.len().min(AHEAD)].chunks(LINE) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint; whatever the address, nothing is read and nothing faults.
            #[allow(unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}
