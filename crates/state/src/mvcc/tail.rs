//! The newest changes, in the order of revisions: what is published and not yet known to be in the newest root
//! of the B+tree. Not here: locks, and the B+tree.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Event, Revision};

/// Changes that readers find here before they look in the B+tree.
#[derive(Debug, Default)]
pub struct Tail {
    events: VecDeque<Arc<Event>>,
}

impl Tail {
    /// Appends changes, each later than the one before.
    pub fn extend(&mut self, events: &[Arc<Event>]) {
        self.events.extend(events.iter().cloned());
    }

    /// The main revision of the oldest change here. Every published change below it is in the B+tree.
    pub fn first(&self) -> Option<i64> {
        self.events.front().map(|event| event.revision.main)
    }

    /// The change at a revision.
    pub fn get(&self, revision: Revision) -> Option<&Arc<Event>> {
        let at = self.position(revision);
        self.events.get(at).filter(|event| event.revision == revision)
    }

    /// The changes from a revision on.
    pub fn from(&self, revision: Revision) -> impl Iterator<Item = &Arc<Event>> {
        self.events.range(self.position(revision)..)
    }

    /// Takes out the changes up to a main revision, for the caller to drop where no lock is held.
    pub fn trim(&mut self, main: i64) -> Vec<Arc<Event>> {
        let count = self.position(Revision::new(main.saturating_add(1), 0));
        self.events.drain(..count).collect()
    }

    /// How many changes are here.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Where the first change at or after `revision` is. Every main revision has a change, so that it cannot
    /// lie before its distance from the first one; where each has just one it lies exactly there.
    fn position(&self, revision: Revision) -> usize {
        let Some(first) = self.first() else { return 0 };
        let distance = usize::try_from(revision.main.saturating_sub(first)).unwrap_or(0);
        let (mut low, mut high) = (distance.min(self.events.len()), self.events.len());
        if low < high && self.events[low].revision >= revision {
            return low;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.events[middle].revision < revision {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mvcc::EventKind;

    fn event(main: i64, sub: i64) -> Arc<Event> {
        let revision = Revision::new(main, sub);
        Arc::new(Event::new(revision, EventKind::Put, Bytes::new(), Bytes::new(), None))
    }

    #[test]
    fn finds_every_change_and_nothing_else() {
        let mut tail = Tail::default();
        assert_eq!(tail.first(), None);
        assert!(tail.get(Revision::new(5, 0)).is_none());
        let mut all = Vec::new();
        for main in 10..40 {
            for sub in 0..if main % 7 == 0 { 25 } else { 1 } {
                all.push(event(main, sub));
            }
        }
        tail.extend(&all);
        for main in 5..45 {
            for sub in 0..26 {
                let revision = Revision::new(main, sub);
                let found = tail.get(revision).map(|e| e.revision);
                let there = all.iter().any(|e| e.revision == revision);
                assert_eq!(found, there.then_some(revision));
            }
            let rest = all.iter().filter(|e| e.revision.main >= main).count();
            assert_eq!(tail.from(Revision::new(main, 0)).count(), rest);
        }
    }

    #[test]
    fn trims_whole_revisions() {
        let mut tail = Tail::default();
        tail.extend(&[event(3, 0), event(4, 0), event(4, 1), event(5, 0)]);
        assert_eq!(tail.trim(4).len(), 3);
        assert_eq!((tail.first(), tail.len()), (Some(5), 1));
        assert_eq!(tail.trim(i64::MAX).len(), 1);
        assert_eq!(tail.first(), None);
    }
}
