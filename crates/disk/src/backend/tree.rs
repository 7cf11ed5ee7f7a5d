//! One bucket's tree and the sorted writes that go into it: each page on their way is read once and
//! written once, to a new place. Not here: where new pages lie (`space`), and the order of syncs.
//!
//! A merge walks down with the writes and comes back with nodes. The leaves under one branch are settled
//! together (small ones joined with a neighbour), cut into pages and written; branches stay in memory
//! until the whole tree is settled, for one that lost its children may have to join its neighbour, and a
//! branch with a single child is not allowed to reach the file.

use std::io;

use super::output::{Item, Output};
use super::page::{ELEMENT, HEADER, IS_BUCKET, MAX_DEPTH, Page, View, damaged};

/// What is done to a key.
#[derive(Clone, Copy)]
pub(super) enum Act<'a> {
    /// Set it, with the element's flags.
    Put(u32, &'a [u8]),
    /// Remove it.
    Delete,
    /// Write the pages on the way to it again, elsewhere.
    Move,
}

/// One write to a tree.
#[derive(Clone, Copy)]
pub(super) struct Op<'a> {
    pub key: &'a [u8],
    pub act: Act<'a>,
}

/// Where a tree starts.
#[derive(Clone, Copy)]
pub(super) enum Root<'a> {
    Page(u64),
    Inline(Page<'a>),
    Missing,
}

/// Where it starts now.
pub(super) enum NewRoot {
    /// Nothing changed.
    Same,
    Page(u64),
    /// The inline page.
    Inline(Vec<u8>),
}

/// A child of a branch: as it lies in the file, or changed.
enum Child<'a> {
    Kept(Item<'a>),
    New(Node<'a>),
}

/// A changed page, not written yet.
struct Node<'a> {
    body: Body<'a>,
    /// It has lost something: see whether it is too small now.
    shrunk: bool,
}

enum Body<'a> {
    Leaf(Vec<Item<'a>>),
    Branch(Vec<Child<'a>>),
}

impl<'a> Child<'a> {
    fn key(&self) -> &'a [u8] {
        match self {
            Child::Kept(item) => item.key,
            Child::New(node) => match &node.body {
                Body::Leaf(items) => items.first().map_or(&[], |item| item.key),
                Body::Branch(children) => children.first().map_or(&[], Child::key),
            },
        }
    }
}

impl Node<'_> {
    fn len(&self) -> usize {
        match &self.body {
            Body::Leaf(items) => items.len(),
            Body::Branch(children) => children.len(),
        }
    }

    fn size(&self) -> usize {
        HEADER
            + match &self.body {
                Body::Leaf(items) => items.iter().map(Item::size).sum::<usize>(),
                Body::Branch(children) => children.iter().map(|c| ELEMENT + c.key().len()).sum(),
            }
    }
}

/// Merges sorted writes into trees of one file.
pub(super) struct Merge<'a, 'o, 'w> {
    pub view: View<'a>,
    pub out: &'o mut Output<'w>,
    /// How many bytes of a page are filled when there is more than a page of them.
    pub fill: usize,
}

impl<'a> Merge<'a, '_, '_> {
    /// Does `ops`, which are sorted by key, to the tree at `root`.
    pub fn run(&mut self, root: Root<'a>, ops: &[Op<'a>], may_inline: bool) -> io::Result<NewRoot> {
        let page = match root {
            Root::Page(id) => Some(self.view.page(id)?),
            Root::Inline(page) => Some(page),
            Root::Missing => None,
        };
        let mut node = match page {
            None => Node { body: Body::Leaf(merge_leaf(None, ops)?.0), shrunk: false },
            Some(page) => match self.merge(page, ops, 0)? {
                None => return Ok(NewRoot::Same),
                Some(node) => node,
            },
        };
        if let (Some(page), Root::Page(_)) = (&page, root) {
            self.out.give(page);
        }
        // A root with one child is not needed.
        loop {
            match &mut node.body {
                Body::Branch(children) if children.len() == 1 => match children.pop() {
                    Some(Child::Kept(item)) => return Ok(NewRoot::Page(item.word)),
                    Some(Child::New(child)) => node = child,
                    None => break,
                },
                Body::Branch(children) if children.is_empty() => node.body = Body::Leaf(Vec::new()),
                _ => break,
            }
        }
        if may_inline && let Some(inline) = self.inline(&node) {
            return Ok(NewRoot::Inline(inline));
        }
        let mut refs = self.write(node)?;
        while refs.len() > 1 {
            let level = std::mem::take(&mut refs);
            self.cut(false, &level, &mut refs)?;
        }
        Ok(NewRoot::Page(refs[0].word))
    }

    /// The node as an inline page, if it is small and plain enough.
    fn inline(&self, node: &Node<'a>) -> Option<Vec<u8>> {
        let Body::Leaf(items) = &node.body else { return None };
        let plain = items.iter().all(|item| item.word & u64::from(IS_BUCKET) == 0);
        if !plain || node.size() > self.out.page_size / 4 {
            return None;
        }
        let mut bytes = Vec::with_capacity(node.size());
        super::page::write(&mut bytes, 0, true, 0, items.iter().map(|i| (i.word, i.key, i.value)));
        Some(bytes)
    }

    /// The page with the writes done to it; `None` if they change nothing. Giving the page up is left to
    /// the caller.
    fn merge(
        &mut self,
        page: Page<'a>,
        ops: &[Op<'a>],
        depth: usize,
    ) -> io::Result<Option<Node<'a>>> {
        if page.leaf {
            let (items, changed, shrunk) = merge_leaf(Some(page), ops)?;
            return Ok(changed.then_some(Node { body: Body::Leaf(items), shrunk }));
        }
        if depth >= MAX_DEPTH {
            return Err(damaged(page.id, "branches nested too deep"));
        }
        let mut children = Vec::with_capacity(page.count);
        let (mut at, mut changed, mut rest) = (0, false, ops);
        while let Some(op) = rest.first() {
            let i = page.child_index(op.key, at)?;
            keep(&page, at..i, &mut children)?;
            let mine = if i + 1 < page.count {
                let end = page.key(i + 1)?;
                rest.partition_point(|op| op.key < end)
            } else {
                rest.len()
            };
            if mine == 0 {
                return Err(damaged(page.id, "keys out of order"));
            }
            let (now, later) = rest.split_at(mine);
            let below = self.view.page(page.child(i)?)?;
            match self.merge(below, now, depth + 1)? {
                None => keep(&page, i..i + 1, &mut children)?,
                Some(node) => {
                    changed = true;
                    self.out.give(&below);
                    children.push(Child::New(node));
                }
            }
            (at, rest) = (i + 1, later);
        }
        if !changed {
            return Ok(None);
        }
        keep(&page, at..page.count, &mut children)?;
        let children = self.settle(children)?;
        let shrunk = children.len() < page.count;
        Ok(Some(Node { body: Body::Branch(self.write_leaves(children)?), shrunk }))
    }

    /// Drops empty children, and joins those that are too small with a neighbour.
    fn settle(&mut self, children: Vec<Child<'a>>) -> io::Result<Vec<Child<'a>>> {
        let mut done: Vec<Child<'a>> = Vec::with_capacity(children.len());
        for mut child in children {
            if matches!(&child, Child::New(node) if node.len() == 0) {
                continue;
            }
            loop {
                match (done.last(), &child) {
                    // Both are written anew in any case: pack them well.
                    (Some(Child::New(a)), Child::New(b)) if self.sparse(a) || self.sparse(b) => {}
                    (Some(Child::New(a)), Child::Kept(_)) if self.too_small(a) => {}
                    (Some(Child::Kept(_)), Child::New(b)) if self.too_small(b) => {}
                    _ => break,
                }
                let left = done.pop().expect("matched");
                let (left, right) = (self.open(left)?, self.open(child)?);
                child = Child::New(self.join(left, right)?);
            }
            done.push(child);
        }
        Ok(done)
    }

    fn too_small(&self, node: &Node<'a>) -> bool {
        match &node.body {
            Body::Branch(children) if children.len() < 2 => true,
            _ => node.shrunk && node.size() <= self.fill / 2,
        }
    }

    fn sparse(&self, node: &Node<'a>) -> bool {
        self.too_small(node) || (node.shrunk && node.size() <= self.fill / 5 * 4)
    }

    /// The child as a node; one that lies in the file is given up there.
    fn open(&mut self, child: Child<'a>) -> io::Result<Node<'a>> {
        let item = match child {
            Child::New(node) => return Ok(node),
            Child::Kept(item) => item,
        };
        let page = self.view.page(item.word)?;
        let body = if page.leaf {
            Body::Leaf(merge_leaf(Some(page), &[])?.0)
        } else {
            let mut children = Vec::with_capacity(page.count);
            keep(&page, 0..page.count, &mut children)?;
            Body::Branch(children)
        };
        self.out.give(&page);
        Ok(Node { body, shrunk: false })
    }

    /// Two neighbours as one. Where their border shows a branch that is still too small, it is settled.
    fn join(&mut self, left: Node<'a>, right: Node<'a>) -> io::Result<Node<'a>> {
        let shrunk = left.shrunk || right.shrunk;
        let body = match (left.body, right.body) {
            (Body::Leaf(mut a), Body::Leaf(b)) => {
                a.extend(b);
                Body::Leaf(a)
            }
            (Body::Branch(mut a), Body::Branch(b)) => {
                a.extend(b);
                Body::Branch(self.settle(a)?)
            }
            _ => return Err(damaged(0, "leaves at different depths")),
        };
        Ok(Node { body, shrunk })
    }

    /// Writes the children that are leaves: nothing can ask for them to be joined again.
    fn write_leaves(&mut self, children: Vec<Child<'a>>) -> io::Result<Vec<Child<'a>>> {
        let leaf =
            |child: &Child<'a>| matches!(child, Child::New(Node { body: Body::Leaf(_), .. }));
        if !children.iter().any(leaf) {
            return Ok(children);
        }
        let mut written = Vec::with_capacity(children.len());
        for child in children {
            match child {
                Child::New(node @ Node { body: Body::Leaf(_), .. }) => {
                    written.extend(self.write(node)?.into_iter().map(Child::Kept));
                }
                other => written.push(other),
            }
        }
        Ok(written)
    }

    /// Writes a node and all below it that is not written, as one page or several.
    fn write(&mut self, node: Node<'a>) -> io::Result<Vec<Item<'a>>> {
        let mut refs = Vec::new();
        match node.body {
            Body::Leaf(items) => self.cut(true, &items, &mut refs)?,
            Body::Branch(children) => {
                let mut items = Vec::with_capacity(children.len());
                for child in children {
                    match child {
                        Child::Kept(item) => items.push(item),
                        Child::New(node) => items.extend(self.write(node)?),
                    }
                }
                self.cut(false, &items, &mut refs)?;
            }
        }
        Ok(refs)
    }

    /// Cuts items into pages. All in one page if they fit; otherwise each is filled to the bucket's mark,
    /// and the last one takes the rest.
    fn cut(&mut self, leaf: bool, items: &[Item<'a>], refs: &mut Vec<Item<'a>>) -> io::Result<()> {
        let page_size = self.out.page_size;
        let least = if leaf { 1 } else { 2 };
        let mut rest = items;
        let mut left: usize = items.iter().map(Item::size).sum();
        loop {
            let mut count = rest.len();
            if HEADER + left > page_size && rest.len() >= 2 * least {
                let mut size = HEADER;
                for (i, item) in rest.iter().enumerate() {
                    // A page with overflow is filled to its end: that room is there already.
                    let full = if size <= self.fill {
                        self.fill
                    } else {
                        size.next_multiple_of(page_size)
                    };
                    if i >= least && size + item.size() > full {
                        count = i.min(rest.len() - least);
                        break;
                    }
                    size += item.size();
                }
            }
            let (now, later) = rest.split_at(count);
            let word = self.out.page(leaf, now)?;
            refs.push(Item { key: now.first().map_or(&[], |item| item.key), value: &[], word });
            left -= now.iter().map(Item::size).sum::<usize>();
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }
}

/// Takes children of a branch as they are.
fn keep<'a>(
    page: &Page<'a>,
    range: std::ops::Range<usize>,
    to: &mut Vec<Child<'a>>,
) -> io::Result<()> {
    for i in range {
        to.push(Child::Kept(Item { key: page.key(i)?, value: &[], word: page.child(i)? }));
    }
    Ok(())
}

/// A leaf with the writes done to it: its items, whether anything changed, and whether it lost any.
fn merge_leaf<'a>(
    page: Option<Page<'a>>,
    ops: &[Op<'a>],
) -> io::Result<(Vec<Item<'a>>, bool, bool)> {
    let count = page.map_or(0, |page| page.count);
    let mut items = Vec::with_capacity(count + ops.len());
    let (mut at, mut changed, mut shrunk) = (0, false, false);
    for op in ops {
        let mut old = None;
        if let Some(page) = page.filter(|page| at < page.count) {
            let (i, found) = if page.key(count - 1)? < op.key {
                (count, false)
            } else {
                page.search(op.key, at)?
            };
            take(&page, at..i, &mut items)?;
            at = i;
            if found && !matches!(op.act, Act::Move) {
                old = Some(page.entry(i)?);
                at += 1;
            }
        }
        match op.act {
            Act::Move => changed = true,
            Act::Delete => {
                // A bucket goes only as a bucket, and nobody asks for that.
                check_kind(page, old.map(|e| e.flags), 0)?;
                shrunk |= old.is_some();
                changed |= old.is_some();
            }
            Act::Put(flags, value) => {
                check_kind(page, old.map(|e| e.flags), flags)?;
                changed = true;
                items.push(Item { key: op.key, value, word: u64::from(flags) });
            }
        }
    }
    if let Some(page) = page {
        take(&page, at..count, &mut items)?;
    }
    Ok((items, changed, shrunk))
}

fn check_kind(page: Option<Page<'_>>, old: Option<u32>, new: u32) -> io::Result<()> {
    match old {
        Some(old) if old & IS_BUCKET != new & IS_BUCKET => {
            Err(damaged(page.map_or(0, |p| p.id), "a key and a bucket of the same name"))
        }
        _ => Ok(()),
    }
}

fn take<'a>(
    page: &Page<'a>,
    range: std::ops::Range<usize>,
    to: &mut Vec<Item<'a>>,
) -> io::Result<()> {
    for i in range {
        let entry = page.entry(i)?;
        to.push(Item { key: entry.key, value: entry.value, word: u64::from(entry.flags) });
    }
    Ok(())
}
