//! Walking over a bucket in key order. Not here: anything that changes it.

use std::io;

use crate::fs::prefetch;

use super::page::{IS_BUCKET, MAX_DEPTH, Page, View, compare, damaged};

/// A key and its value, as they lie in the file.
pub type Row<'s> = (&'s [u8], &'s [u8]);

/// A place in a bucket of a snapshot. A new one stands before the first key.
pub struct Cursor<'s> {
    view: View<'s>,
    root: Option<Page<'s>>,
    /// From the root to a leaf: the page, and the element that was taken in it.
    stack: Vec<(Page<'s>, usize)>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    /// On the element on top of the stack.
    On,
    After,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(view: View<'s>, root: Option<Page<'s>>) -> Self {
        Self { view, root, stack: Vec::new(), state: State::Before }
    }

    /// Goes to the first key that is not below `key`, and returns it.
    pub fn seek(&mut self, key: &[u8]) -> io::Result<Option<Row<'s>>> {
        if !self.descend(|page| page.child_index(key, 0))? {
            return self.end(State::After);
        }
        let (leaf, at) = self.stack.last_mut().expect("descended");
        *at = leaf.search(key, 0)?.0;
        self.forward()
    }

    /// Goes to the first key.
    pub fn first(&mut self) -> io::Result<Option<Row<'s>>> {
        if !self.descend(|_| Ok(0))? {
            return self.end(State::After);
        }
        self.forward()
    }

    /// Goes to the last key.
    pub fn last(&mut self) -> io::Result<Option<Row<'s>>> {
        if !self.descend(|page| Ok(page.count.saturating_sub(1)))? {
            return self.end(State::Before);
        }
        let (leaf, at) = self.stack.last_mut().expect("descended");
        *at = leaf.count;
        self.backward()
    }

    /// Goes to the next key, or behind the last one.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> io::Result<Option<Row<'s>>> {
        match self.state {
            State::Before => self.first(),
            State::After => Ok(None),
            State::On => {
                self.stack.last_mut().expect("on a key").1 += 1;
                self.forward()
            }
        }
    }

    /// Goes to the key before, or before the first one.
    pub fn prev(&mut self) -> io::Result<Option<Row<'s>>> {
        match self.state {
            State::Before => Ok(None),
            State::After => self.last(),
            State::On => self.backward(),
        }
    }

    /// The value of exactly this key; the cursor is then on it, or on the key after its place. A key that
    /// lies in the leaf where the cursor is, above all the very next one, or in a leaf beside it, is found
    /// without a descent.
    pub fn get(&mut self, key: &[u8]) -> io::Result<Option<&'s [u8]>> {
        if self.state == State::On
            && let Some((leaf, at)) = self.stack.last_mut()
        {
            let next = *at + 1;
            if next < leaf.count {
                let entry = leaf.entry(next)?;
                if compare(entry.key, key).is_eq() {
                    *at = next;
                    return Ok((entry.flags & IS_BUCKET == 0).then_some(entry.value));
                }
            }
            if !below(key, leaf.key(0)?) && !below(leaf.key(leaf.count - 1)?, key) {
                *at = leaf.search(key, 0)?.0;
                return self.here(key);
            }
            if let Some(parent) = self.stack.len().checked_sub(2)
                && let Some(to) = beside(&self.stack[parent].0, self.stack[parent].1, key)?
            {
                self.stack.truncate(parent + 1);
                self.stack[parent].1 = to;
                self.prefetch_leaf(parent, to + 1);
                let child = self.view.page(self.stack[parent].0.child(to)?)?;
                self.down(child, |page| page.child_index(key, 0))?;
                let (leaf, at) = self.stack.last_mut().expect("went down");
                *at = leaf.search(key, 0)?.0;
                if *at < leaf.count {
                    self.state = State::On;
                    return self.here(key);
                }
            }
        }
        match self.seek(key)? {
            Some((found, value)) if found == key => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// Has the processor fetch the beginning of the leaf that most likely comes next, while this one is read.
    fn prefetch_leaf(&self, parent: usize, child: usize) {
        if let Ok(id) = self.stack[parent].0.child(child) {
            let at = (id as usize).saturating_mul(self.view.page_size);
            prefetch(self.view.bytes.get(at..).unwrap_or_default());
        }
    }

    fn here(&self, key: &[u8]) -> io::Result<Option<&'s [u8]>> {
        let Some((leaf, at)) = self.stack.last() else { return Ok(None) };
        let entry = leaf.entry(*at)?;
        Ok((entry.key == key && entry.flags & IS_BUCKET == 0).then_some(entry.value))
    }

    /// Builds the stack down to a leaf; false if there is no bucket.
    fn descend(&mut self, pick: impl Fn(&Page<'s>) -> io::Result<usize>) -> io::Result<bool> {
        self.stack.clear();
        let Some(root) = self.root else { return Ok(false) };
        self.down(root, pick)?;
        Ok(true)
    }

    fn down(
        &mut self,
        mut page: Page<'s>,
        pick: impl Fn(&Page<'s>) -> io::Result<usize>,
    ) -> io::Result<()> {
        // Whoever went down says where it is; after an error it is nowhere.
        self.state = State::Before;
        loop {
            if self.stack.len() >= MAX_DEPTH {
                return Err(damaged(page.id, "branches nested too deep"));
            }
            if page.leaf {
                self.check_leaf(&page)?;
                self.stack.push((page, 0));
                return Ok(());
            }
            let i = pick(&page)?;
            self.stack.push((page, i));
            page = self.view.page(page.child(i)?)?;
        }
    }

    /// A damaged file must not lead a walk in circles. Leaves whose ends are in order, and that follow
    /// each other in order, come up once each.
    fn check_leaf(&self, leaf: &Page<'s>) -> io::Result<()> {
        if leaf.count == 0 {
            // Only an empty bucket has an empty leaf.
            return if self.stack.is_empty() {
                Ok(())
            } else {
                Err(damaged(leaf.id, "an empty leaf"))
            };
        }
        if below(leaf.key(leaf.count - 1)?, leaf.key(0)?) {
            return Err(damaged(leaf.id, "keys out of order"));
        }
        Ok(())
    }

    /// From the place on top of the stack onwards to a key.
    fn forward(&mut self) -> io::Result<Option<Row<'s>>> {
        loop {
            let Some((leaf, at)) = self.stack.last_mut() else { return self.end(State::After) };
            if *at < leaf.count {
                let entry = leaf.entry(*at)?;
                if entry.flags & IS_BUCKET != 0 {
                    *at += 1;
                    continue;
                }
                self.state = State::On;
                return Ok(Some((entry.key, entry.value)));
            }
            let last = if leaf.count > 0 { leaf.key(leaf.count - 1)? } else { &[] };
            if !self.step(|at, count| (at + 1 < count).then_some(at + 1), |_| 0)? {
                return self.end(State::After);
            }
            let (leaf, at) = self.stack.last_mut().expect("stepped");
            if leaf.key(0)? <= last {
                return Err(damaged(leaf.id, "keys out of order"));
            }
            *at = 0;
        }
    }

    /// From before the place on top of the stack backwards to a key.
    fn backward(&mut self) -> io::Result<Option<Row<'s>>> {
        loop {
            let Some((leaf, at)) = self.stack.last_mut() else { return self.end(State::Before) };
            if *at > 0 {
                *at -= 1;
                let entry = leaf.entry(*at)?;
                if entry.flags & IS_BUCKET != 0 {
                    continue;
                }
                self.state = State::On;
                return Ok(Some((entry.key, entry.value)));
            }
            if leaf.count == 0 {
                return self.end(State::Before);
            }
            let first = leaf.key(0)?;
            if !self.step(|at, _| at.checked_sub(1), |count| count - 1)? {
                return self.end(State::Before);
            }
            let (leaf, at) = self.stack.last_mut().expect("stepped");
            if leaf.key(leaf.count - 1)? >= first {
                return Err(damaged(leaf.id, "keys out of order"));
            }
            *at = leaf.count;
        }
    }

    /// Goes to a neighbouring leaf: up to a branch that has another child, and down again.
    fn step(
        &mut self,
        sideways: impl Fn(usize, usize) -> Option<usize>,
        enter: impl Fn(usize) -> usize,
    ) -> io::Result<bool> {
        self.stack.pop();
        while let Some((branch, at)) = self.stack.last_mut() {
            if let Some(to) = sideways(*at, branch.count) {
                *at = to;
                let child = self.view.page(branch.child(to)?)?;
                self.down(child, |page| Ok(enter(page.count)))?;
                return Ok(true);
            }
            self.stack.pop();
        }
        Ok(false)
    }

    fn end(&mut self, state: State) -> io::Result<Option<Row<'s>>> {
        self.state = state;
        self.stack.clear();
        Ok(None)
    }
}

fn below(a: &[u8], b: &[u8]) -> bool {
    compare(a, b).is_lt()
}

/// The child of a branch under which `key` surely belongs, other than the one at `at`; `None` where the
/// branch does not tell. Most of the time it is the next one.
fn beside(branch: &Page<'_>, at: usize, key: &[u8]) -> io::Result<Option<usize>> {
    let next = at + 1;
    if next + 1 < branch.count
        && !below(key, branch.key(next)?)
        && below(key, branch.key(next + 1)?)
    {
        return Ok(Some(next));
    }
    if below(key, branch.key(0)?) || !below(key, branch.key(branch.count - 1)?) {
        return Ok(None);
    }
    Ok(Some(branch.child_index(key, 0)?).filter(|to| *to != at))
}
