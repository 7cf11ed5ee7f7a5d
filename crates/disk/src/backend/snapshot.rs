//! Reading: a root that stays as it is for as long as somebody holds it. Not here: how it came about.

use std::io;
use std::sync::Arc;

use super::Bucket;
use super::cursor::Cursor;
use super::meta::Meta;
use super::page::{IS_BUCKET, MAX_DEPTH, Page, Place, View, bucket_place, damaged};
use super::walk;
use crate::fs::Mapping;

/// A committed root.
pub(super) struct Root {
    map: Arc<dyn Mapping>,
    pub meta: Meta,
    /// Where each bucket of [`Bucket::ALL`] starts.
    buckets: [Start; Bucket::ALL.len()],
    /// Pages that are free in it.
    pub free: u64,
}

/// Where a bucket starts; an inline one by its place in the file.
#[derive(Clone, Copy)]
enum Start {
    Missing,
    Page(u64),
    Inline { at: usize, len: usize, owner: u64 },
}

impl Root {
    /// The root of `meta`, read through `map`.
    pub fn new(map: Arc<dyn Mapping>, meta: Meta, free: u64) -> io::Result<Self> {
        let mut root = Self { map, meta, buckets: [Start::Missing; Bucket::ALL.len()], free };
        let view = root.view();
        let mut buckets = root.buckets;
        for (start, bucket) in buckets.iter_mut().zip(Bucket::ALL) {
            let Some((page, i)) = find(view, meta.root, bucket.name())? else { continue };
            let entry = page.entry(i)?;
            if entry.flags & IS_BUCKET == 0 {
                return Err(damaged(page.id, "a key where a bucket belongs"));
            }
            *start = match bucket_place(entry.value, page.id)?.0 {
                Place::Tree(id) => Start::Page(id),
                Place::Inline(_) => {
                    let inline = &entry.value[super::page::BUCKET_HEAD..];
                    let at = inline.as_ptr() as usize - view.bytes.as_ptr() as usize;
                    Start::Inline { at, len: inline.len(), owner: page.id }
                }
            };
        }
        root.buckets = buckets;
        Ok(root)
    }

    pub fn view(&self) -> View<'_> {
        View { bytes: self.map.bytes(), page_size: self.meta.page_size, high: self.meta.high }
    }

    pub fn map(&self) -> &Arc<dyn Mapping> {
        &self.map
    }

    /// The first page of a bucket; `None` if the file has no such bucket.
    #[inline]
    pub fn start<'v>(&self, view: View<'v>, bucket: Bucket) -> io::Result<Option<Page<'v>>> {
        match self.buckets[bucket as usize] {
            Start::Missing => Ok(None),
            Start::Page(id) => Ok(Some(view.page(id)?)),
            Start::Inline { at, len, owner } => {
                let bytes = view.bytes.get(at..at + len).unwrap_or_default();
                Ok(Some(Page::inline(bytes, owner)?))
            }
        }
    }
}

/// The leaf and the element that hold `key` in the tree at `root`.
pub(super) fn find<'a>(
    view: View<'a>,
    root: u64,
    key: &[u8],
) -> io::Result<Option<(Page<'a>, usize)>> {
    find_below(view, view.page(root)?, key)
}

#[inline]
pub(super) fn find_below<'a>(
    view: View<'a>,
    mut page: Page<'a>,
    key: &[u8],
) -> io::Result<Option<(Page<'a>, usize)>> {
    for _ in 0..MAX_DEPTH {
        if page.leaf {
            let (i, found) = page.search(key, 0)?;
            return Ok(found.then_some((page, i)));
        }
        page = view.page(page.child(page.child_index(key, 0)?)?)?;
    }
    Err(damaged(page.id, "branches nested too deep"))
}

fn bucket_names_below(
    view: View<'_>,
    page: u64,
    depth: usize,
    names: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    let page = view.page(page)?;
    if depth == 0 {
        return Err(damaged(page.id, "branches nested too deep"));
    }
    for i in 0..page.count {
        if !page.leaf {
            bucket_names_below(view, page.child(i)?, depth - 1, names)?;
            continue;
        }
        let entry = page.entry(i)?;
        if entry.flags & IS_BUCKET != 0 {
            names.push(entry.key.to_vec());
        }
    }
    Ok(())
}

/// A committed root, and a hold on its pages: they are not written again before the last clone is
/// dropped. Cheap to clone, and to read from many threads. Held for long, it makes the file grow.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) root: Arc<Root>,
}

impl Snapshot {
    /// The value of a key. An error of kind `InvalidData` names a damaged page.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> io::Result<Option<&[u8]>> {
        let view = self.root.view();
        let Some(start) = self.root.start(view, bucket)? else { return Ok(None) };
        let Some((page, i)) = find_below(view, start, key)? else { return Ok(None) };
        let entry = page.entry(i)?;
        Ok((entry.flags & IS_BUCKET == 0).then_some(entry.value))
    }

    /// A cursor before the first key of a bucket.
    pub fn cursor(&self, bucket: Bucket) -> io::Result<Cursor<'_>> {
        let view = self.root.view();
        Ok(Cursor::new(view, self.root.start(view, bucket)?))
    }

    /// The names of all buckets in the file, those that nobody knows included, in order.
    pub fn bucket_names(&self) -> io::Result<Vec<Vec<u8>>> {
        let view = self.root.view();
        let mut names = Vec::new();
        bucket_names_below(view, self.root.meta.root, MAX_DEPTH, &mut names)?;
        Ok(names)
    }

    /// A cursor before the first key of the bucket with this name; `None` if there is no such bucket.
    pub fn cursor_of(&self, name: &[u8]) -> io::Result<Option<Cursor<'_>>> {
        let view = self.root.view();
        let Some((page, i)) = find(view, self.root.meta.root, name)? else { return Ok(None) };
        let entry = page.entry(i)?;
        if entry.flags & IS_BUCKET == 0 {
            return Ok(None);
        }
        let start = match bucket_place(entry.value, page.id)?.0 {
            Place::Tree(id) => view.page(id)?,
            Place::Inline(_) => Page::inline(&entry.value[super::page::BUCKET_HEAD..], page.id)?,
        };
        Ok(Some(Cursor::new(view, Some(start))))
    }

    /// Number of the transaction that made this root.
    pub fn txid(&self) -> u64 {
        self.root.meta.txid
    }

    /// Length in bytes of this root's file: what etcd calls the size of the database.
    pub fn size(&self) -> u64 {
        self.root.meta.len()
    }

    /// The part of [`Snapshot::size`] that is not free.
    pub fn size_in_use(&self) -> u64 {
        self.size() - self.root.free * self.root.meta.page_size as u64
    }

    /// Copies bytes of a database file that holds just this root, and says how many: 0 at the end. All
    /// pieces together, of whatever sizes, are [`Snapshot::size`] bytes.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> usize {
        let (meta, view) = (&self.root.meta, self.root.view());
        let metas = 2 * meta.page_size as u64;
        if offset >= metas {
            let end = meta.len().min(offset + buf.len() as u64);
            let piece = view.bytes.get(offset as usize..end as usize).unwrap_or_default();
            buf[..piece.len()].copy_from_slice(piece);
            return piece.len();
        }
        // Two metas for this one root, the newer one in the slot where the next commit does not write.
        let slot = offset / meta.page_size as u64;
        let txid = if meta.txid % 2 == slot { meta.txid } else { meta.txid.saturating_sub(1) };
        let page = Meta { txid, ..*meta }.page(slot);
        let piece = &page[(offset % meta.page_size as u64) as usize..];
        let len = piece.len().min(buf.len());
        buf[..len].copy_from_slice(&piece[..len]);
        len
    }

    /// Checks the whole file as this root sees it: each page used once, all keys in order, every number
    /// in bounds. How many keys there are; the first damage found is the error.
    pub fn check(&self) -> io::Result<u64> {
        Ok(walk::walk(self.root.view(), &self.root.meta)?.keys)
    }
}
