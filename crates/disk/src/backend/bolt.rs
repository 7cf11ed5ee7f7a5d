//! The store over one file: its published root, its writer, and who reads what. Not here: how a batch
//! becomes pages (`commit`), and how the file is found and checked (`open`).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::shrink::CUT;
use super::snapshot::{Root, Snapshot};
use super::space::Space;
use super::{Backend, Batch, Bucket, Committed, Shrunk};
use crate::fs::{File, Mapping};
use crate::mutants::{self, Mutant};

/// etcd's `db` file.
pub struct Bolt {
    current: Mutex<Arc<Root>>,
    writer: Mutex<Writer>,
    /// Bytes of pages that wait for readers of older roots, as of the last commit.
    held: AtomicU64,
}

/// What only the writer touches.
pub(super) struct Writer {
    pub file: Arc<dyn File>,
    pub space: Space,
    pub page_size: usize,
    pub file_len: u64,
    /// The step by which the file grows.
    pub grow: u64,
    /// Pages that commits did not move because the value at the end is longer: it may go when it is its turn.
    pub saved: u64,
    /// Roots that somebody may still read, oldest first; the newest is always one of them.
    pub roots: VecDeque<Weak<Root>>,
    /// After a failed flush: why there are no more commits.
    pub broken: Option<String>,
    /// Room for pages on their way, kept from commit to commit.
    pub buf: Vec<u8>,
}

impl Bolt {
    pub(super) fn new(root: Root, mut writer: Writer) -> Self {
        let root = Arc::new(root);
        writer.roots.push_back(Arc::downgrade(&root));
        Self { current: Mutex::new(root), writer: Mutex::new(writer), held: AtomicU64::new(0) }
    }

    fn current(&self) -> MutexGuard<'_, Arc<Root>> {
        // Only an `Arc` is swapped under it: a panic elsewhere leaves it whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn root(&self) -> Arc<Root> {
        Arc::clone(&self.current())
    }

    /// One commit: the batch and, for an explicit step, up to `shrink` pages moved down.
    fn write(
        &self,
        writer: &mut Writer,
        batch: &mut Batch,
        shrink: Option<usize>,
    ) -> io::Result<Committed> {
        if let Some(why) = &writer.broken {
            return Err(io::Error::other(format!(
                "the database takes no writes since a failed flush: {why}"
            )));
        }
        let base = self.root();
        let (root, done) = writer.commit(&base, batch, shrink)?;
        let root = Arc::new(root);
        writer.roots.push_back(Arc::downgrade(&root));
        let held = writer.space.waiting_pages() * writer.page_size as u64;
        self.held.store(held, Ordering::Relaxed);
        // The old one goes outside of the lock: it may be the last to hold a large view.
        let old = std::mem::replace(&mut *self.current(), root);
        drop(old);
        Ok(done)
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, Writer>> {
        self.writer.lock().map_err(|_| io::Error::other("the database's writer panicked"))
    }

    /// Bytes of pages that no newer root uses, as of the last commit: those of the commit itself, and all
    /// that readers of older roots keep from being used again.
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Length in bytes of the file, its unused end included.
    pub fn file_size(&self) -> io::Result<u64> {
        Ok(self.lock()?.file_len)
    }
}

impl Writer {
    /// The roots that are still read: the oldest one's transaction, and the highest page of any.
    pub fn readers(&mut self) -> (u64, u64) {
        self.roots.retain(|root| root.strong_count() > 0);
        // What the last reader of a root that is gone read, it read before we write over it.
        fence(Ordering::Acquire);
        let live = self.roots.iter().filter_map(Weak::upgrade);
        live.fold((u64::MAX, 0), |(oldest, high), root| {
            (oldest.min(root.meta.txid), high.max(root.meta.high))
        })
    }

    /// A view of the first `len` bytes: the one there is, where it shows later writes and reaches far enough.
    pub fn map(&self, old: Option<&Arc<dyn Mapping>>, len: u64) -> io::Result<Arc<dyn Mapping>> {
        if !self.file.views_are_live() {
            return self.file.map(len);
        }
        if let Some(old) = old
            && old.bytes().len() as u64 >= len
        {
            return Ok(Arc::clone(old));
        }
        // Twice the need: the file then doubles before there is another view.
        self.file.map_ahead((len * 2).max(1 << 30))
    }
}

impl Backend for Bolt {
    fn snapshot(&self) -> Snapshot {
        Snapshot { root: self.root() }
    }

    fn commit(&self, batch: &mut Batch) -> io::Result<Committed> {
        if batch.is_empty() {
            return Ok(Committed { txid: self.root().meta.txid, ..Committed::default() });
        }
        let mut writer = self.lock()?;
        if mutants::on(Mutant::I13766) {
            self.write(&mut writer, &mut batch.take(Bucket::Meta), None)?;
        }
        let done = self.write(&mut writer, batch, None)?;
        batch.clear();
        writer.cut_spare();
        Ok(done)
    }

    fn size(&self) -> u64 {
        self.root().meta.len()
    }

    fn size_in_use(&self) -> u64 {
        self.snapshot().size_in_use()
    }

    fn shrink(&self, pages: usize) -> io::Result<Shrunk> {
        let mut writer = self.lock()?;
        let before = (writer.space.high(), writer.space.waiting_pages());
        let done = self.write(&mut writer, &mut Batch::new(), Some(pages))?;
        let after = (writer.space.high(), writer.space.waiting_pages());
        // With nothing moved, pages that wait may still come free for a next step, if no reader is on them.
        let held = writer.readers().0 < done.txid;
        let more = after.0 < before.0
            || (!held && (done.moved > 0 || after.1 > writer.space.settled_share()));
        writer.cut(if more { CUT } else { 1 })?;
        Ok(Shrunk { moved: done.moved, more })
    }
}
