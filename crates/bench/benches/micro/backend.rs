//! The B+tree beside LMDB (through `heed`) on the same work, neither of them flushing: commits of appended
//! revisions, point reads, scans, and the deletes of a compaction.

use criterion::{BatchSize, Criterion, Throughput};
use etch_disk::backend::{Backend, Batch, Bolt, Bucket};
use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use std::sync::Arc;

use crate::machine::{Dir, Numbers};

/// Rows of each work.
pub const ROWS: u64 = 100_000;
/// Rows of a commit.
pub const COMMIT: u64 = 1000;
/// What each row holds.
pub const VALUE: [u8; 300] = [b'x'; 300];

/// A key of the form that revisions have.
pub fn revision(main: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

/// LMDB with the one table.
pub struct Lmdb {
    env: Env,
    rows: Database<Raw, Raw>,
}

impl Lmdb {
    /// An empty one.
    pub fn open(dir: &Dir) -> Self {
        let mut options = EnvOpenOptions::new();
        options.map_size(4 << 30);
        // SAFETY: the directory is new and nobody else's, and nothing is to survive a crash.
        #[expect(unsafe_code, reason = "LMDB maps a file; heed leaves the promise to its caller")]
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
            options.open(dir.path()).expect("a new environment opens")
        };
        let mut txn = env.write_txn().expect("nobody else writes");
        let rows = env.create_database(&mut txn, None).expect("the one table is there");
        txn.commit().expect("the disk has room");
        Self { env, rows }
    }

    /// One commit of rows at the end.
    pub fn append(&self, from: u64) {
        let mut txn = self.env.write_txn().expect("nobody else writes");
        for main in from..from + COMMIT {
            self.rows.put(&mut txn, &revision(main), &VALUE).expect("the map has room");
        }
        txn.commit().expect("the disk has room");
    }

    /// One commit that deletes these.
    pub fn delete(&self, mains: impl Iterator<Item = u64>) {
        let mut txn = self.env.write_txn().expect("nobody else writes");
        for main in mains {
            self.rows.delete(&mut txn, &revision(main)).expect("the map has room");
        }
        txn.commit().expect("the disk has room");
    }

    /// Reads these one by one.
    pub fn reads(&self, mains: impl Iterator<Item = u64>) {
        let txn = self.env.read_txn().expect("there is room for a reader");
        for main in mains {
            let found = self.rows.get(&txn, &revision(main)).expect("the file is whole");
            assert_eq!(found.map(<[u8]>::len), Some(VALUE.len()));
        }
    }

    /// Reads all from the first to the last.
    pub fn scan(&self) {
        let txn = self.env.read_txn().expect("there is room for a reader");
        let rows = self.rows.iter(&txn).expect("the file is whole");
        let bytes: usize = rows.map(|row| row.expect("the file is whole").1.len()).sum();
        assert_eq!(bytes as u64, ROWS * VALUE.len() as u64);
    }
}

/// One commit of rows at the end.
pub fn append(bolt: &Bolt, from: u64) {
    let (mut batch, value) = (Batch::new(), bytes::Bytes::from_static(&VALUE));
    for main in from..from + COMMIT {
        batch.put(Bucket::Key, revision(main), value.clone());
    }
    bolt.commit(&mut batch).expect("the disk has room");
}

/// One commit that deletes these.
pub fn delete(bolt: &Bolt, mains: impl Iterator<Item = u64>) {
    let mut batch = Batch::new();
    for main in mains {
        batch.delete(Bucket::Key, revision(main));
    }
    bolt.commit(&mut batch).expect("the disk has room");
}

fn filled_bolt() -> (Dir, Arc<Bolt>) {
    let dir = Dir::new();
    let bolt = dir.bolt();
    (0..ROWS).step_by(COMMIT as usize).for_each(|from| append(&bolt, from));
    (dir, bolt)
}

fn filled_lmdb() -> (Dir, Lmdb) {
    let dir = Dir::new();
    let lmdb = Lmdb::open(&dir);
    (0..ROWS).step_by(COMMIT as usize).for_each(|from| lmdb.append(from));
    (dir, lmdb)
}

/// All of them.
pub fn all(c: &mut Criterion) {
    appends(c);
    let ((_b, bolt), (_l, lmdb)) = (filled_bolt(), filled_lmdb());
    reads(c, &bolt, &lmdb);
    halves(c);
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("backend: 100 commits of 1000 appended rows");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    group.bench_function("etch", |b| {
        b.iter_batched(|| (), |()| filled_bolt(), BatchSize::PerIteration);
    });
    group.bench_function("lmdb", |b| {
        b.iter_batched(|| (), |()| filled_lmdb(), BatchSize::PerIteration);
    });
    group.finish();
}

fn reads(c: &mut Criterion, bolt: &Bolt, lmdb: &Lmdb) {
    let mut numbers = Numbers(4);
    let mut group = c.benchmark_group("backend: point read");
    group.throughput(Throughput::Elements(1));
    group.bench_function("etch", |b| {
        let snapshot = bolt.snapshot();
        b.iter(|| {
            let key = revision(numbers.below(ROWS));
            snapshot.get(Bucket::Key, &key).expect("the file is whole").expect("it is there").len()
        });
    });
    group.bench_function("lmdb", |b| {
        let txn = lmdb.env.read_txn().expect("there is room for a reader");
        b.iter(|| {
            let key = revision(numbers.below(ROWS));
            lmdb.rows.get(&txn, &key).expect("the file is whole").expect("it is there").len()
        });
    });
    group.finish();
    let mut group = c.benchmark_group("backend: scan of 100,000 rows");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("etch", |b| b.iter(|| scan(bolt)));
    group.bench_function("lmdb", |b| {
        b.iter(|| lmdb.scan());
    });
    group.finish();
}

/// Reads all from the first to the last.
pub fn scan(bolt: &Bolt) {
    let (snapshot, mut bytes) = (bolt.snapshot(), 0);
    let mut cursor = snapshot.cursor(Bucket::Key).expect("the file is whole");
    let mut row = cursor.first().expect("the file is whole");
    while let Some(found) = row {
        bytes += found.1.len();
        row = cursor.next().expect("the file is whole");
    }
    assert_eq!(bytes as u64, ROWS * VALUE.len() as u64);
}

/// Every second row goes, 1000 a commit, as a compaction of keys that were written twice does.
fn halves(c: &mut Criterion) {
    let mut group = c.benchmark_group("backend: every second row deleted");
    group.throughput(Throughput::Elements(ROWS / 2)).sample_size(10);
    let starts = || (0..ROWS).step_by(2 * COMMIT as usize);
    let every_second = |from: u64| (from..from + 2 * COMMIT).step_by(2);
    group.bench_function("etch", |b| {
        b.iter_batched(
            filled_bolt,
            |(dir, bolt)| {
                starts().for_each(|from| delete(&bolt, every_second(from)));
                (dir, bolt)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("lmdb", |b| {
        b.iter_batched(
            filled_lmdb,
            |(dir, lmdb)| {
                starts().for_each(|from| lmdb.delete(every_second(from)));
                (dir, lmdb)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}
