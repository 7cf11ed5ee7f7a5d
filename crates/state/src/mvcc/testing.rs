//! What the tests of the store and of transactions share: a store in memory, leases, numbers by chance. Not here:
//! tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etch_disk::backend::{Backend, Bolt, Options};
use etch_disk::fs::{Disk, MemDisk};

use super::{LeaseHook, Step, Store, Writer, commit};

/// Leases that only know who holds what.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub granted: BTreeSet<i64>,
    pub keys: BTreeMap<Vec<u8>, i64>,
}

impl LeaseHook for Leases {
    fn exists(&self, lease: i64) -> bool {
        self.granted.contains(&lease)
    }
    fn lease_of(&self, key: &[u8]) -> i64 {
        self.keys.get(key).copied().unwrap_or(0)
    }
    fn attach(&mut self, lease: i64, key: &Bytes) {
        assert_eq!(self.keys.insert(key.to_vec(), lease), None);
    }
    fn detach(&mut self, lease: i64, key: &[u8]) {
        assert_eq!(self.keys.remove(key), Some(lease));
    }
}

/// A small generator (xorshift): the tests bring their seeds.
pub(crate) struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A store on a disk in memory.
pub(crate) struct World {
    pub disk: Arc<MemDisk>,
    pub store: Arc<Store>,
    pub writer: Writer,
    pub leases: Leases,
}

fn open_bolt(disk: &Arc<MemDisk>) -> Arc<dyn Backend> {
    let disk: Arc<dyn Disk> = disk.clone();
    Bolt::open(disk, Path::new("/db"), Options::default()).expect("a file in memory opens")
}

impl World {
    pub fn new() -> Self {
        let disk = Arc::new(MemDisk::new());
        let (store, writer, loaded) = Store::open(open_bolt(&disk)).expect("an empty store opens");
        assert!(loaded.attachments.is_empty() && !writer.is_compacting());
        Self { disk, store, writer, leases: Leases::default() }
    }

    pub fn commit(&mut self) {
        let mut pending = self.writer.take_pending();
        commit(&self.store, &mut pending).expect("a commit in memory succeeds");
    }

    /// Does the compactions that are under way, `limit` keys at a time, and commits where one waits for that.
    pub fn compact_all(&mut self, limit: usize) {
        loop {
            match self.writer.compact_step(limit).expect("memory can be read") {
                Step::Idle => return,
                Step::Waits => self.commit(),
                Step::Again | Step::Done(_) => {}
            }
        }
    }

    /// Stops as if the process were killed: what was not committed is gone.
    pub fn reopen(&mut self) -> io::Result<Vec<(Bytes, i64)>> {
        // The lock on the file goes with the last handle.
        let (store, writer, _) = Store::open(open_bolt(&Arc::new(MemDisk::new())))?;
        (self.store, self.writer) = (store, writer);
        let (store, writer, loaded) = Store::open(open_bolt(&self.disk))?;
        (self.store, self.writer) = (store, writer);
        Ok(loaded.attachments)
    }
}
