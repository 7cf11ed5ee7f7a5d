//! The hashes by which members compare their keys: etcd's values exactly. Not here: who compares them, and when.

use std::io;
use std::ops::ControlFlow;

use etch_api::Error;
use etch_api::range::KeyRange;
use etch_disk::backend::Bucket;

use super::index::Walked;
use super::read::ReadError;
use super::store::{Store, WALK};
use super::tree::{Tree, Visit};
use super::{EventKind, Revision};

/// How many hashes of compactions are remembered.
const REMEMBERED: usize = 10;

/// A hash of the history up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The revision to which the store was compacted, or -1: hashes compare only where it is the same.
    pub compact_revision: i64,
    /// The revision up to which was hashed.
    pub hash_revision: i64,
    /// The store's revision when it was asked for.
    pub current_revision: i64,
}

/// The hash under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    crc: u32,
    /// Versions up to this revision count only where `keeps` says so.
    pub compacted: i64,
    pub to: i64,
}

impl Hasher {
    pub fn new(compacted: i64, to: i64) -> Self {
        Self { crc: crc32c::crc32c(Bucket::Key.name()), compacted, to }
    }

    /// Adds a change. `keeps` is asked whether a compaction would keep it.
    pub fn add(
        &mut self,
        (revision, tombstone): (Revision, bool),
        key: &[u8],
        value: &[u8],
        keeps: impl FnOnce() -> bool,
    ) {
        if revision.main > self.to
            || (revision.main <= self.compacted && !keeps())
            // Old releases have dropped the tombstone at the compacted revision.
            || (tombstone && revision.main == self.compacted)
        {
            return;
        }
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, key), value);
    }

    pub fn finish(self, current_revision: i64) -> HashKv {
        let Self { crc: hash, compacted: compact_revision, to: hash_revision } = self;
        HashKv { hash, compact_revision, hash_revision, current_revision }
    }
}

/// The smallest revision after one.
fn after(revision: Revision) -> Revision {
    Revision::new(revision.main, revision.sub + 1)
}

/// What a compaction keeps of the versions at or below some revision.
struct Kept {
    /// Ascending.
    revisions: Vec<Revision>,
    /// Something is kept, be it above that revision.
    any: bool,
}

impl Kept {
    /// etcd skips nothing where nothing is kept at all.
    fn contains(&self, revision: Revision) -> bool {
        !self.any || self.revisions.binary_search(&revision).is_ok()
    }
}

impl Store {
    /// The hash of all history up to a revision (0 for the newest). It needs no commit: what is not in the B+tree
    /// yet is hashed from the tail. It reads everything: not for a thread that serves.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let remembered = self.hashes().into_iter().find(|hash| hash.hash_revision == revision);
        if let Some(hash) = remembered {
            return Ok(HashKv { current_revision: self.revision(), ..hash });
        }
        loop {
            let current = self.revision();
            let compacted = self.compact_revision();
            if revision > 0 && revision < compacted {
                return Err(Error::Compacted.into());
            }
            if revision > current {
                return Err(Error::FutureRev.into());
            }
            let to = if revision == 0 { current } else { revision };
            let kept = self.kept(to, compacted);
            let outcome = self.hash_up_to(to, compacted, &kept);
            // A compaction since then may have taken away what counts.
            if self.compact_revision() == compacted {
                return Ok(outcome?.finish(current));
            }
        }
    }

    /// The hashes of the last compactions, by revision.
    pub fn hashes(&self) -> Vec<HashKv> {
        self.hashes.lock().expect("a thread panicked with the hashes locked").clone()
    }

    pub(super) fn remember(&self, hash: HashKv) {
        let mut hashes = self.hashes.lock().expect("a thread panicked with the hashes locked");
        hashes.push(hash);
        hashes.sort_by_key(|hash| hash.hash_revision);
        let surplus = hashes.len().saturating_sub(REMEMBERED);
        hashes.drain(..surplus);
    }

    fn kept(&self, to: i64, compacted: i64) -> Kept {
        let mut kept = Kept { revisions: Vec::new(), any: false };
        if compacted < 0 {
            return kept;
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let walked = self.index().keep(to, after.as_deref(), WALK, |revision| {
                kept.any = true;
                if revision.main <= compacted {
                    kept.revisions.push(revision);
                }
            });
            match walked {
                Walked::More(key) => after = Some(key),
                Walked::End | Walked::Stopped => break,
            }
        }
        kept.revisions.sort_unstable();
        kept
    }

    fn hash_up_to(&self, to: i64, compacted: i64, kept: &Kept) -> io::Result<Hasher> {
        let mut hasher = Hasher::new(compacted, to);
        self.scan(Revision::default(), to, usize::MAX, &mut |revision, tombstone, key, value| {
            hasher.add((revision, tombstone), key, value, || kept.contains(revision));
            ControlFlow::Continue(())
        })?;
        Ok(hasher)
    }

    /// Visits the stored changes from a revision to a main revision, at most `max` of them, in the form in which the
    /// B+tree has or will have them. Answers where to go on, if there may be more; so it does where the visitor has
    /// had enough.
    pub(super) fn scan(
        &self,
        from: Revision,
        to: i64,
        max: usize,
        f: Visit<'_>,
    ) -> io::Result<Option<Revision>> {
        let (boundary, tree, tail) = {
            let recent = self.recent();
            let boundary = recent.tail.first().unwrap_or(i64::MAX);
            let upto = recent.tail.from(from).take_while(|event| event.revision.main <= to);
            let tail: Vec<_> = upto.take(max).cloned().collect();
            (boundary, Tree::new(recent.backend.snapshot()), tail)
        };
        let (mut seen, mut next) = (0, None);
        tree.scan(from, &mut |revision, tombstone, key, value| {
            if revision.main > to || revision.main >= boundary {
                return ControlFlow::Break(());
            }
            if seen == max {
                next = Some(revision);
                return ControlFlow::Break(());
            }
            seen += 1;
            let flow = f(revision, tombstone, key, value);
            if flow.is_break() {
                next = Some(after(revision));
            }
            flow
        })?;
        if next.is_some() {
            return Ok(next);
        }
        for event in &tail {
            if seen == max {
                return Ok(Some(event.revision));
            }
            seen += 1;
            let at = event.revision;
            let flow = match event.kind {
                EventKind::Put => f(at, false, &at.encode(), &event.kv),
                EventKind::Delete => {
                    let stored = super::value::stored_tombstone(&event.kv, at.main);
                    f(at, true, &at.encode_tombstone(), stored)
                }
            };
            if flow.is_break() {
                return Ok(Some(after(at)));
            }
        }
        let last = tail.last().map(|event| after(event.revision));
        Ok(last.filter(|_| tail.len() == max))
    }

    /// Whether any key is alive at a revision.
    pub(super) fn any_alive(&self, at: i64) -> bool {
        self.count(&KeyRange::All, at) > 0
    }

    /// The hash of the whole file, as the Hash call answers it: every bucket in order, but for the applied index,
    /// its term and the storage version; and the store's revision. What is not committed is not in it: commit
    /// first.
    pub fn hash(&self) -> io::Result<(u32, i64)> {
        let (snapshot, revision) = (self.recent().backend.snapshot(), self.revision());
        let mut crc = 0;
        let mut buckets = Bucket::ALL;
        buckets.sort_by_key(|bucket| bucket.name());
        for bucket in buckets {
            crc = crc32c::crc32c_append(crc, bucket.name());
            let mut cursor = snapshot.cursor(bucket)?;
            while let Some((key, value)) = cursor.next()? {
                let ignored = bucket == Bucket::Meta
                    && matches!(key, b"consistent_index" | b"term" | b"storageVersion");
                if !ignored {
                    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
                }
            }
        }
        Ok((crc, revision))
    }
}
