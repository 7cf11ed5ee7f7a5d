//! A set of keys as intervals that neither overlap nor touch: what all roles of a user grant together. Not
//! here: who grants it.

use bytes::{BufMut, Bytes, BytesMut};

/// The first key behind an interval; `None` if it has no end.
type End = Option<Bytes>;

/// Merged intervals, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    spans: Vec<(Bytes, End)>,
    /// The intervals as they were granted, in order of their starts.
    granted: Vec<(Bytes, End)>,
}

/// The `range_end` of an interval without an end.
const OPEN: &[u8] = b"\0";

/// The key right behind this one.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Whether an interval that ends there reaches `key`: covers all in front of it.
fn reaches(end: &End, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| &end[..] >= key)
}

impl Ranges {
    /// The union of what permissions name by their key and range end.
    pub fn merge<'a>(grants: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> Self {
        let mut granted: Vec<(Bytes, End)> =
            grants.filter_map(|(key, end)| span(key, end)).collect();
        granted.sort_unstable();
        let mut merged: Vec<(Bytes, End)> = Vec::with_capacity(granted.len());
        for (start, end) in granted.iter().cloned() {
            match merged.last_mut() {
                Some((_, last)) if reaches(last, &start) => {
                    if !end.as_ref().is_some_and(|end| reaches(last, end)) {
                        *last = end;
                    }
                }
                _ => merged.push((start, end)),
            }
        }
        Self { spans: merged, granted }
    }

    /// Whether all keys of a request's range are in the set.
    pub fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let at = self.spans.partition_point(|(start, _)| &start[..] <= key);
        let Some((_, end)) = at.checked_sub(1).map(|at| &self.spans[at]) else { return false };
        if end.as_ref().is_some_and(|end| &end[..] <= key) {
            return false;
        }
        match range_end {
            b"" => true,
            OPEN => end.is_none(),
            range_end if range_end <= key => self.cover_nothing(key, range_end),
            range_end => end.as_ref().is_none_or(|end| range_end <= &end[..]),
        }
    }
}

impl Ranges {
    /// A range that ends before it starts, and so holds no key: etcd's tree of intervals finds the one that
    /// holds the first key only if it does not pass one on its way that starts behind the range's end. How it
    /// goes depends on the shape of the tree; where it might not find it, the answer here is no.
    fn cover_nothing(&self, key: &[u8], range_end: &[u8]) -> bool {
        let holds = |(start, end): &(Bytes, End)| {
            &start[..] <= key && end.as_ref().is_none_or(|end| &end[..] > key)
        };
        let Some(at) = self.granted.iter().position(holds) else { return false };
        let first = &self.granted[at].0;
        self.granted[..at].iter().all(|(start, _)| &start[..] < range_end || start == first)
    }
}

/// A permission's interval; none if it holds no key, which only data of old releases does.
fn span(key: &Bytes, range_end: &Bytes) -> Option<(Bytes, End)> {
    let end = match &range_end[..] {
        b"" => Some(successor(key)),
        OPEN => None,
        _ => Some(range_end.clone()),
    };
    let holds_keys = !key.is_empty() && end.as_ref().is_none_or(|end| end > key);
    holds_keys.then(|| (key.clone(), end))
}

/// Whether a permission may be granted on it.
pub(super) fn is_grantable(key: &Bytes, range_end: &Bytes) -> bool {
    span(key, range_end).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(grants: &[(&'static str, &'static str)]) -> Ranges {
        let grants: Vec<(Bytes, Bytes)> = grants
            .iter()
            .map(|(k, e)| (Bytes::from_static(k.as_bytes()), Bytes::from_static(e.as_bytes())))
            .collect();
        Ranges::merge(grants.iter().map(|(k, e)| (k, e)))
    }

    fn covers(ranges: &Ranges, key: &str, end: &str) -> bool {
        ranges.cover(key.as_bytes(), end.as_bytes())
    }

    #[test]
    fn intervals_that_touch_cover_what_spans_them() {
        let set = ranges(&[("c", "e"), ("a", "c"), ("g", ""), ("g\0", "h"), ("b", "d")]);
        assert_eq!(set.spans.len(), 2);
        for (key, end) in
            [("a", "e"), ("b", "d"), ("a", ""), ("d\u{7f}", ""), ("g", "h"), ("g", "g\0")]
        {
            assert!(covers(&set, key, end), "{key}..{end}");
        }
        for (key, end) in
            [("a", "f"), ("e", ""), ("f", "h"), ("a", "h"), ("g", "\0"), ("0", "b"), ("h", "")]
        {
            assert!(!covers(&set, key, end), "{key}..{end}");
        }
    }

    #[test]
    fn one_key_is_not_all_that_follow_it() {
        let one = ranges(&[("k", "")]);
        assert!(covers(&one, "k", "") && covers(&one, "k", "k\0"));
        assert!(!covers(&one, "k", "\0") && !covers(&one, "k", "l") && !covers(&one, "k\0", ""));
        let from = ranges(&[("k", "\0"), ("a", "l")]);
        assert!(covers(&from, "a", "\0") && covers(&from, "z", "\0"));
        assert!(!covers(&from, "Z", "\0"));
        assert!(covers(&ranges(&[("\0", "\0")]), "\0", "\0"));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_asks_for_its_first_key() {
        let set = ranges(&[("c", "e")]);
        assert!(covers(&set, "d", "b") && covers(&set, "d", "d"));
        assert!(!covers(&set, "f", "b") && !covers(&set, "b", "a"));
        // As a real etcd says it, where intervals lie in between.
        let gap = ranges(&[("k", "l"), ("l\0", "n")]);
        assert!(!covers(&gap, "m", "k") && covers(&gap, "m", "l") && covers(&gap, "k", "a"));
    }

    #[test]
    fn what_holds_no_key_grants_nothing() {
        for (key, end) in [("", ""), ("", "\0"), ("", "z"), ("b", "a"), ("b", "b")] {
            assert!(!is_grantable(
                &Bytes::from_static(key.as_bytes()),
                &Bytes::from_static(end.as_bytes())
            ));
            assert_eq!(ranges(&[(key, end)]).spans.len(), 0, "{key}..{end}");
        }
    }

    /// Every small set against every small range, key by key.
    #[test]
    fn agrees_with_a_set_of_keys() {
        let names = ["", "\0", "a", "a\0", "b", "c", "d"];
        let universe = ["a", "a\0", "a\0\0", "aa", "b", "b\0", "bb", "c", "c\0", "d", "d\0", "e"];
        let within = |key: &str, from: &str, end: &str| match end {
            "" => key == from,
            "\0" => key >= from,
            end => key >= from && key < end,
        };
        let grants: Vec<(&'static str, &'static str)> = names[2..]
            .iter()
            .flat_map(|&k| names.iter().map(move |&e| (k, e)))
            .filter(|&(k, e)| e.is_empty() || e == "\0" || e > k)
            .collect();
        for first in &grants {
            for second in &grants {
                let set = ranges(&[*first, *second]);
                let has =
                    |key: &str| within(key, first.0, first.1) || within(key, second.0, second.1);
                for &(key, end) in &grants {
                    let all = universe.iter().filter(|k| within(k, key, end)).all(|k| has(k));
                    // Between any two keys of the universe lies another that it does not name.
                    let got = covers(&set, key, end);
                    assert!(!got || all, "{first:?} {second:?}: {key}..{end}");
                    if end.is_empty() {
                        assert_eq!(got, has(key));
                    }
                }
            }
        }
    }
}
