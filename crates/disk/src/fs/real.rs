//! The real file system: files of the operating system, locked by `flock`, made durable by `fdatasync`.
//!
//! Not here: retries. An error of a write or a flush goes to the caller as it is, who must not try again.

use std::fs::{DirBuilder, File as StdFile, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::map::RealMapping;
use super::{Disk, File, Mapping, Open};

/// The file system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk {
    flush: bool,
}

impl RealDisk {
    /// A disk whose flushes reach the device.
    pub fn new() -> Self {
        Self { flush: true }
    }

    /// A disk that leaves flushing to the kernel: a crash of the machine may lose or tear anything.
    pub fn without_flush() -> Self {
        Self { flush: false }
    }
}

impl Default for RealDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(how != Open::Read)
            .create_new(how == Open::Create)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile { file, flush: self.flush }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is no UTF-8 is none of ours; shown as well as it can be, it is passed over.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = StdFile::open(dir)?;
        if self.flush { dir.sync_all() } else { Ok(()) }
    }
}

struct RealFile {
    file: StdFile,
    flush: bool,
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.flush { self.file.sync_data() } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // A file system without the call: the file still gets its length, the blocks come with the writes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                if self.len()? < len {
                    self.file.set_len(len)?;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(RealMapping::new(&self.file, len)?))
    }

    fn views_are_live(&self) -> bool {
        true
    }

    fn map_ahead(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(RealMapping::ahead(&self.file, len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A directory of its own for one test, gone at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("etch-real-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            RealDisk::new().create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_and_directories_are_private() {
        let dir = Scratch::new("modes");
        let disk = RealDisk::new();
        disk.create_dir_all(&dir.0.join("a/b")).unwrap();
        disk.open(&dir.0.join("a/f"), Open::Create).unwrap();
        let mode = |p: &str| std::fs::metadata(dir.0.join(p)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/b"), mode("a/f")), (0o700, 0o700, 0o600));
        let again = disk.open(&dir.0.join("a/f"), Open::Create).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.list(&dir.0.join("a")).unwrap(), ["b", "f"]);
    }

    #[test]
    fn bytes_lengths_and_views() {
        let dir = Scratch::new("bytes");
        let disk = RealDisk::new();
        let file = disk.open(&dir.0.join("f"), Open::Create).unwrap();
        file.allocate(10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        file.write_at(b"abc", 9_998).unwrap();
        assert_eq!(file.len().unwrap(), 10_001);
        file.sync().unwrap();
        let mut buf = [1; 8];
        assert_eq!(file.read_at(&mut buf, 9_996).unwrap(), 5);
        assert_eq!(&buf[..5], b"\0\0abc");
        let view = file.map(10_001).unwrap();
        assert_eq!(&view.bytes()[9_998..], b"abc");
        assert!(file.map(10_002).is_err(), "a view past the end would fault when read");
        file.set_len(4).unwrap();
        assert_eq!(file.read_at(&mut buf, 4).unwrap(), 0);
    }

    #[test]
    fn one_holder_of_the_lock() {
        let dir = Scratch::new("lock");
        let disk = RealDisk::new();
        let path = dir.0.join("f");
        let first = disk.open(&path, Open::Create).unwrap();
        let second = disk.open(&path, Open::Write).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }
}
