//! A disk in memory that keeps, at each flush, every machine that a power failure at this moment would leave.
//! Not here: what is done with them.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use etch_disk::fs::mem::{Crash, MemDisk};
use etch_disk::fs::{Disk, File, Mapping, Open};

/// How many units of what is not flushed are tried in every combination, between two operations.
const ALL_SUBSETS: usize = 4;
/// Of more units than that: crashes by chance beside the plain ones.
const SEEDS: u64 = 4;

/// The disk that a member runs on, watched.
#[derive(Clone)]
pub struct Watched {
    pub disk: MemDisk,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Default)]
struct Watch {
    ways: Option<Ways>,
    left: Vec<MemDisk>,
}

impl Watched {
    pub fn new(disk: MemDisk) -> Self {
        Self { disk, watch: Arc::default() }
    }

    /// Begins to keep what crashes would leave.
    pub fn start(&self, ways: Ways) {
        self.lock().ways = Some(ways);
    }

    pub fn ways(&self) -> Option<Ways> {
        self.lock().ways
    }

    /// What crashes since the last call would have left.
    pub fn crashes(&self) -> Vec<MemDisk> {
        std::mem::take(&mut self.lock().left)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails now, in every way that is tried.
    pub fn crash(&self) {
        let mut watch = self.lock();
        if let Some(ways) = watch.ways {
            let ways = ways.of(self.disk.unsynced());
            watch.left.extend(ways.into_iter().map(|how| self.disk.crash(how)));
        }
    }
}

/// In how many ways the power fails at a flush.
#[derive(Clone, Copy)]
pub enum Ways {
    /// All subsets of a few units; of many, each one alone, all but each one, and some by chance.
    Many,
    /// All, nothing, and some by chance.
    Few,
}

impl Ways {
    /// The crashes that are tried where `units` may each be kept or lost.
    fn of(self, units: usize) -> Vec<Crash> {
        if units <= 1 || (units <= ALL_SUBSETS && matches!(self, Ways::Many)) {
            return (0..1 << units).map(Crash::Subset).collect();
        }
        let mut ways = vec![Crash::LoseAll, Crash::KeepAll];
        match self {
            Ways::Few => ways.extend((0..2).map(Crash::Seed)),
            Ways::Many => {
                ways.extend((0..units.min(63)).map(|unit| Crash::Subset(1 << unit)));
                ways.extend((0..units.min(63)).map(|unit| Crash::Subset(!(1 << unit))));
                ways.extend((0..SEEDS).map(Crash::Seed));
            }
        }
        ways
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(WatchedFile { disk: self.clone(), file }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.crash();
        self.disk.sync_dir(dir)
    }
}

struct WatchedFile {
    disk: Watched,
    file: Arc<dyn File>,
}

impl File for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.crash();
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        self.file.map(len)
    }
}
