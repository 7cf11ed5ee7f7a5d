//! Passes over many keys that change nothing: walks, counts, and what a compaction would keep. Each
//! has a budget of keys and can go on where it left off. Not here: the passes that change something.

use std::ops::ControlFlow;

use etch_api::range::KeyRange;

use super::Index;
use super::range::{End, Span};
use super::record::Record;
use super::tree::Leaf;
use super::types::{Version, Walked};
use crate::mvcc::Revision;

/// A walk costs about as much for one key as the log for this many births and deaths.
const LOG_ENTRIES_PER_KEY: u64 = 4;
/// Births and deaths that are looked through rather than any tree.
const FEW_LOG_ENTRIES: u64 = 256;

impl Index {
    /// Visits the keys of a range that are alive at a main revision, in ascending order, after the key
    /// `after` if there is one. Looks at no more than `budget` keys, those not alive counted too.
    pub fn walk(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        at: i64,
        budget: usize,
        mut visit: impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Walked {
        let mut key = Vec::new();
        self.pass(&Span::of(range), after, budget, |leaf, i, record| {
            let Some(version) = record.at(at, &self.histories) else {
                return ControlFlow::Continue(());
            };
            let prefix = leaf.keys.prefix();
            key.clear();
            key.extend_from_slice(prefix);
            key.extend_from_slice(leaf.keys.rest(i));
            visit(&key, &version)
        })
    }

    /// How many keys of a range are alive at a main revision. At the latest this is read off the inner
    /// nodes, at a recent one that number is put right by the log of births and deaths; at one before
    /// the log, or with few keys and a long log, the range is walked.
    pub fn count(&self, range: &KeyRange, at: i64) -> u64 {
        let span = Span::of(range);
        if matches!(span.end, End::Single) {
            return self.get(span.start, at).is_some().into();
        }
        let now = self.live_in(&span);
        if at >= self.last {
            return now;
        }
        let cheap = FEW_LOG_ENTRIES.max(now * LOG_ENTRIES_PER_KEY);
        let short = self.log.entries_after(at).is_some_and(|entries| entries as u64 <= cheap);
        if short && let Some(born) = self.log.born_after(at, &span) {
            return less(now, born);
        }
        let mut count = 0;
        self.pass(&span, None, usize::MAX, |_, _, record| {
            count += u64::from(record.at(at, &self.histories).is_some());
            ControlFlow::Continue(())
        });
        count
    }

    /// The same number if it can be had without a walk; else the caller may walk in steps.
    pub fn count_quick(&self, range: &KeyRange, at: i64) -> Option<u64> {
        let span = Span::of(range);
        if matches!(span.end, End::Single) {
            return Some(self.get(span.start, at).is_some().into());
        }
        let born = if at >= self.last { 0 } else { self.log.born_after(at, &span)? };
        Some(less(self.live_in(&span), born))
    }

    /// Names the puts that a compaction to `at` leaves of those up to there, key by key. A tombstone
    /// at exactly that revision is left by a compaction too, but not named: hashes never counted it.
    pub fn keep(
        &self,
        at: i64,
        after: Option<&[u8]>,
        budget: usize,
        mut name: impl FnMut(Revision),
    ) -> Walked {
        self.pass(&Span::of(&KeyRange::All), after, budget, |_, _, record| {
            if let Some(revision) = record.kept(at, &self.histories) {
                name(revision);
            }
            ControlFlow::Continue(())
        })
    }

    /// How many keys of a span are alive now.
    fn live_in(&self, span: &Span<'_>) -> u64 {
        let below = |key: &[u8]| if key.is_empty() { 0 } else { self.tree.live_below(key) };
        let end = match span.end {
            End::Before(end) => below(end),
            End::Never | End::Single => self.live(),
        };
        end.saturating_sub(below(span.start))
    }

    /// Shows the records of a span, in the order of keys.
    fn pass(
        &self,
        span: &Span<'_>,
        after: Option<&[u8]>,
        budget: usize,
        mut show: impl FnMut(&Leaf, usize, &Record) -> ControlFlow<()>,
    ) -> Walked {
        let after = after.filter(|after| *after >= span.start);
        let from = after.unwrap_or(span.start);
        let mut leaf = self.tree.leaf(self.tree.find(from));
        let mut first = match leaf.keys.search(from) {
            Ok(i) => i + usize::from(after.is_some()),
            Err(i) => i,
        };
        let mut budget = budget.max(1);
        loop {
            let len = leaf.keys.len();
            let end = match span.end {
                End::Never => len,
                End::Before(end) => match leaf.keys.search(end) {
                    Ok(i) | Err(i) => i,
                },
                End::Single => match leaf.keys.search(span.start) {
                    Ok(i) => i + 1,
                    Err(i) => i,
                },
            };
            for i in first..end {
                if show(leaf, i, &leaf.records[i]).is_break() {
                    return Walked::Stopped;
                }
                budget -= 1;
                if budget == 0 {
                    return Walked::More(leaf.keys.key(i));
                }
            }
            if end < len || leaf.next == super::arena::NONE {
                return Walked::End;
            }
            first = 0;
            leaf = self.tree.leaf(leaf.next);
        }
    }
}

fn less(now: u64, born: i64) -> u64 {
    now.checked_add_signed(-born).expect("births since then are among the keys of now or died")
}
