//! The power of the net: with an old bug put back, one of these tests must fail. Not here: the bugs, which stand
//! where they would be made, nor those that take several members or clients to show.

use std::panic::{AssertUnwindSafe, catch_unwind};

use etch_disk::mutants::{self, Mutant};

use crate::check::Tally;
use crate::{report, rows, sequences, tail};

/// A test, and how it is run here: those of all sequences and workloads in part.
type Check = (&'static str, fn() -> Result<u64, String>);

const CHECKS: &[Check] = &[
    ("i13766", rows::i13766_the_index_and_its_data_are_of_one_moment),
    ("i14370", rows::i14370_no_answer_before_the_log_is_durable),
    ("i13937", rows::i13937_only_entries_that_change_nothing),
    ("i14685", rows::i14685_defragmentation_is_cut_short),
    ("i11613", rows::i11613_the_first_start_is_cut_short),
    ("i5230", rows::i5230_a_torn_tail_is_repaired),
    ("i6378", rows::i6378_blocks_out_of_order),
    ("i14102", rows::i14102_a_flipped_bit_in_the_log),
    ("i14140", rows::i14140_unflushed_data_is_lost_again_and_again),
    ("i17780", rows::i17780_the_revision_does_not_fall),
    ("sequences of two", || sequences::all(2, &mut Tally::default())),
    ("cuts", || tail::cuts(9, &mut Tally::default())),
    ("subsets", || tail::subsets(9, &mut Tally::default())),
];

/// The bugs that show in one member's storage, and the test that bears each one's number, where there is one.
const BUGS: &[(Mutant, &str)] = &[
    (Mutant::I13766, "i13766"),
    (Mutant::I14370, "i14370"),
    (Mutant::I13937, "i13937"),
    (Mutant::I14685, "i14685"),
    (Mutant::I11613, "i11613"),
    (Mutant::I14114, "i5230"),
    (Mutant::I6515, "i6378"),
    (Mutant::I6378, "i6378"),
    (Mutant::I6368, "sequences of two"),
    (Mutant::I14102, "i14102"),
    (Mutant::I12691, "sequences of two"),
    (Mutant::I17780, "i17780"),
    (Mutant::AheadOfLog, "sequences of two"),
];

/// What a check says with a bug switched on: why it failed, or nothing.
fn caught(bug: Option<Mutant>, check: &Check) -> Option<String> {
    mutants::set(bug);
    let outcome = catch_unwind(AssertUnwindSafe(check.1));
    mutants::set(None);
    match outcome {
        Ok(Ok(_)) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => Some(
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| panic.downcast_ref::<&str>().map_or("a panic", |s| s).into()),
        ),
    }
}

#[test]
fn each_bug_is_found() {
    for (bug, name) in BUGS {
        report(&format!("{} ({})", bug.name(), bug.what()), |_| {
            let check = CHECKS.iter().find(|c| c.0 == *name).expect("a check of that name");
            let why = caught(Some(*bug), check).ok_or(format!("{name} does not see it"))?;
            let line: String = why.lines().next().unwrap_or_default().chars().take(150).collect();
            Ok(format!("found by {name}: {line}"))
        });
    }
}
