//! Small and exhaustive: one member over a disk that crashes, in every way that is small enough to try them all.
//! Most faults of storage need no more (three operations, one crash). Not here: clusters, clocks and chance.

#[cfg(feature = "mutants")]
mod bugs;
mod check;
mod crash;
mod model;
mod rows;
mod sequences;
mod tail;
mod world;

use std::io::Write as _;
use std::time::Instant;

use check::Tally;
use etch_disk::backend::Backend;
use etch_disk::wal;
use sequences::Op;
use world::{World, wal_dir};

/// Runs a test, and says what was done, also where a passing test's output is kept back.
fn report(what: &str, run: impl FnOnce(&mut Tally) -> Result<String, String>) {
    let (began, mut tally) = (Instant::now(), Tally::default());
    let told = run(&mut tally).unwrap_or_else(|e| panic!("{what}: {e}"));
    let crashes = match tally {
        Tally { cases: 0, .. } => String::new(),
        Tally { cases, deep } => {
            format!(": {cases} crashes, all recovered, {deep} of them gone on from")
        }
    };
    let took = began.elapsed();
    let _ = writeln!(std::io::stderr(), "small: {what}: {told}{crashes}, in {took:.1?}");
}

#[test]
fn a_tail_cut_at_each_byte() {
    report("the log's tail cut at each byte", |tally| {
        let bytes = (0..tail::WORKLOADS).map(|n| tail::cuts(n, tally)).sum::<Result<u64, _>>()?;
        Ok(format!("{} workloads, {bytes} bytes", tail::WORKLOADS))
    });
}

#[test]
fn every_subset_of_sectors_not_flushed() {
    report("every subset of the log's sectors not flushed", |tally| {
        let subsets =
            (0..tail::WORKLOADS).map(|n| tail::subsets(n, tally)).sum::<Result<u64, _>>()?;
        Ok(format!("{} workloads, {subsets} subsets", tail::WORKLOADS))
    });
}

#[test]
fn every_sequence_of_three_operations() {
    report("every sequence of at most three operations, a crash at each flush", |tally| {
        Ok(format!("{} sequences", sequences::all(3, tally)?))
    });
}

/// A test that does less than it says proves nothing.
#[test]
fn the_operations_do_what_they_say() {
    let done = |op| {
        let before = World::new();
        let left = before.disk.disk.clone();
        let world = sequences::run(before, op, 0).expect("nothing fails without a crash");
        (left, world)
    };
    let base = World::new();
    let (_, filled) = done(Op::Fill);
    assert!(filled.wal.tail_seq() > base.wal.tail_seq());
    let (disk, saved) = done(Op::Snapshot);
    let notes = wal::valid_snapshots(&disk, &wal_dir()).expect("the log is whole");
    assert_eq!(notes.last().map(|n| n.index()), Some(saved.node.view().snapshot_index()));
    assert!(saved.node.view().snapshot_index() > base.node.view().snapshot_index());
    let (_, compacted) = done(Op::Compact);
    assert_eq!(compacted.seen().compacted, base.seen().revision);
    let (_, late) = done(Op::Late);
    assert_eq!((late.answered, late.models.len()), (0, 2));
    assert!(late.disk.disk.unsynced() > 0);
    let (disk, lost) = done(Op::PowerLoss);
    assert!(disk.unsynced() > 0, "the power failed in the midst of a write");
    assert!(lost.models.len() == 1 && lost.seen().revision <= base.seen().revision + 1);
    let mut fragmented = World::new();
    let (size, moved) = (fragmented.backend.size(), fragmented.defragment());
    assert!(moved >= 2 && fragmented.backend.size() < size / 2, "{moved} pages of {size} bytes");
    let (_, put) = done(Op::Put);
    let calls = put.disk.disk.calls();
    let committed = sequences::run(put, Op::Commit, 0).expect("nothing fails without a crash");
    let made = committed.disk.disk.calls() - calls;
    assert!(made > 2, "{made} calls: pages, a flush and a meta page at least");
}

macro_rules! rows {
    ($($row:ident)*) => {
        $(
            #[test]
            fn $row() {
                let cases = rows::$row().unwrap_or_else(|e| panic!("{e}"));
                assert!(cases > 20, "{cases} cases");
            }
        )*
    };
}

rows! {
    i13766_the_index_and_its_data_are_of_one_moment
    i14370_no_answer_before_the_log_is_durable
    i13937_only_entries_that_change_nothing
    i14685_defragmentation_is_cut_short
    i11613_the_first_start_is_cut_short
    i5230_a_torn_tail_is_repaired
    i6378_blocks_out_of_order
    i14102_a_flipped_bit_in_the_log
    i14140_unflushed_data_is_lost_again_and_again
    i17780_the_revision_does_not_fall
}
