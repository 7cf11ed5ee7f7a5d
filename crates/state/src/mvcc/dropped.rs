//! What a compaction deletes: it comes in the order of keys, and goes in that of revisions, a stretch of history at a
//! time, so that no step has to sort all of it. Not here: what is dropped (`index`), and the deletes (`compact`).

use std::collections::BTreeMap;

use super::Revision;

/// Transactions in a stretch.
const STRETCH: i64 = 4096;

/// A change that is dropped, and whether it is a tombstone.
pub(super) type Change = (Revision, bool);

/// Changes that are dropped.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    stretches: BTreeMap<i64, Stretch>,
}

#[derive(Debug, Default)]
struct Stretch {
    changes: Vec<Change>,
    sorted: bool,
}

impl Stretch {
    fn sort(&mut self) {
        if !std::mem::replace(&mut self.sorted, true) {
            self.changes.sort_unstable();
        }
    }
}

impl Dropped {
    /// Adds changes in any order.
    pub(super) fn add(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let stretch = self.stretches.entry(change.0.main / STRETCH).or_default();
            stretch.sorted = false;
            stretch.changes.push(change);
        }
    }

    /// Whether a change is among them.
    pub(super) fn contains(&mut self, change: Change) -> bool {
        let Some(stretch) = self.stretches.get_mut(&(change.0.main / STRETCH)) else {
            return false;
        };
        stretch.sort();
        stretch.changes.binary_search(&change).is_ok()
    }

    /// Takes the oldest out, at most `limit`.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Change> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(mut oldest) = self.stretches.first_entry()
        {
            oldest.get_mut().sort();
            let changes = &mut oldest.get_mut().changes;
            let count = (limit - taken.len()).min(changes.len());
            taken.extend(changes.drain(..count));
            if changes.is_empty() {
                oldest.remove();
            }
        }
        taken
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_any_order_goes_by_revision() {
        let mut all: Vec<Change> = (0..3 * STRETCH)
            .step_by(7)
            .flat_map(|main| [0, 1].map(|sub| (Revision::new(main, sub), main % 3 == 0)))
            .collect();
        let mut dropped = Dropped::default();
        // Two halves in no order, with a look at the first stretch in between.
        let in_first = |i: &usize| all[*i].0.main < STRETCH;
        let scattered =
            |half: usize| (0..all.len()).map(|i| i * 101 % all.len()).skip(half).step_by(2);
        for half in 0..2 {
            dropped.add(scattered(half).map(|i| all[i]));
            assert!(scattered(half).filter(in_first).all(|i| dropped.contains(all[i])));
        }
        assert!(!dropped.contains((Revision::new(7, 0), true)), "it is no tombstone");
        assert!(!dropped.contains((Revision::new(8, 0), false)));
        assert!(!dropped.contains((Revision::new(9 * STRETCH, 0), false)));
        let mut taken = Vec::new();
        while !dropped.is_empty() {
            let some = dropped.take(100);
            assert!((1..=100).contains(&some.len()));
            taken.extend(some);
        }
        all.sort_unstable();
        assert_eq!(taken, all);
        assert_eq!(dropped.take(1), []);
    }
}
