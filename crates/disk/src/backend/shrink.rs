//! Cutting the file while it serves: live pages at its end move down, the end comes free, and goes. Not
//! here: how a page is moved, which is a write like any other (`Act::Move` in `tree`).

use std::io;

use super::bolt::Writer;
use super::commit::BucketOps;
use super::page::{IS_BUCKET, MAX_DEPTH, Page, Place, View, bucket_place, damaged};
use super::snapshot::Root;
use super::tree::{Act, Op};

/// Fewer free pages than this are not worth a write.
const FEW: u64 = 64;
/// Pages that any commit may move, whatever its size.
const PER_COMMIT: u64 = 8;
/// Free pages from which commits start to move pages by themselves: 16 MiB of 4 KiB pages.
const WORTH_IT: u64 = 4096;
/// Between two steps of an explicit shrinking the file is cut by this much or not at all: a cut is a transaction
/// of the file system, and where it tells the disk what came free it holds up all flushes for tens of milliseconds.
pub const CUT: u64 = 16 << 20;
/// So many pages at the end may be passed over by a commit because nothing below has room for them.
const PASSED_OVER: u32 = 64;

impl Writer {
    /// Chooses pages at the end of the file and adds their moves to the work. `asked` is the bound of an
    /// explicit step; without it, a commit that writes about `expected` pages moves a tenth of that, and
    /// only where a quarter of the file is free. How many pages will move.
    ///
    /// A long value goes with a commit only when it has room further down, and when as many pages as it has
    /// were saved up by commits before: it would move to and fro otherwise, with every small write.
    pub fn plan_moves<'a>(
        &mut self,
        base: &'a Root,
        work: &mut Vec<BucketOps<'a>>,
        expected: u64,
        asked: Option<usize>,
    ) -> io::Result<u64> {
        let (high, free) = (self.space.high(), self.space.free_pages());
        let mut budget = match asked {
            Some(pages) => pages as u64,
            None if free >= WORTH_IT && free >= high / 4 => {
                self.saved + PER_COMMIT.max(expected / 10)
            }
            None => 0,
        };
        // The path to a page is written anew with it, and needs room below too.
        budget = if free <= self.space.settled_share() { 0 } else { budget.min(free / 4) };
        let (view, mut before, mut moved) = (base.view(), high, 0);
        let (mut passed_over, mut room) = (0, 0);
        self.saved = 0;
        while budget > 0 && passed_over < PASSED_OVER {
            let Some(head) = self.space.last_head(before) else { break };
            if self.space.first_free().is_none_or(|low| low > head) {
                break;
            }
            before = head;
            let page = view.page(head)?;
            if asked.is_none() && page.pages() > 1 {
                match self.space.run_from(room, page.pages()).filter(|run| *run < head) {
                    // The next one needs room of its own.
                    Some(run) => room = run + page.pages(),
                    None => {
                        passed_over += 1;
                        continue;
                    }
                }
                if page.pages() > budget {
                    self.saved = budget;
                    break;
                }
            }
            // A page below a nested bucket has no path that we write: it stays, and the file with it.
            let Some((name, key)) = owner(view, base.meta.root, &page)? else { break };
            add_move(work, name, key);
            moved += page.pages();
            budget = budget.saturating_sub(page.pages());
        }
        for bucket in work.iter_mut() {
            bucket.ops.sort_by(|a, b| a.key.cmp(b.key));
        }
        work.sort_by_key(|bucket| bucket.name);
        Ok(moved)
    }

    /// Cuts the file down to what roots that are read need, if that takes `least` bytes and more off it.
    pub fn cut(&mut self, least: u64) -> io::Result<()> {
        let (_, high) = self.readers();
        let need = high.max(self.space.high()) * self.page_size as u64;
        if need + least <= self.file_len {
            self.file.set_len(need)?;
            self.file_len = need;
        }
        Ok(())
    }

    /// After a commit: cuts a spare end that is more than what growing leaves there.
    pub fn cut_spare(&mut self) {
        let (_, high) = self.readers();
        let need = high.max(self.space.high()) * self.page_size as u64 + self.grow;
        // It is tried again after the next commit: a file that stays long harms nobody.
        if need + self.grow <= self.file_len && self.file.set_len(need).is_ok() {
            self.file_len = need;
        }
    }
}

impl super::space::Space {
    /// So few free or waiting pages that the file counts as packed: a fiftieth of it.
    pub fn settled_share(&self) -> u64 {
        FEW.max(self.high() / 50)
    }
}

fn add_move<'a>(work: &mut Vec<BucketOps<'a>>, name: &'a [u8], key: &'a [u8]) {
    let op = Op { key, act: Act::Move };
    match work.iter_mut().find(|bucket| bucket.name == name) {
        Some(bucket) => bucket.ops.push(op),
        None => work.push(BucketOps { name, ops: vec![op] }),
    }
}

/// The top-level bucket in whose tree a page lies, and a key whose path leads through it.
fn owner<'a>(
    view: View<'a>,
    root: u64,
    page: &Page<'a>,
) -> io::Result<Option<(&'a [u8], &'a [u8])>> {
    let key = if page.count > 0 { page.key(0)? } else { &[] };
    let mut leaves = vec![(root, 0)];
    while let Some((id, depth)) = leaves.pop() {
        let top = view.page(id)?;
        if id == page.id {
            return first_bucket(view, top);
        }
        if !top.leaf {
            if depth >= MAX_DEPTH {
                return Err(damaged(id, "branches nested too deep"));
            }
            for i in 0..top.count {
                leaves.push((top.child(i)?, depth + 1));
            }
            continue;
        }
        for i in 0..top.count {
            let entry = top.entry(i)?;
            if entry.flags & IS_BUCKET == 0 {
                continue;
            }
            if let (Place::Tree(tree), _) = bucket_place(entry.value, id)?
                && leads_to(view, tree, key, page.id)?
            {
                return Ok(Some((entry.key, key)));
            }
        }
    }
    Ok(None)
}

/// The way to a page of the root bucket's own tree: a bucket whose entry lies below it, written anew.
fn first_bucket<'a>(
    view: View<'a>,
    mut page: Page<'a>,
) -> io::Result<Option<(&'a [u8], &'a [u8])>> {
    for _ in 0..MAX_DEPTH {
        if page.leaf {
            if page.count == 0 {
                return Ok(None);
            }
            let entry = page.entry(0)?;
            return Ok((entry.flags & IS_BUCKET != 0).then_some((entry.key, &[])));
        }
        page = view.page(page.child(0)?)?;
    }
    Err(damaged(page.id, "branches nested too deep"))
}

fn leads_to(view: View<'_>, mut id: u64, key: &[u8], wanted: u64) -> io::Result<bool> {
    for _ in 0..MAX_DEPTH {
        if id == wanted {
            return Ok(true);
        }
        let page = view.page(id)?;
        if page.leaf {
            return Ok(false);
        }
        id = page.child(page.child_index(key, 0)?)?;
    }
    Err(damaged(id, "branches nested too deep"))
}
