//! The B+tree beside LMDB as a table for `docs/benchmarks.md`: processor time and bytes handed to the kernel, by
//! the same work as criterion's groups named `backend`. Here without criterion, which measures neither.

use std::time::Duration;

use etch_disk::backend::{Backend, Bucket};

use crate::backend::{COMMIT, Lmdb, ROWS, VALUE, append, delete, revision, scan};
use crate::machine::{Dir, Numbers, used};

/// Each work is done so often by both in turns, and the lowest processor time counts: whatever else the machine
/// does only ever adds to it.
const ROUNDS: usize = 7;
const READS: u64 = 1_000_000;
const SCANS: u64 = 20;

/// What a work took.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    written: u64,
}

/// The works, and how many rows each is about.
const WORKS: [(&str, u64); 4] = [
    ("append, 1,000 rows a commit", ROWS),
    ("point read", READS),
    ("scan", ROWS * SCANS),
    ("delete every second row, 1,000 a commit", ROWS / 2),
];

/// The table.
pub fn table() {
    let mut lowest = [[None; 2]; WORKS.len()];
    for _ in 0..ROUNDS {
        for (which, costs) in [etch(), lmdb()].into_iter().enumerate() {
            for (best, cost) in lowest.iter_mut().zip(costs) {
                let best: &mut Option<Cost> = &mut best[which];
                if best.is_none_or(|best| cost.cpu < best.cpu) {
                    *best = Some(cost);
                }
            }
        }
    }
    println!(
        "| work, rows of 17 + {} B | us a row etch | LMDB | x | bytes a row etch | LMDB | x |",
        VALUE.len()
    );
    println!("|---|---|---|---|---|---|---|");
    for ((name, rows), best) in WORKS.into_iter().zip(lowest) {
        let [Some(etch), Some(lmdb)] = best else { continue };
        let time = |cost: Cost| cost.cpu.as_secs_f64() * 1e6 / rows as f64;
        let bytes = |cost: Cost| cost.written as f64 / rows as f64;
        print!(
            "| {name} | {:.3} | {:.3} | {:.2} |",
            time(etch),
            time(lmdb),
            time(etch) / time(lmdb)
        );
        if lmdb.written < rows {
            println!(" - | - | - |");
        } else {
            println!(
                " {:.0} | {:.0} | {:.2} |",
                bytes(etch),
                bytes(lmdb),
                bytes(etch) / bytes(lmdb)
            );
        }
    }
}

fn etch() -> [Cost; WORKS.len()] {
    let dir = Dir::new();
    let bolt = dir.bolt();
    let appended = cost(|| commits().for_each(|from| append(&bolt, from)));
    let read = cost(|| {
        let (snapshot, mut numbers) = (bolt.snapshot(), Numbers(4));
        for _ in 0..READS {
            let key = revision(numbers.below(ROWS));
            let found = snapshot.get(Bucket::Key, &key).expect("the file is whole");
            assert_eq!(found.map(<[u8]>::len), Some(VALUE.len()));
        }
    });
    let scanned = cost(|| (0..SCANS).for_each(|_| scan(&bolt)));
    let deleted = cost(|| halves().for_each(|from| delete(&bolt, every_second(from))));
    [appended, read, scanned, deleted]
}

fn lmdb() -> [Cost; WORKS.len()] {
    let dir = Dir::new();
    let lmdb = Lmdb::open(&dir);
    let appended = cost(|| commits().for_each(|from| lmdb.append(from)));
    let read = cost(|| lmdb.reads((0..READS).scan(Numbers(4), |n, _| Some(n.below(ROWS)))));
    let scanned = cost(|| (0..SCANS).for_each(|_| lmdb.scan()));
    let deleted = cost(|| halves().for_each(|from| lmdb.delete(every_second(from))));
    [appended, read, scanned, deleted]
}

fn commits() -> impl Iterator<Item = u64> {
    (0..ROWS).step_by(COMMIT as usize)
}

fn halves() -> impl Iterator<Item = u64> {
    (0..ROWS).step_by(2 * COMMIT as usize)
}

fn every_second(from: u64) -> impl Iterator<Item = u64> {
    (from..from + 2 * COMMIT).step_by(2)
}

fn cost(work: impl FnOnce()) -> Cost {
    let (cpu, written) = (used(), handed_over());
    work();
    Cost { cpu: used() - cpu, written: handed_over() - written }
}

/// Bytes that this process has handed to the kernel in calls of `write` and its like.
fn handed_over() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|n| n.parse().ok()).expect("Linux counts what a process writes")
}
