//! What a commit writes: pages serialized one behind the other, and written in as few calls as their
//! places allow. Not here: which pages, and in what order they become durable.

use std::io;

use super::page::{self, ELEMENT, HEADER};
use super::space::Space;
use crate::fs::File;

/// Buffered bytes that are written at once, early: small enough to stay in the processor's cache.
const FLUSH: usize = 1 << 20;

/// Something that goes on a page: for a leaf its flags, key and value; for a branch the child and key.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub word: u64,
}

impl Item<'_> {
    #[inline]
    pub fn size(&self) -> usize {
        ELEMENT + self.key.len() + self.value.len()
    }
}

/// The pages of one commit on their way to the file.
pub(super) struct Output<'w> {
    pub space: &'w mut Space,
    pub page_size: usize,
    file: &'w dyn File,
    /// Length of the file, and the step it grows by.
    pub file_len: u64,
    grow: u64,
    buf: &'w mut Vec<u8>,
    /// Place in the file of the start of `buf`, and of what would follow its end.
    start: u64,
    next: u64,
    pub pages: u64,
}

impl<'w> Output<'w> {
    pub fn new(
        file: &'w dyn File,
        space: &'w mut Space,
        buf: &'w mut Vec<u8>,
        page_size: usize,
        file_len: u64,
        grow: u64,
    ) -> Self {
        buf.clear();
        Self { space, page_size, file, file_len, grow, buf, start: 0, next: 0, pages: 0 }
    }

    /// Puts a page on its way and says where it will be.
    pub fn page(&mut self, leaf: bool, items: &[Item<'_>]) -> io::Result<u64> {
        let size = HEADER + items.iter().map(Item::size).sum::<usize>();
        let pages = size.div_ceil(self.page_size);
        let id = self.space.take(pages as u64);
        let at = id * self.page_size as u64;
        if at != self.next || self.buf.len() >= FLUSH {
            self.flush()?;
            self.start = at;
        }
        let begin = self.buf.len();
        self.buf.reserve(pages * self.page_size);
        let items = items.iter().map(|i| (i.word, i.key, i.value));
        page::write(self.buf, id, leaf, (pages - 1) as u32, items);
        self.buf.resize(begin + pages * self.page_size, 0);
        self.next = at + (pages * self.page_size) as u64;
        self.pages += pages as u64;
        Ok(id)
    }

    /// Gives up a page that older roots use.
    pub fn give(&mut self, page: &page::Page<'_>) {
        self.space.give(page.id, page.pages());
    }

    /// Writes what is buffered, after making room for it.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        self.make_room(self.next)?;
        self.file.write_at(self.buf, self.start)?;
        self.buf.clear();
        Ok(())
    }

    /// Sees to it that the file has `len` bytes, and a step more if it has to grow.
    pub fn make_room(&mut self, len: u64) -> io::Result<()> {
        if len > self.file_len {
            let wanted = len + self.grow;
            self.file.allocate(wanted)?;
            self.file_len = wanted;
        }
        Ok(())
    }
}
