//! Finding and opening the files that commands work on. Not here: what is read from them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use etch_cli::{Failure, Matches, go};
use etch_disk::backend::{self, Backend, Batch, Bolt, Committed, Shrunk, Snapshot};
use etch_disk::fs::{Disk, File, Open, RealDisk};

use crate::exit;

/// How often a lock that another process holds is tried again.
const LOCK_PACE: Duration = Duration::from_millis(50);

/// The machine's disk.
pub fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk::new())
}

/// `DATA-DIR/member/snap/db`.
pub fn db_path(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("snap").join("db")
}

/// `DATA-DIR/member/wal`.
pub fn wal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("wal")
}

/// The file is there, or etcd's word for it.
pub fn must_exist(path: &Path) -> Result<(), Failure> {
    std::fs::metadata(path)
        .map(drop)
        .map_err(|e| Failure::new(exit::ERROR, go::io_error("stat", path, &e)))
}

/// A database that is read and not changed, as its newest root has it. While a server holds the file this waits,
/// for at most `--timeout`. The lock lasts as long as the file that comes with it.
pub fn open_to_read(path: &Path, matches: &Matches) -> Result<(Snapshot, Arc<dyn File>), Failure> {
    must_exist(path)?;
    let disk = disk();
    let file = disk
        .open(path, Open::Read)
        .map_err(|e| Failure::new(exit::ERROR, go::io_error("open", path, &e)))?;
    lock(file.as_ref(), path, matches)?;
    let snapshot = backend::open_read_only(disk.as_ref(), path).map_err(|e| invalid(&e))?;
    Ok((snapshot, file))
}

/// A database that is changed.
pub fn open_to_write(path: &Path, matches: &Matches) -> Result<Arc<Bolt>, Failure> {
    must_exist(path)?;
    let until = deadline(matches);
    loop {
        match Bolt::open(disk(), path, backend::Options::default()) {
            Ok(bolt) => return Ok(bolt),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && is_before(until) => {
                thread::sleep(LOCK_PACE);
            }
            Err(e) => return Err(Failure::new(exit::ERROR, e.to_string())),
        }
    }
}

fn lock(file: &dyn File, path: &Path, matches: &Matches) -> Result<(), Failure> {
    let until = deadline(matches);
    loop {
        match file.try_lock() {
            Ok(true) => return Ok(()),
            Ok(false) if is_before(until) => thread::sleep(LOCK_PACE),
            Ok(false) => {
                let why = format!("{}: the database is in use by another process", path.display());
                return Err(Failure::new(exit::ERROR, why));
            }
            Err(e) => return Err(Failure::new(exit::ERROR, go::io_error("flock", path, &e))),
        }
    }
}

/// When waiting ends; never, where the flag is 0.
fn deadline(matches: &Matches) -> Option<Instant> {
    let wait = u64::try_from(matches.duration_ns("timeout")).unwrap_or(0);
    (wait > 0).then(|| Instant::now() + Duration::from_nanos(wait))
}

fn is_before(until: Option<Instant>) -> bool {
    until.is_none_or(|until| Instant::now() < until)
}

/// What is no database, or a damaged one. etcd's own word comes first, for scripts.
pub fn invalid(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Failure::new(exit::ERROR, format!("invalid database: {error}"))
        }
        _ => Failure::new(exit::ERROR, error.to_string()),
    }
}

/// A root of a database as a backend of the store, which can be read and nothing else.
pub struct ReadOnly(pub Snapshot);

impl Backend for ReadOnly {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn commit(&self, _: &mut Batch) -> io::Result<Committed> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading only"))
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn size_in_use(&self) -> u64 {
        self.0.size_in_use()
    }

    fn shrink(&self, _: usize) -> io::Result<Shrunk> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading only"))
    }
}
