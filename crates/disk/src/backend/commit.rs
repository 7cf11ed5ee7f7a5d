//! A commit: the writes of a batch into the trees of their buckets, the buckets into the root, all pages
//! to the file, flush, the meta page, flush. Not here: the trees themselves (`tree`).

use std::io;
use std::sync::Arc;

use super::batch::Write;
use super::bolt::Writer;
use super::meta::{Meta, NO_FREELIST};
use super::output::Output;
use super::page::{BUCKET_HEAD, IS_BUCKET, Place, View, bucket_place, damaged};
use super::snapshot::{Root, find};
use super::tree::{Act, Merge, NewRoot, Op, Root as TreeRoot};
use super::walk::freelist_pages;
use super::{Batch, Bucket, Committed};
use crate::mutants::{self, Mutant};

/// Longest key that bbolt takes.
const MAX_KEY: usize = 32_768;
/// Longest value that bbolt takes.
const MAX_VALUE: usize = (1 << 31) - 2;

/// The writes for one bucket, by its name in the file.
pub(super) struct BucketOps<'a> {
    pub name: &'a [u8],
    pub ops: Vec<Op<'a>>,
}

impl Writer {
    /// Writes `batch` on top of `base`. On an error nothing has changed, or the writer is broken.
    pub fn commit(
        &mut self,
        base: &Arc<Root>,
        batch: &mut Batch,
        shrink: Option<usize>,
    ) -> io::Result<(Root, Committed)> {
        batch.sort();
        let mut work = gather(batch)?;
        let (oldest, _) = self.readers();
        let expected = (batch.bytes() / self.page_size) as u64;
        self.space.begin(oldest, expected, shrink.is_some());
        let moved = self.plan_moves(base, &mut work, expected, shrink)?;
        let mut buf = std::mem::take(&mut self.buf);
        let result = self.write_pages(base, &work, &mut buf);
        self.buf = buf;
        let (meta, pages) = result.inspect_err(|_| self.space.rollback())?;
        // From here on an error leaves unknown what the file holds.
        let flush = shrink.is_none() || !mutants::on(Mutant::I14685);
        let root =
            self.finish(base, meta, flush).inspect_err(|e| self.broken = Some(e.to_string()))?;
        Ok((root, Committed { txid: meta.txid, pages, moved }))
    }

    /// All pages of the new root, and its meta; nothing of it counts yet.
    fn write_pages(
        &mut self,
        base: &Root,
        work: &[BucketOps<'_>],
        buf: &mut Vec<u8>,
    ) -> io::Result<(Meta, u64)> {
        let (view, old) = (base.view(), base.meta);
        let mut out = Output::new(
            &*self.file,
            &mut self.space,
            buf,
            self.page_size,
            self.file_len,
            self.grow,
        );
        let mut values = Vec::with_capacity(work.len());
        for bucket in work {
            if let Some(value) = write_bucket(view, old.root, &mut out, bucket)? {
                values.push((bucket.name, value));
            }
        }
        let ops: Vec<_> = values
            .iter()
            .map(|(name, value)| Op { key: name, act: Act::Put(IS_BUCKET, value) })
            .collect();
        let fill = fill(self.page_size, b"");
        let root =
            Merge { view, out: &mut out, fill }.run(TreeRoot::Page(old.root), &ops, false)?;
        let root = match root {
            NewRoot::Page(id) => id,
            NewRoot::Same | NewRoot::Inline(_) => old.root,
        };
        if old.freelist != NO_FREELIST {
            out.space.give(old.freelist, freelist_pages(view, old.freelist)?);
        }
        let high = out.space.settled_high();
        let meta = Meta { root, freelist: NO_FREELIST, high, txid: old.txid + 1, ..old };
        out.make_room(meta.len())?;
        out.flush()?;
        let (pages, file_len) = (out.pages, out.file_len);
        self.file_len = file_len;
        Ok((meta, pages))
    }

    /// Makes the pages durable, then the meta page that makes them count.
    fn finish(&mut self, base: &Root, meta: Meta, flush: bool) -> io::Result<Root> {
        if flush {
            self.file.sync()?;
        }
        let slot = meta.txid % 2;
        self.file.write_at(&meta.page(slot), slot * self.page_size as u64)?;
        self.file.sync()?;
        self.space.commit(meta.txid);
        let map = self.map(Some(base.map()), meta.len())?;
        Root::new(map, meta, self.space.free_pages())
    }
}

/// How many bytes of a page are filled when there is more than one page of them. Revisions only ever come
/// at the end, so their pages are filled; other buckets leave room for what comes in between.
fn fill(page_size: usize, name: &[u8]) -> usize {
    if name == Bucket::Key.name() { page_size } else { page_size / 2 }
}

/// The batch as operations by bucket, in the order of the buckets' names.
fn gather(batch: &Batch) -> io::Result<Vec<BucketOps<'_>>> {
    let mut work = Vec::with_capacity(Bucket::ALL.len());
    for bucket in Bucket::ALL {
        let writes = batch.writes(bucket);
        if !writes.is_empty() {
            let ops = writes.iter().map(op).collect::<io::Result<_>>()?;
            work.push(BucketOps { name: bucket.name(), ops });
        }
    }
    work.sort_by_key(|bucket| bucket.name);
    Ok(work)
}

fn op(write: &Write) -> io::Result<Op<'_>> {
    let key = write.key.as_slice();
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    match &write.value {
        _ if key.is_empty() => refuse("an empty key"),
        _ if key.len() > MAX_KEY => refuse("a key longer than 32768 bytes"),
        Some(value) if value.len() > MAX_VALUE => refuse("a value of 2 GiB or more"),
        Some(value) => Ok(Op { key, act: Act::Put(0, value) }),
        None => Ok(Op { key, act: Act::Delete }),
    }
}

/// One bucket's tree; the bucket's new value, if it changed.
fn write_bucket(
    view: View<'_>,
    root: u64,
    out: &mut Output<'_>,
    bucket: &BucketOps<'_>,
) -> io::Result<Option<Vec<u8>>> {
    let (tree, sequence) = match find(view, root, bucket.name)? {
        None => (TreeRoot::Missing, 0),
        Some((page, i)) => {
            let entry = page.entry(i)?;
            if entry.flags & IS_BUCKET == 0 {
                return Err(damaged(page.id, "a key where a bucket belongs"));
            }
            match bucket_place(entry.value, page.id)? {
                (Place::Tree(id), sequence) => (TreeRoot::Page(id), sequence),
                (Place::Inline(inline), sequence) => (TreeRoot::Inline(inline), sequence),
            }
        }
    };
    let fill = fill(out.page_size, bucket.name);
    let (id, inline) = match (Merge { view, out, fill }).run(tree, &bucket.ops, true)? {
        NewRoot::Same => return Ok(None),
        NewRoot::Page(id) => (id, Vec::new()),
        NewRoot::Inline(page) => (0, page),
    };
    let mut value = Vec::with_capacity(BUCKET_HEAD + inline.len());
    value.extend_from_slice(&id.to_le_bytes());
    value.extend_from_slice(&sequence.to_le_bytes());
    value.extend_from_slice(&inline);
    Ok(Some(value))
}
