//! A store on a real disk that the benchmarks fill and ask. Not here: benchmarks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etch_api::internal::{RequestKind, encode_entry};
use etch_api::pb::etcdserverpb as pb;
use etch_disk::backend::{Backend, Bolt, Options};
use etch_disk::fs::{Disk, RealDisk};
use etch_state::lease::LessorConfig;
use etch_state::{State, StateConfig};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};

/// A directory of its own on the disk that holds the build; gone when it is dropped.
pub struct Dir(PathBuf);

impl Dir {
    /// A new one.
    pub fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("micro-{}-{number}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).expect("the build's directory can be written");
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A B+tree in it whose commits are not flushed: what is measured is the processor's part.
    pub fn bolt(&self) -> Arc<Bolt> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::without_flush());
        Bolt::open(disk, &self.0.join("db"), Options::default()).expect("a new file opens")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The key of a number.
pub fn key(number: u64) -> Vec<u8> {
    format!("/registry/pods/{number:010}").into_bytes()
}

/// Processor time of this process, its own and the kernel's for it: what other processes do hardly changes it.
pub fn used() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("time goes forward")
}

/// Numbers that look random (splitmix64), the same in each run.
pub struct Numbers(pub u64);

impl Numbers {
    /// The next, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The replicated machine, without raft and a log.
pub struct Machine {
    /// What is measured.
    pub state: State,
    backend: Arc<Bolt>,
    _dir: Dir,
}

impl Machine {
    /// An empty one.
    pub fn new() -> Self {
        let dir = Dir::new();
        let backend = dir.bolt();
        let leases = LessorConfig { min_ttl: 1, ..LessorConfig::default() };
        let config = StateConfig { quota_bytes: 0, leases, persist_checkpoints: false };
        let state = State::open(Arc::clone(&backend) as Arc<dyn Backend>, &config);
        Self { state: state.expect("an empty file opens"), backend, _dir: dir }
    }

    /// One with `keys` keys whose values are `value` bytes long, committed.
    pub fn filled(keys: u64, value: usize) -> Self {
        let mut machine = Self::new();
        let value = vec![b'x'; value];
        for first in (0..keys).step_by(1000) {
            let puts = (first..keys.min(first + 1000)).map(|n| put(key(n), &value)).collect();
            machine.apply(&machine.entries(puts));
            machine.commit_if_large();
        }
        machine.commit();
        machine
    }

    /// Log entries of requests, to be applied next.
    pub fn entries(&self, puts: Vec<pb::PutRequest>) -> Vec<(u64, Bytes)> {
        let next = self.state.index() + 1;
        let of = |(at, put): (u64, pb::PutRequest)| {
            (at, encode_entry(at, RequestKind::Put, &put.encode_to_vec()))
        };
        (next..).zip(puts).map(of).collect()
    }

    /// Applies entries as one batch.
    pub fn apply(&mut self, entries: &[(u64, Bytes)]) -> usize {
        let mut done = Vec::with_capacity(entries.len());
        self.state.apply(entries.iter().map(|(at, data)| (*at, 1, data)), &mut done);
        assert!(done.iter().all(|done| done.result.is_ok()));
        done.len()
    }

    /// Writes what was applied to the file.
    pub fn commit(&mut self) {
        let (mut batch, revision) = self.state.take_commit();
        self.backend.commit(&mut batch).expect("the disk has room");
        self.state.committed(revision);
    }

    /// Commits once a lot waits, as a server does.
    pub fn commit_if_large(&mut self) {
        if self.state.pending_changes() >= 10_000 {
            self.commit();
        }
    }
}

/// A put.
pub fn put(key: Vec<u8>, value: &[u8]) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: Bytes::copy_from_slice(value), ..Default::default() }
}
