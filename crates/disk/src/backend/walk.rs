//! The walk over everything that a root reaches: it finds the free pages of a file that does not list
//! them, and is the check of the whole structure. Memory: two bits a page, whatever the file holds.

use std::io;

use super::bits::Bits;
use super::meta::{Meta, NO_FREELIST};
use super::page::{
    IS_BUCKET, MAX_DEPTH, Page, Place, View, bucket_place, damaged, u16_at, u32_at, u64_at,
};

const FREELIST: u16 = 16;

/// What was found.
pub(super) struct Reached {
    /// Pages in use, those of the meta and of overflow included.
    pub used: Bits,
    /// Pages in use at which a branch or a leaf starts.
    pub heads: Bits,
    /// Keys that are not buckets.
    pub keys: u64,
}

/// Walks all buckets, checking each page and the order of all keys.
pub(super) fn walk(view: View<'_>, meta: &Meta) -> io::Result<Reached> {
    let mut walker = Walker {
        view,
        reached: Reached { used: Bits::new(meta.high), heads: Bits::new(meta.high), keys: 0 },
        buckets: vec![(meta.root, 0)],
    };
    walker.reached.used.set(0);
    walker.reached.used.set(1);
    if meta.freelist != NO_FREELIST {
        let pages = freelist_pages(view, meta.freelist)?;
        walker.mark(meta.freelist, pages)?;
    }
    while let Some((root, depth)) = walker.buckets.pop() {
        walker.tree(root, depth)?;
    }
    Ok(walker.reached)
}

/// How many pages the written free list takes. Its content is not used: the walk knows better.
pub(super) fn freelist_pages(view: View<'_>, id: u64) -> io::Result<u64> {
    let bytes = view.bytes.get(id as usize * view.page_size..).unwrap_or_default();
    let head = (u64_at(bytes, 0), u16_at(bytes, 8), u32_at(bytes, 12));
    let (Some(own), Some(FREELIST), Some(overflow)) = head else {
        return Err(damaged(id, "not the free list that the meta page names"));
    };
    if own != id || u64::from(overflow) >= view.high - id {
        return Err(damaged(id, "the free list leaves the file"));
    }
    Ok(u64::from(overflow) + 1)
}

struct Walker<'a> {
    view: View<'a>,
    reached: Reached,
    /// Buckets still to be walked, and how deep they are nested.
    buckets: Vec<(u64, usize)>,
}

/// A page to look at, and the keys that its keys must lie between: not below the first, below the second.
struct Step<'a> {
    page: u64,
    depth: usize,
    low: &'a [u8],
    high: Option<&'a [u8]>,
}

impl<'a> Walker<'a> {
    fn mark(&mut self, id: u64, pages: u64) -> io::Result<()> {
        for page in id..id + pages {
            if self.reached.used.get(page) {
                return Err(damaged(page, "used twice"));
            }
            self.reached.used.set(page);
        }
        Ok(())
    }

    /// All pages of one bucket, with a stack of our own: no file can make it deep.
    fn tree(&mut self, root: u64, nesting: usize) -> io::Result<()> {
        let mut leaf_depth = None;
        let mut steps = vec![Step { page: root, depth: 0, low: &[], high: None }];
        while let Some(step) = steps.pop() {
            let page = self.view.page(step.page)?;
            self.mark(page.id, page.pages())?;
            self.reached.heads.set(page.id);
            page.check()?;
            if page.count > 0 {
                let (first, last) = (page.key(0)?, page.key(page.count - 1)?);
                if first < step.low || step.high.is_some_and(|high| last >= high) {
                    return Err(damaged(page.id, "keys outside of the range of its branch"));
                }
            }
            if page.leaf {
                if *leaf_depth.get_or_insert(step.depth) != step.depth {
                    return Err(damaged(page.id, "a leaf at another depth than the others"));
                }
                self.leaf(page, nesting)?;
                continue;
            }
            if step.depth >= MAX_DEPTH {
                return Err(damaged(page.id, "branches nested too deep"));
            }
            for i in (0..page.count).rev() {
                let high = if i + 1 < page.count { Some(page.key(i + 1)?) } else { step.high };
                steps.push(Step {
                    page: page.child(i)?,
                    depth: step.depth + 1,
                    low: page.key(i)?,
                    high,
                });
            }
        }
        Ok(())
    }

    fn leaf(&mut self, page: Page<'a>, nesting: usize) -> io::Result<()> {
        for i in 0..page.count {
            let entry = page.entry(i)?;
            if entry.flags & IS_BUCKET == 0 {
                self.reached.keys += 1;
                continue;
            }
            if nesting >= MAX_DEPTH {
                return Err(damaged(page.id, "buckets nested too deep"));
            }
            match bucket_place(entry.value, page.id)?.0 {
                Place::Tree(root) => self.buckets.push((root, nesting + 1)),
                Place::Inline(inline) => {
                    inline.check()?;
                    // An inline bucket holds no buckets: nothing below it to walk.
                    self.reached.keys += inline.count as u64;
                }
            }
        }
        Ok(())
    }
}
