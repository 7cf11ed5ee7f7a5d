//! The B+tree of keys: leaves with records, inner nodes that know how many keys below each child are
//! alive. Not here: what a record means, and passes over many keys (`walk`, `compact`).
//!
//! Every leaf is at the same depth; a node other than the root is never empty; leaves are chained in
//! the order of keys. A separator is the shortest text above everything to its left and not above the
//! smallest key to its right.

use super::arena::{Arena, NONE};
use super::keys::{KEY_STEP, Keys, grow, shared};
use super::record::Record;

/// The most keys of a leaf, and the most children of an inner node.
const FULL: usize = 64;
/// A node with fewer is joined with a neighbour.
const FEW: usize = 16;
/// A node with more text than this is full too, so that long keys do not make for long moves.
const FULL_TEXT: usize = 16 << 10;
/// Keys that a node takes however long they are.
const ALWAYS: usize = 8;
/// More levels than any memory holds: a node that was split has at least four children.
const LEVELS: usize = 24;

/// Keys and their records.
#[derive(Debug)]
pub(super) struct Leaf {
    pub keys: Keys,
    pub records: Vec<Record>,
    /// The leaf with the next keys, or `NONE`.
    pub next: u32,
}

#[derive(Debug, Default)]
struct Inner {
    /// One fewer than children: the key between each two.
    keys: Keys,
    children: Vec<u32>,
    /// How many keys below each child are alive.
    live: Vec<u64>,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    leaves: Arena<Leaf>,
    inners: Arena<Inner>,
    root: u32,
    /// Levels of inner nodes above the leaves.
    height: usize,
    len: u64,
    live: u64,
}

/// The inner nodes from the root down to a leaf, and which child was taken in each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    steps: [(u32, u32); LEVELS],
    len: usize,
}

impl Default for Leaf {
    fn default() -> Self {
        Self { keys: Keys::default(), records: Vec::new(), next: NONE }
    }
}

impl Default for Tree {
    fn default() -> Self {
        let mut leaves = Arena::default();
        let root = leaves.add(Leaf::default());
        Self { leaves, inners: Arena::default(), root, height: 0, len: 0, live: 0 }
    }
}

fn is_full(entries: usize, keys: &Keys) -> bool {
    entries > FULL || (entries > ALWAYS && keys.text_len() > FULL_TEXT)
}

fn is_small(entries: usize, keys: &Keys) -> bool {
    entries < 2 || (entries < FEW && keys.text_len() < FULL_TEXT / 4)
}

impl Leaf {
    fn live(&self) -> u64 {
        self.records.iter().filter(|record| record.is_alive()).count() as u64
    }

    /// The keys from `at` on, in a leaf of their own that is chained behind this one.
    fn split_off(&mut self, at: usize) -> Self {
        let keys = self.keys.split_off(at);
        let records = self.records.split_off(at);
        self.records.shrink_to(at + KEY_STEP);
        Self { keys, records, next: self.next }
    }
}

impl Inner {
    /// The children from `at` on, and the separator before them.
    fn split_off(&mut self, at: usize) -> (Vec<u8>, Self) {
        let keys = self.keys.split_off(at);
        let separator = self.keys.key(at - 1);
        self.keys.remove(at - 1);
        let right =
            Self { keys, children: self.children.split_off(at), live: self.live.split_off(at) };
        (separator, right)
    }
}

/// The shortest text above all keys of `left` and not above those of `right`.
fn separator(left: &Keys, right: &Keys) -> Vec<u8> {
    let mut first = right.key(0);
    let last = left.key(left.len() - 1);
    first.truncate(shared(&last, &first) + 1);
    first
}

impl Tree {
    /// Number of keys.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Number of keys that are alive.
    pub fn live(&self) -> u64 {
        self.live
    }

    pub fn leaf(&self, id: u32) -> &Leaf {
        &self.leaves[id]
    }

    pub fn leaf_mut(&mut self, id: u32) -> &mut Leaf {
        &mut self.leaves[id]
    }

    /// The leaf where the key is or would be.
    pub fn find(&self, key: &[u8]) -> u32 {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node];
            node = inner.children[child_of(inner, key)];
        }
        node
    }

    /// The same, with the way there.
    pub fn find_path(&self, key: &[u8]) -> (Path, u32) {
        let mut path = Path { steps: [(0, 0); LEVELS], len: self.height };
        let mut node = self.root;
        for step in &mut path.steps[..self.height] {
            let inner = &self.inners[node];
            let child = child_of(inner, key);
            *step = (node, child as u32);
            node = inner.children[child];
        }
        (path, node)
    }

    /// The same, and where the keys end that belong to that leaf.
    pub fn find_place(&self, key: &[u8]) -> (Path, u32, Option<Vec<u8>>) {
        let (path, id) = self.find_path(key);
        let end = path.steps[..path.len].iter().rev().find_map(|(node, child)| {
            let keys = &self.inners[*node].keys;
            ((*child as usize) < keys.len()).then(|| keys.key(*child as usize))
        });
        (path, id, end)
    }

    /// How many keys below this one are alive.
    pub fn live_below(&self, key: &[u8]) -> u64 {
        let mut node = self.root;
        let mut live = 0;
        for _ in 0..self.height {
            let inner = &self.inners[node];
            let child = child_of(inner, key);
            live += inner.live[..child].iter().sum::<u64>();
            node = inner.children[child];
        }
        let leaf = &self.leaves[node];
        let (Ok(end) | Err(end)) = leaf.keys.search(key);
        live + leaf.records[..end].iter().filter(|record| record.is_alive()).count() as u64
    }

    /// Counts a birth or a death below the path.
    pub fn count(&mut self, path: &Path, born: bool) {
        let change = if born { 1 } else { -1 };
        for (node, child) in &path.steps[..path.len] {
            let live = &mut self.inners[*node].live[*child as usize];
            *live = live.checked_add_signed(change).expect("deaths follow births");
        }
        self.live = self.live.checked_add_signed(change).expect("deaths follow births");
    }

    /// Adds a key at the place where a search ended. True if the leaf was split: the path is
    /// worthless then.
    pub fn insert(&mut self, path: &Path, id: u32, i: usize, key: &[u8], record: Record) -> bool {
        self.len += 1;
        if record.is_alive() {
            self.count(path, true);
        }
        let leaf = &mut self.leaves[id];
        leaf.keys.insert(i, key);
        grow(&mut leaf.records, 1, KEY_STEP);
        leaf.records.insert(i, record);
        let entries = leaf.records.len();
        if !is_full(entries, &leaf.keys) {
            return false;
        }
        // Keys that come in order leave full leaves behind, and find a roomy one.
        let ascending = leaf.next == NONE && i + 1 == entries;
        let mut right = leaf.split_off(if ascending { i } else { entries / 2 });
        if ascending {
            leaf.records.shrink_to_fit();
            right.records.reserve_exact(FULL);
            right.keys.reserve(FULL);
        }
        let between = separator(&leaf.keys, &right.keys);
        let live = right.live();
        let right = self.leaves.add(right);
        self.leaves[id].next = right;
        self.add_child(path, path.len, between, right, live);
        true
    }

    /// Puts a new node behind the one that the path takes at `level`; `live` of the keys there are
    /// now in the new one.
    fn add_child(&mut self, path: &Path, level: usize, key: Vec<u8>, new: u32, live: u64) {
        let Some(level) = level.checked_sub(1) else { return self.add_root(key, new, live) };
        let (node, child) = path.steps[level];
        let child = child as usize;
        let inner = &mut self.inners[node];
        inner.keys.insert(child, &key);
        inner.children.insert(child + 1, new);
        inner.live[child] -= live;
        inner.live.insert(child + 1, live);
        let entries = inner.children.len();
        if is_full(entries, &inner.keys) {
            let at = if child + 2 == entries { entries - 4 } else { entries / 2 };
            let (between, right) = inner.split_off(at);
            let live = right.live.iter().sum();
            let right = self.inners.add(right);
            self.add_child(path, level, between, right, live);
        }
    }

    fn add_root(&mut self, key: Vec<u8>, right: u32, live: u64) {
        let mut keys = Keys::default();
        keys.insert(0, &key);
        let (children, live) = (vec![self.root, right], vec![self.live - live, live]);
        self.root = self.inners.add(Inner { keys, children, live });
        self.height += 1;
        assert!(self.height < LEVELS, "a tree of {LEVELS} levels is larger than memory");
    }

    /// Keeps those keys of a leaf whose flag is set; the others are dead. The path is worthless then.
    pub fn retain(&mut self, path: &Path, id: u32, flags: &[bool]) {
        let leaf = &mut self.leaves[id];
        let before = leaf.records.len();
        leaf.keys.retain(flags);
        let mut flags = flags.iter();
        leaf.records.retain(|_| *flags.next().expect("a flag for each record"));
        leaf.records.shrink_to(leaf.records.len() + KEY_STEP);
        self.len -= (before - leaf.records.len()) as u64;
        if path.len > 0 && is_small(leaf.records.len(), &leaf.keys) {
            self.join_leaf(path);
        }
    }

    /// Joins the small leaf at the path's end with a neighbour, and small nodes above it with theirs.
    fn join_leaf(&mut self, path: &Path) {
        let (node, i, left, right) = self.neighbours(path, path.len - 1);
        let taken = self.leaves.remove(right);
        let leaf = &mut self.leaves[left];
        leaf.keys.append(&taken.keys);
        leaf.records.extend_from_slice(&taken.records);
        leaf.next = taken.next;
        let entries = leaf.records.len();
        if !is_full(entries, &leaf.keys) {
            return self.forget_child(path, path.len - 1, i);
        }
        let right = leaf.split_off(entries / 2);
        let between = separator(&leaf.keys, &right.keys);
        let live = right.live();
        let id = self.leaves.add(right);
        self.leaves[left].next = id;
        self.replace_right(node, i, between, id, live);
    }

    /// The child of the path's node at `level` and its neighbour: the node, the place of the left
    /// one, and both.
    fn neighbours(&self, path: &Path, level: usize) -> (u32, usize, u32, u32) {
        let (node, child) = path.steps[level];
        let children = &self.inners[node].children;
        let i = (child as usize).min(children.len() - 2);
        (node, i, children[i], children[i + 1])
    }

    /// Two children were shared out anew.
    fn replace_right(&mut self, node: u32, i: usize, between: Vec<u8>, right: u32, live: u64) {
        let inner = &mut self.inners[node];
        inner.live[i] = inner.live[i] + inner.live[i + 1] - live;
        inner.live[i + 1] = live;
        inner.children[i + 1] = right;
        inner.keys.remove(i);
        inner.keys.insert(i, &between);
    }

    /// The child behind `i` went into the one at `i`.
    fn forget_child(&mut self, path: &Path, level: usize, i: usize) {
        let (node, _) = path.steps[level];
        let inner = &mut self.inners[node];
        inner.children.remove(i + 1);
        inner.live[i] += inner.live.remove(i + 1);
        inner.keys.remove(i);
        let entries = inner.children.len();
        if level > 0 {
            if is_small(entries, &inner.keys) {
                self.join_inner(path, level);
            }
        } else if entries == 1 {
            self.root = inner.children[0];
            self.height -= 1;
            self.inners.remove(node);
        }
    }

    /// Joins the small inner node at `level` of the path with a neighbour.
    fn join_inner(&mut self, path: &Path, level: usize) {
        let (node, i, left, right) = self.neighbours(path, level - 1);
        let taken = self.inners.remove(right);
        let between = self.inners[node].keys.key(i);
        let inner = &mut self.inners[left];
        inner.keys.insert(inner.keys.len(), &between);
        inner.keys.append(&taken.keys);
        inner.children.extend_from_slice(&taken.children);
        inner.live.extend_from_slice(&taken.live);
        let entries = inner.children.len();
        if !is_full(entries, &inner.keys) {
            return self.forget_child(path, level - 1, i);
        }
        let (between, right) = inner.split_off(entries / 2);
        let live = right.live.iter().sum();
        let id = self.inners.add(right);
        self.replace_right(node, i, between, id, live);
    }
}

fn child_of(inner: &Inner, key: &[u8]) -> usize {
    match inner.keys.search(key) {
        Ok(i) => i + 1,
        Err(i) => i,
    }
}

#[cfg(test)]
impl Tree {
    /// Panics unless the tree is what the top of this file says.
    pub fn check(&self) {
        let mut leaves = Vec::new();
        let (len, live) = self.check_node(self.root, 0, &[], None, &mut leaves);
        assert_eq!((len, live), (self.len, self.live));
        leaves.push(NONE);
        for pair in leaves.windows(2) {
            assert_eq!(self.leaves[pair[0]].next, pair[1]);
        }
    }

    fn check_node(
        &self,
        node: u32,
        depth: usize,
        from: &[u8],
        end: Option<&[u8]>,
        leaves: &mut Vec<u32>,
    ) -> (u64, u64) {
        let keys =
            if depth == self.height { &self.leaves[node].keys } else { &self.inners[node].keys };
        let all: Vec<_> = (0..keys.len()).map(|i| keys.key(i)).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "keys in order");
        assert!(all.iter().all(|k| &k[..] >= from && end.is_none_or(|end| &k[..] < end)));
        if depth == self.height {
            let leaf = &self.leaves[node];
            assert_eq!(leaf.records.len(), keys.len());
            assert!(!is_full(keys.len(), keys));
            assert!(depth == 0 || !all.is_empty(), "only the root may be empty");
            leaves.push(node);
            return (keys.len() as u64, leaf.live());
        }
        let inner = &self.inners[node];
        assert!(inner.children.len() > 1 && inner.children.len() == all.len() + 1);
        let mut sum = (0, 0);
        for (i, child) in inner.children.iter().enumerate() {
            let from = if i == 0 { from } else { &all[i - 1] };
            let end = all.get(i).map(|k| &k[..]).or(end);
            let (len, live) = self.check_node(*child, depth + 1, from, end, leaves);
            assert_eq!(live, inner.live[i]);
            sum = (sum.0 + len, sum.1 + live);
        }
        sum
    }
}
