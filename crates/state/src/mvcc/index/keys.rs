//! The sorted keys of one node, close together: the prefix that all of them share once, then the rest of
//! each, and the next four bytes of each as a number, on which a search decides nearly everything
//! without touching the text. Not here: what belongs to a key.

use std::cmp::Ordering;

/// Room that is added when a node's text is full: small, since most nodes stay as they are.
const TEXT_STEP: usize = 192;
/// The same for its arrays, in keys.
pub(super) const KEY_STEP: usize = 8;

/// Sorted keys without repeats.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The shared prefix, then the rest of each key.
    text: Vec<u8>,
    /// The first bytes of each rest, as the number that sorts like them.
    heads: Vec<u32>,
    /// Where each rest ends in `text`.
    ends: Vec<u32>,
    prefix: u32,
}

/// How many bytes two texts share at their start.
pub(super) fn shared(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

/// The first four bytes as a number; a missing byte counts as zero, so equal heads decide nothing.
fn head(rest: &[u8]) -> u32 {
    match rest.first_chunk() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 4];
            bytes[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(bytes)
        }
    }
}

fn offset(n: usize) -> u32 {
    u32::try_from(n).expect("the keys of a node take less than 4 GiB")
}

/// Adds room by small steps, not by doubling.
pub(super) fn grow<T>(v: &mut Vec<T>, more: usize, step: usize) {
    if v.capacity() - v.len() < more {
        v.reserve_exact(more.max(step));
    }
}

impl Keys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Bytes of text.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// What all keys start with.
    pub fn prefix(&self) -> &[u8] {
        &self.text[..self.prefix as usize]
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { self.prefix as usize } else { self.ends[i - 1] as usize }
    }

    /// A key without the prefix.
    pub fn rest(&self, i: usize) -> &[u8] {
        &self.text[self.start(i)..self.ends[i] as usize]
    }

    /// A key, whole.
    pub fn key(&self, i: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix as usize + self.rest(i).len());
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(self.rest(i));
        key
    }

    /// Where the key is, or where it would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let head = head(rest);
        let mut low = self.heads.partition_point(|h| *h < head);
        let mut high = low + self.heads[low..].iter().take_while(|h| **h == head).count();
        while low < high {
            let middle = low + (high - low) / 2;
            match self.rest(middle).cmp(rest) {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Makes room for more keys.
    pub fn reserve(&mut self, keys: usize) {
        self.heads.reserve_exact(keys);
        self.ends.reserve_exact(keys);
    }

    /// Puts a key at the place that `search` named.
    pub fn insert(&mut self, i: usize, key: &[u8]) {
        if self.len() == 0 {
            self.text.clear();
            self.text.extend_from_slice(key);
            self.prefix = offset(key.len());
        } else if !key.starts_with(self.prefix()) {
            self.shorten_prefix(shared(self.prefix(), key));
        }
        let rest = &key[self.prefix as usize..];
        let at = self.start(i);
        let old = self.text.len();
        grow(&mut self.text, rest.len(), TEXT_STEP);
        self.text.resize(old + rest.len(), 0);
        self.text.copy_within(at..old, at + rest.len());
        self.text[at..at + rest.len()].copy_from_slice(rest);
        offset(self.text.len());
        grow(&mut self.heads, 1, KEY_STEP);
        self.heads.insert(i, head(rest));
        grow(&mut self.ends, 1, KEY_STEP);
        self.ends[i..].iter_mut().for_each(|end| *end += rest.len() as u32);
        self.ends.insert(i, (at + rest.len()) as u32);
    }

    /// A key came that shares less with the others: what the prefix loses goes back to every rest.
    fn shorten_prefix(&mut self, prefix: usize) {
        let lost = self.prefix as usize - prefix;
        let mut text = Vec::with_capacity(self.text.len() + lost * self.len() + TEXT_STEP);
        text.extend_from_slice(&self.text[..prefix]);
        for i in 0..self.len() {
            text.extend_from_slice(&self.text[prefix..prefix + lost]);
            text.extend_from_slice(self.rest(i));
            self.heads[i] = head(&text[text.len() - lost - self.rest(i).len()..]);
        }
        for (i, end) in self.ends.iter_mut().enumerate() {
            *end = offset(*end as usize + lost * i);
        }
        self.prefix = prefix as u32;
        self.text = text;
    }

    /// The chosen keys in a block of their own, with the longest prefix they allow.
    fn select(&self, chosen: impl Iterator<Item = usize> + Clone) -> Self {
        let Some(first) = chosen.clone().next() else { return Self::default() };
        let last = chosen.clone().last().unwrap_or(first);
        let more = shared(self.rest(first), self.rest(last));
        let prefix = self.prefix as usize + more;
        let count = chosen.clone().count();
        let rests: usize = chosen.clone().map(|i| self.rest(i).len() - more).sum();
        let mut text = Vec::with_capacity(prefix + rests);
        text.extend_from_slice(self.prefix());
        text.extend_from_slice(&self.rest(first)[..more]);
        let mut heads = Vec::with_capacity(count);
        let mut ends = Vec::with_capacity(count);
        for i in chosen {
            let rest = &self.rest(i)[more..];
            text.extend_from_slice(rest);
            heads.push(head(rest));
            ends.push(text.len() as u32);
        }
        Self { text, heads, ends, prefix: prefix as u32 }
    }

    /// Keeps the keys below `at`, and gives the others away.
    pub fn split_off(&mut self, at: usize) -> Self {
        let right = self.select(at..self.len());
        *self = self.select(0..at);
        right
    }

    /// Keeps the keys whose flag is set.
    pub fn retain(&mut self, flags: &[bool]) {
        *self = self.select((0..self.len()).filter(|i| flags[*i]));
    }

    /// Takes one key out.
    pub fn remove(&mut self, i: usize) {
        *self = self.select((0..self.len()).filter(|j| *j != i));
    }

    /// Puts keys that are all greater behind these.
    pub fn append(&mut self, other: &Self) {
        for i in 0..other.len() {
            self.insert(self.len(), &other.key(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_inserts_and_splits_awkward_keys() {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for a in ["", "p", "pre", "prefix/", "prefix/\0", "prefix/x", "q"] {
            for b in [&b""[..], b"\0", b"\0\0\0\0", b"\0\0\0\0\0", b"abcd", b"abcde", b"\xff\xff"] {
                all.push([a.as_bytes(), b].concat());
            }
        }
        let mut order = all.clone();
        all.sort();
        all.dedup();
        order.reverse();
        let mut keys = Keys::default();
        for key in &order {
            if let Err(i) = keys.search(key) {
                keys.insert(i, key);
            }
        }
        let listed = |keys: &Keys| (0..keys.len()).map(|i| keys.key(i)).collect::<Vec<_>>();
        assert_eq!(listed(&keys), all);
        for (i, key) in all.iter().enumerate() {
            assert_eq!(keys.search(key), Ok(i));
        }
        for at in 0..=all.len() {
            let mut left = Keys::default();
            left.append(&keys);
            let right = left.split_off(at);
            assert_eq!((listed(&left), listed(&right)), (all[..at].to_vec(), all[at..].to_vec()));
            for (i, key) in all.iter().enumerate() {
                assert_eq!(left.search(key), if i < at { Ok(i) } else { Err(at) });
                assert_eq!(right.search(key), if i < at { Err(0) } else { Ok(i - at) });
            }
            if at < all.len() {
                keys.remove(at);
                assert_eq!(keys.search(&all[at]), Err(at));
                keys.insert(at, &all[at]);
            }
        }
    }
}
