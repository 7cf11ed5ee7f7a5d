//! Ordered writes, gathered on the apply path and handed to a commit. Not here: sorting them, and the
//! tree they go into.

use bytes::Bytes;

use super::Bucket;

/// Longest key that is kept without an allocation.
const INLINE: usize = 30;

/// Writes for which room is kept: 2 MiB of it, a tenth of a second of the most that one core applies.
const KEPT: usize = 32 << 10;

/// A key: short ones, such as revisions, are kept in place.
#[derive(Clone, Debug)]
pub struct Key(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Bytes),
}

impl Key {
    /// The key's bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    #[inline]
    fn from(key: &[u8]) -> Self {
        if key.len() > INLINE {
            return Self(Repr::Shared(Bytes::copy_from_slice(key)));
        }
        let mut bytes = [0; INLINE];
        bytes[..key.len()].copy_from_slice(key);
        Self(Repr::Inline { len: key.len() as u8, bytes })
    }
}

impl<const N: usize> From<[u8; N]> for Key {
    #[inline]
    fn from(key: [u8; N]) -> Self {
        Self::from(&key[..])
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    #[inline]
    fn from(key: &[u8; N]) -> Self {
        Self::from(&key[..])
    }
}

impl From<Bytes> for Key {
    fn from(key: Bytes) -> Self {
        if key.len() > INLINE { Self(Repr::Shared(key)) } else { Self::from(&key[..]) }
    }
}

/// One write: a value, or `None` for a deletion.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub key: Key,
    pub value: Option<Bytes>,
}

/// Writes in the order they were made; the last write of a key wins. Adding one is a push: the tree
/// is touched when the batch is committed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    writes: [Vec<Write>; Bucket::ALL.len()],
    len: usize,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key. Keys are of 1 to 32,768 bytes, values shorter than 2 GiB: the commit refuses others.
    #[inline]
    pub fn put(&mut self, bucket: Bucket, key: impl Into<Key>, value: Bytes) {
        self.bytes += value.len();
        self.push(bucket, key.into(), Some(value));
    }

    /// Removes a key; nothing happens if it is not there.
    #[inline]
    pub fn delete(&mut self, bucket: Bucket, key: impl Into<Key>) {
        self.push(bucket, key.into(), None);
    }

    #[inline]
    fn push(&mut self, bucket: Bucket, key: Key, value: Option<Bytes>) {
        self.len += 1;
        self.bytes += key.as_slice().len();
        self.writes[bucket as usize].push(Write { key, value });
    }

    /// True if there is no write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many writes there are, those of the same key counted each.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves the writes of `other` behind these.
    pub fn append(&mut self, other: &mut Batch) {
        for (mine, theirs) in self.writes.iter_mut().zip(&mut other.writes) {
            mine.append(theirs);
        }
        self.len += std::mem::take(&mut other.len);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes out the writes to one bucket.
    pub(super) fn take(&mut self, bucket: Bucket) -> Batch {
        let mut taken = Batch::new();
        for Write { key, value } in std::mem::take(&mut self.writes[bucket as usize]) {
            let bytes = key.as_slice().len() + value.as_ref().map_or(0, Bytes::len);
            (self.len, self.bytes) = (self.len - 1, self.bytes - bytes);
            match value {
                Some(value) => taken.put(bucket, key, value),
                None => taken.delete(bucket, key),
            }
        }
        taken
    }

    /// Forgets the writes and keeps room for new ones, though not what only a burst needs.
    pub fn clear(&mut self) {
        for writes in &mut self.writes {
            writes.clear();
            writes.shrink_to(KEPT);
        }
        self.len = 0;
        self.bytes = 0;
    }

    /// The last write of a key in this batch: `Some(None)` if it is a deletion. A walk from the end,
    /// for small batches and tests.
    pub fn last(&self, bucket: Bucket, key: &[u8]) -> Option<Option<&Bytes>> {
        let write = self.writes[bucket as usize].iter().rev().find(|w| w.key.as_slice() == key)?;
        Some(write.value.as_ref())
    }

    pub(super) fn writes(&self, bucket: Bucket) -> &[Write] {
        &self.writes[bucket as usize]
    }

    /// Sorts each bucket's writes by key, keeping the last of each key. Batches of revisions come in
    /// order already, and cost one look.
    pub(super) fn sort(&mut self) {
        for writes in &mut self.writes {
            if writes.is_sorted_by(|a, b| a.key.as_slice() < b.key.as_slice()) {
                continue;
            }
            writes.sort_by(|a, b| a.key.as_slice().cmp(b.key.as_slice()));
            writes.dedup_by(|later, kept| {
                let same = later.key.as_slice() == kept.key.as_slice();
                if same {
                    std::mem::swap(later, kept);
                }
                same
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_wins_and_order_is_by_key() {
        let mut batch = Batch::new();
        for (key, value) in [("b", Some("1")), ("a", Some("2")), ("b", None), ("b", Some("3"))] {
            match value {
                Some(value) => {
                    batch.put(Bucket::Lease, key.as_bytes(), Bytes::from_static(value.as_bytes()))
                }
                None => batch.delete(Bucket::Lease, key.as_bytes()),
            }
        }
        assert_eq!((batch.len(), batch.bytes()), (4, 7));
        assert_eq!(batch.last(Bucket::Lease, b"b"), Some(Some(&Bytes::from_static(b"3"))));
        batch.sort();
        let got: Vec<_> = batch
            .writes(Bucket::Lease)
            .iter()
            .map(|w| (w.key.as_slice(), w.value.as_deref()))
            .collect();
        assert_eq!(got, [(&b"a"[..], Some(&b"2"[..])), (&b"b"[..], Some(&b"3"[..]))]);
    }

    #[test]
    fn append_moves_and_clear_forgets() {
        let (mut a, mut b) = (Batch::new(), Batch::new());
        a.put(Bucket::Key, [1; 17], Bytes::from_static(b"x"));
        b.delete(Bucket::Key, vec![2; 40].as_slice());
        a.append(&mut b);
        assert!(b.is_empty() && a.len() == 2 && a.bytes() == 58);
        a.clear();
        assert!(a.is_empty() && a.bytes() == 0 && a.writes(Bucket::Key).is_empty());
    }
}
