//! Key ranges: what a request's `key` and `range_end` mean together.
//!
//! Nothing else about keys lives here: permissions and the index bring their own structures.

use std::ops::Bound;

use bytes::Bytes;

/// A set of keys that lie next to each other in byte order.
///
/// etcd's rule, for ranges, deletes, watches, comparisons and permissions alike:
///
/// | `key` | `range_end` | the keys |
/// |---|---|---|
/// | k | empty | k alone |
/// | k | one zero byte | k and everything after it |
/// | k | e | from k up to, but not with, e; none if e <= k |
/// | one zero byte | one zero byte | all |
///
/// The empty key is not a key. As the start of a range with an end it is simply the smallest start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// One key.
    Single(Bytes),
    /// From the first, up to but not including the second.
    HalfOpen(Bytes, Bytes),
    /// This key and everything after it.
    From(Bytes),
    /// Every key.
    All,
}

/// The `range_end` that stands for no end, and the smallest key.
const ZERO: &[u8] = b"\0";

impl KeyRange {
    /// Reads a request's pair.
    pub fn new(key: Bytes, range_end: Bytes) -> KeyRange {
        if range_end.is_empty() {
            KeyRange::Single(key)
        } else if range_end != ZERO {
            KeyRange::HalfOpen(key, range_end)
        } else if key.is_empty() || key == ZERO {
            KeyRange::All
        } else {
            KeyRange::From(key)
        }
    }

    /// All keys with this prefix; with the empty prefix, all keys.
    pub fn prefix(prefix: Bytes) -> KeyRange {
        let end = prefix_end(&prefix);
        if prefix.is_empty() { KeyRange::All } else { KeyRange::new(prefix, end) }
    }

    /// The pair to put into a request.
    pub fn to_parts(&self) -> (Bytes, Bytes) {
        let zero = Bytes::from_static(ZERO);
        match self {
            KeyRange::Single(key) => (key.clone(), Bytes::new()),
            KeyRange::HalfOpen(key, end) => (key.clone(), end.clone()),
            KeyRange::From(key) => (key.clone(), zero),
            KeyRange::All => (zero.clone(), zero),
        }
    }

    /// The smallest key that may be in the range.
    pub fn start(&self) -> &[u8] {
        match self {
            KeyRange::Single(key) | KeyRange::HalfOpen(key, _) | KeyRange::From(key) => key,
            KeyRange::All => b"",
        }
    }

    /// Whether the key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Single(single) => key == single,
            KeyRange::HalfOpen(start, end) => key >= &start[..] && key < &end[..],
            KeyRange::From(start) => key >= &start[..],
            KeyRange::All => true,
        }
    }

    /// Whether no key can be in the range, because it ends before it starts.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::HalfOpen(start, end) if end <= start)
    }

    /// The range as bounds for an ordered map.
    ///
    /// An empty range comes out as the empty span at its start: `BTreeMap::range` panics on an inverted one.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            KeyRange::Single(key) => (Bound::Included(key), Bound::Included(key)),
            KeyRange::HalfOpen(start, end) => {
                (Bound::Included(start), Bound::Excluded(end.max(start)))
            }
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
            KeyRange::All => (Bound::Unbounded, Bound::Unbounded),
        }
    }
}

/// The smallest key after all keys with this prefix; a zero byte, thus "no end", if there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|&byte| byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(ZERO),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn reads_each_kind() {
        assert!(matches!(range("a", ""), KeyRange::Single(_)));
        assert!(matches!(range("a", "b"), KeyRange::HalfOpen(..)));
        assert!(matches!(range("a", "\0"), KeyRange::From(_)));
        assert_eq!(range("\0", "\0"), KeyRange::All);
        assert_eq!(range("", "\0"), KeyRange::All);
        // Only the single zero byte is special.
        assert!(matches!(range("a", "\0\0"), KeyRange::HalfOpen(..)));
    }

    #[test]
    fn contains_and_bounds_agree() {
        let keys: BTreeSet<&[u8]> =
            [&b"\0"[..], b"\0\0", b"a", b"a\0", b"ab", b"b", b"c", b"\xff", b"\xff\xff"].into();
        let texts = ["", "\0", "\0\0", "a", "a\0", "ab", "b", "c", "d"];
        for key in texts {
            for end in texts {
                let range = range(key, end);
                let by_bounds: Vec<_> = keys.range::<[u8], _>(range.bounds()).copied().collect();
                let by_contains: Vec<_> =
                    keys.iter().copied().filter(|k| range.contains(k)).collect();
                assert_eq!(by_bounds, by_contains, "{range:?}");
                assert!(!range.is_empty() || by_bounds.is_empty(), "{range:?}");
            }
        }
    }

    #[test]
    fn inverted_and_equal_ends_are_empty() {
        assert!(range("b", "a").is_empty());
        assert!(range("a", "a").is_empty());
        assert!(!range("a", "a\0").is_empty());
        assert!(!range("a", "").is_empty());
        assert!(!range("a", "\0").is_empty());
    }

    #[test]
    fn the_pair_comes_back() {
        for (key, end) in [("a", ""), ("a", "b"), ("a", "\0"), ("\0", "\0")] {
            let (k, e) = range(key, end).to_parts();
            assert_eq!((&k[..], &e[..]), (key.as_bytes(), end.as_bytes()));
        }
    }

    #[test]
    fn prefixes_end_where_they_should() {
        assert_eq!(prefix_end(b"foo"), &b"fop"[..]);
        assert_eq!(prefix_end(b"a\xff\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff\xff"), ZERO);
        assert_eq!(KeyRange::prefix(Bytes::new()), KeyRange::All);
        assert_eq!(
            KeyRange::prefix(Bytes::from_static(b"\xff")),
            KeyRange::From(Bytes::from_static(b"\xff"))
        );
        assert!(KeyRange::prefix(Bytes::from_static(b"foo")).contains(b"foo\xff"));
    }
}
