//! One page as it lies in the file: the header and the elements of branches and leaves, every number
//! checked before it is used. Not here: the meta pages, and how pages are found or written.

use std::cmp::Ordering;
use std::io;

/// Length of a page's header.
pub(super) const HEADER: usize = 16;
/// Length of an element of a branch or a leaf.
pub(super) const ELEMENT: usize = 16;
/// Length of the head of a bucket's value: root page and sequence.
pub(super) const BUCKET_HEAD: usize = 16;
/// How many branches may lie above a leaf. A tree of real pages stays far below it; a cycle does not.
pub(super) const MAX_DEPTH: usize = 48;

pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
pub(super) const META: u16 = 4;
/// Flag of a leaf's element whose value is a bucket.
pub(super) const IS_BUCKET: u32 = 1;

/// The error of a damaged page.
#[cold]
pub(super) fn damaged(page: u64, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("db page {page}: {why}"))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The part of a file that a root may use.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    pub page_size: usize,
    /// Pages from here on do not belong to this root.
    pub high: u64,
}

impl<'a> View<'a> {
    /// The branch or leaf page `id`.
    #[inline]
    pub fn page(self, id: u64) -> io::Result<Page<'a>> {
        if id < 2 || id >= self.high {
            return Err(damaged(id, "outside of the file's pages"));
        }
        // `high` times the page size was checked to fit when the view was made.
        let rest = self.bytes.get(id as usize * self.page_size..).unwrap_or_default();
        let Some(head) = rest.first_chunk::<HEADER>() else {
            return Err(damaged(id, "beyond the end of the file"));
        };
        let own = u64::from_le_bytes(*head.first_chunk().expect("16 bytes"));
        if own != id {
            return Err(damaged(id, "its header names another page"));
        }
        let overflow = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if u64::from(overflow) >= self.high - id {
            return Err(damaged(id, "its overflow leaves the file"));
        }
        let len = (overflow as usize + 1) * self.page_size;
        let Some(bytes) = rest.get(..len) else {
            return Err(damaged(id, "beyond the end of the file"));
        };
        Page::parse(bytes, id, overflow)
    }
}

/// A branch or a leaf.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    bytes: &'a [u8],
    pub id: u64,
    pub overflow: u32,
    pub leaf: bool,
    pub count: usize,
}

/// An element of a leaf.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub flags: u32,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> Page<'a> {
    #[inline]
    fn parse(bytes: &'a [u8], id: u64, overflow: u32) -> io::Result<Self> {
        let leaf = match u16::from_le_bytes([bytes[8], bytes[9]]) {
            LEAF => true,
            BRANCH => false,
            _ => return Err(damaged(id, "neither a branch nor a leaf")),
        };
        let count = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        if HEADER + count * ELEMENT > bytes.len() {
            return Err(damaged(id, "more elements than fit"));
        }
        if !leaf && count == 0 {
            return Err(damaged(id, "a branch without children"));
        }
        Ok(Self { bytes, id, overflow, leaf, count })
    }

    /// The page inside a bucket's value; `owner` is the page that holds the value.
    pub fn inline(bytes: &'a [u8], owner: u64) -> io::Result<Self> {
        if bytes.len() < HEADER {
            return Err(damaged(owner, "an inline bucket is cut short"));
        }
        let page = Self::parse(bytes, owner, 0)?;
        if !page.leaf {
            return Err(damaged(owner, "an inline bucket is not a leaf"));
        }
        Ok(page)
    }

    /// How many pages it takes.
    pub fn pages(&self) -> u64 {
        u64::from(self.overflow) + 1
    }

    #[inline]
    fn element(&self, i: usize) -> io::Result<&'a [u8; ELEMENT]> {
        let at = HEADER + i * ELEMENT;
        match self.bytes.get(at..).and_then(|b| b.first_chunk()) {
            Some(element) if i < self.count => Ok(element),
            _ => Err(damaged(self.id, "an element outside of the page")),
        }
    }

    #[inline]
    fn data(&self, i: usize, pos: u32, skip: u32, len: u32) -> io::Result<&'a [u8]> {
        let start = HEADER + i * ELEMENT + pos as usize + skip as usize;
        match self.bytes.get(start..start + len as usize) {
            Some(data) => Ok(data),
            None => Err(damaged(self.id, "a key or a value outside of the page")),
        }
    }

    /// The key of element `i`.
    #[inline]
    pub fn key(&self, i: usize) -> io::Result<&'a [u8]> {
        let e = self.element(i)?;
        let (pos, len) =
            if self.leaf { (word(e, 4), word(e, 8)) } else { (word(e, 0), word(e, 4)) };
        self.data(i, pos, 0, len)
    }

    /// Element `i` of a leaf.
    #[inline]
    pub fn entry(&self, i: usize) -> io::Result<Entry<'a>> {
        let e = self.element(i)?;
        let (flags, pos, key_len, value_len) = (word(e, 0), word(e, 4), word(e, 8), word(e, 12));
        let key = self.data(i, pos, 0, key_len)?;
        let value = self.data(i, pos, key_len, value_len)?;
        Ok(Entry { flags, key, value })
    }

    /// The page that element `i` of a branch leads to.
    #[inline]
    pub fn child(&self, i: usize) -> io::Result<u64> {
        let e = self.element(i)?;
        Ok(u64::from_le_bytes([e[8], e[9], e[10], e[11], e[12], e[13], e[14], e[15]]))
    }

    /// The first element at or after `from` whose key is not below `key`, and whether it is that key.
    #[inline]
    pub fn search(&self, key: &[u8], from: usize) -> io::Result<(usize, bool)> {
        let (mut low, mut high) = (from, self.count);
        while low < high {
            let mid = low + (high - low) / 2;
            match compare(self.key(mid)?, key) {
                Ordering::Less => low = mid + 1,
                Ordering::Equal => return Ok((mid, true)),
                Ordering::Greater => high = mid,
            }
        }
        Ok((low, false))
    }

    /// The child of a branch under which `key` belongs.
    #[inline]
    pub fn child_index(&self, key: &[u8], from: usize) -> io::Result<usize> {
        let (at, exact) = self.search(key, from)?;
        Ok(if exact { at } else { at.saturating_sub(1).max(from) })
    }

    /// Checks what [`Page::key`] leaves to luck: that keys are in order, that none is empty or lies in
    /// the table of elements. With it a page may be trusted whole.
    pub fn check(&self) -> io::Result<()> {
        let mut last: &[u8] = &[];
        for i in 0..self.count {
            let key = if self.leaf { self.entry(i)?.key } else { self.key(i)? };
            let pos = word(self.element(i)?, if self.leaf { 4 } else { 0 }) as usize;
            if pos < (self.count - i) * ELEMENT {
                return Err(damaged(self.id, "a key inside the table of elements"));
            }
            if key <= last {
                return Err(damaged(self.id, "keys out of order"));
            }
            last = key;
        }
        Ok(())
    }
}

/// The order of two keys. Revisions differ in their first sixteen bytes, if at all: two comparisons of numbers, where the
/// one of slices is a call.
#[inline]
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    while let (Some((x, rest_a)), Some((y, rest_b))) =
        (a.split_first_chunk(), b.split_first_chunk())
    {
        match u64::from_be_bytes(*x).cmp(&u64::from_be_bytes(*y)) {
            Ordering::Equal => (a, b) = (rest_a, rest_b),
            unequal => return unequal,
        }
    }
    a.cmp(b)
}

#[inline]
fn word(element: &[u8; ELEMENT], at: usize) -> u32 {
    u32::from_le_bytes([element[at], element[at + 1], element[at + 2], element[at + 3]])
}

/// Appends a page to `out`: header, elements, data; `items` are (flags or child, key, value).
pub(super) fn write<'a, I>(out: &mut Vec<u8>, id: u64, leaf: bool, overflow: u32, items: I)
where
    I: ExactSizeIterator<Item = (u64, &'a [u8], &'a [u8])> + Clone,
{
    let count = items.len();
    let mut head = [0; HEADER];
    head[..8].copy_from_slice(&id.to_le_bytes());
    head[8..10].copy_from_slice(&(if leaf { LEAF } else { BRANCH }).to_le_bytes());
    head[10..12].copy_from_slice(&(count as u16).to_le_bytes());
    head[12..].copy_from_slice(&overflow.to_le_bytes());
    out.extend_from_slice(&head);
    let mut pos = (count * ELEMENT) as u32;
    for (word, key, value) in items.clone() {
        let mut e = [0; ELEMENT];
        if leaf {
            e[..4].copy_from_slice(&(word as u32).to_le_bytes());
            e[4..8].copy_from_slice(&pos.to_le_bytes());
            e[8..12].copy_from_slice(&(key.len() as u32).to_le_bytes());
            e[12..].copy_from_slice(&(value.len() as u32).to_le_bytes());
        } else {
            e[..4].copy_from_slice(&pos.to_le_bytes());
            e[4..8].copy_from_slice(&(key.len() as u32).to_le_bytes());
            e[8..].copy_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&e);
        // Positions count from the element itself. Values of nearly 4 GiB do not come here: the commit
        // bounds them, and a page holds one such value.
        pos = pos.wrapping_add((key.len() + value.len()) as u32).wrapping_sub(ELEMENT as u32);
    }
    for (_, key, value) in items {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
}

/// What a bucket's value says.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// Root of a tree of its own.
    Tree(u64),
    /// A leaf inside the value.
    Inline(Page<'a>),
}

/// Reads a bucket's value in page `owner`: where it lies, and its sequence.
pub(super) fn bucket_place<'a>(value: &'a [u8], owner: u64) -> io::Result<(Place<'a>, u64)> {
    let (Some(root), Some(sequence)) = (u64_at(value, 0), u64_at(value, 8)) else {
        return Err(damaged(owner, "a bucket's value is cut short"));
    };
    if root != 0 {
        return Ok((Place::Tree(root), sequence));
    }
    Ok((Place::Inline(Page::inline(&value[BUCKET_HEAD..], owner)?), sequence))
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn keys_are_ordered_as_slices_are() {
        let whole: Vec<u8> = (0..20).map(|n| n * 13).collect();
        for long in 0..=whole.len() {
            for short in 0..=whole.len() {
                for at in 0..short {
                    for to in [0, 7, 255] {
                        let mut other = whole[..short].to_vec();
                        other[at] = to;
                        let (a, b) = (&whole[..long], &other[..]);
                        assert_eq!(compare(a, b), a.cmp(b), "{a:?} {b:?}");
                    }
                }
            }
        }
    }
}
