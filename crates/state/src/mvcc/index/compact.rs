//! Dropping what no read sees any more, a few leaves at a time. Not here: taking it out of the backend.

use super::Index;
use super::arena::NONE;
use super::types::Compaction;
use crate::mvcc::Revision;

impl Index {
    /// One step of a compaction: goes through about `max_keys` keys, and adds the revisions (and
    /// whether they are tombstones) that are gone to `dropped`. True if the compaction is done.
    ///
    /// A key loses everything up to the compaction's revision but the last change, and that too if it
    /// is a tombstone below exactly that revision. Reads at that revision and above are right before,
    /// between and after the steps. What one step drops must leave the backend together: a tombstone
    /// that is gone before the puts under it would bring the key back at the next start.
    pub fn compact_step(
        &mut self,
        compaction: &mut Compaction,
        max_keys: usize,
        dropped: &mut Vec<(Revision, bool)>,
    ) -> bool {
        let at = compaction.at;
        if compaction.from.is_none() {
            self.log.trim(at);
        }
        let mut from = compaction.from.take().unwrap_or_default();
        let mut seen = 0;
        loop {
            let (path, id) = self.tree.find_path(&from);
            let leaf = self.tree.leaf_mut(id);
            let records = leaf.records.iter_mut();
            let flags: Vec<bool> =
                records.map(|r| r.compact(at, &mut self.histories, dropped)).collect();
            let next = leaf.next;
            seen += flags.len();
            let go_on = (next != NONE).then(|| self.tree.leaf(next).keys.key(0));
            if flags.contains(&false) {
                self.tree.retain(&path, id, &flags);
            }
            match go_on {
                None => return true,
                Some(next) if seen >= max_keys => {
                    compaction.from = Some(next);
                    return false;
                }
                Some(next) => from = next,
            }
        }
    }
}
