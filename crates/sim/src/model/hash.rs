//! The hash by which members compare their keys, from the list of all changes: an independent look at what a
//! member must have on disk. Not here: who asks for it.

use std::collections::BTreeSet;

use prost::Message;

use super::{Change, Model};

/// The bucket's name starts every hash.
const BUCKET: &[u8] = b"key";

impl Model {
    /// The hash of all that is kept up to a revision by a store that is compacted to `compacted` (0 or less for
    /// one that never was). None where it depends on how far compactions have come: where no key is alive at
    /// that revision, etcd leaves nothing out that is still there.
    pub fn hash_kv(&self, to: i64, compacted: i64) -> Option<u32> {
        let kept = self.kept(to);
        if compacted > 0 && kept.is_empty() {
            return None;
        }
        let mut crc = crc32c::crc32c(BUCKET);
        for (at, change) in self.changes.iter().enumerate() {
            let main = change.revision();
            let old = compacted > 0 && main <= compacted;
            if main > to || (old && !kept.contains(&at)) || (change.deleted && main == compacted) {
                continue;
            }
            crc = crc32c::crc32c_append(crc, &stored_key(change));
            crc = crc32c::crc32c_append(crc, &stored_value(change));
        }
        Some(crc)
    }

    /// The changes that a compaction to this revision keeps of those up to it. A key's life ends with its
    /// deletion; the one looked at is the first that ends at the revision or later, or the last.
    fn kept(&self, to: i64) -> BTreeSet<usize> {
        let mut kept = BTreeSet::new();
        for places in self.keys.values() {
            let lives = places.split_inclusive(|&at| self.changes[at].deleted);
            let lasts = |life: &[usize]| {
                let last = &self.changes[life[life.len() - 1]];
                !last.deleted || last.revision() >= to
            };
            let Some(life) = lives.into_iter().find(|life| lasts(life)) else { continue };
            let newest = life.iter().rev().find(|&&at| self.changes[at].revision() <= to);
            kept.extend(newest.filter(|&&at| !self.changes[at].deleted));
        }
        kept
    }
}

/// A change's key on disk.
fn stored_key(change: &Change) -> Vec<u8> {
    let mut out = change.revision().to_be_bytes().to_vec();
    out.push(b'_');
    out.extend(change.sub.to_be_bytes());
    if change.deleted {
        out.push(b't');
    }
    out
}

/// A change's value on disk: of a deletion, the key alone.
fn stored_value(change: &Change) -> Vec<u8> {
    let mut kv = change.kv.clone();
    if change.deleted {
        kv.mod_revision = 0;
    }
    kv.encode_to_vec()
}
