//! Finding and opening the files that commands work on. Not here: what is read from them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use etch_cli::{Failure, Matches, Value, go};
use etch_disk::backend::{self, Bolt, Snapshot};
use etch_disk::fs::{Disk, File, Open, RealDisk};

use crate::exit;

/// How often a lock that another process holds is tried again.
const LOCK_PACE: Duration = Duration::from_millis(50);
/// After how long a wait without an end is told.
const LOCK_NOTE: Duration = Duration::from_secs(1);

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
    let mut wait = Wait::new(path, matches);
    loop {
        match Bolt::open(disk(), path, backend::Options::default()) {
            Ok(bolt) => return Ok(bolt),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && wait.goes_on() => {}
            Err(e) => return Err(Failure::new(exit::ERROR, e.to_string())),
        }
    }
}

fn lock(file: &dyn File, path: &Path, matches: &Matches) -> Result<(), Failure> {
    let mut wait = Wait::new(path, matches);
    loop {
        match file.try_lock() {
            Ok(true) => return Ok(()),
            Ok(false) if wait.goes_on() => {}
            Ok(false) => {
                let why = format!("{}: the database is in use by another process", path.display());
                return Err(Failure::new(exit::ERROR, why));
            }
            Err(e) => return Err(Failure::new(exit::ERROR, go::io_error("flock", path, &e))),
        }
    }
}

/// A wait for a lock that a server holds. `etchutl` has `--timeout` for it; the old commands of `etcdctl` have
/// none, wait as long as it takes, and say so.
struct Wait<'p> {
    path: &'p Path,
    since: Instant,
    limit: Option<Duration>,
    /// Whether it is to be said, and was not yet.
    is_untold: bool,
}

impl<'p> Wait<'p> {
    fn new(path: &'p Path, matches: &Matches) -> Self {
        let timeout = matches.flags.iter().find(|flag| flag.name == "timeout");
        let limit = timeout.and_then(|flag| match flag.value {
            Value::Duration(ns) => u64::try_from(ns).ok().filter(|ns| *ns > 0),
            _ => None,
        });
        let limit = limit.map(Duration::from_nanos);
        Self { path, since: Instant::now(), limit, is_untold: timeout.is_none() }
    }

    /// Waits a little, if there is time left.
    fn goes_on(&mut self) -> bool {
        let waited = self.since.elapsed();
        if self.limit.is_some_and(|limit| waited >= limit) {
            return false;
        }
        if self.is_untold && waited >= LOCK_NOTE {
            let path = go::quote(self.path.to_string_lossy().as_ref());
            eprintln!("waiting for etcd to close and release its lock on {path}");
            self.is_untold = false;
        }
        thread::sleep(LOCK_PACE);
        true
    }
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
