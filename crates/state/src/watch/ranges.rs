//! Ranges of keys and what belongs to each: a balanced tree by start in which every subtree knows its
//! farthest end, so that finding the ranges around a key costs what is found. Not here: single keys, for
//! which the hub has a hash map, and what the values mean.

use std::cmp::Ordering;

use bytes::Bytes;
use etch_api::KeyRange;

/// No node.
const NIL: u32 = u32::MAX;

struct Node<V> {
    start: Bytes,
    /// `None` is after every key.
    end: Option<Bytes>,
    value: V,
    left: u32,
    right: u32,
    height: u8,
    /// The node of this subtree that reaches farthest.
    farthest: u32,
}

/// An AVL tree in one vector; links are places in it.
pub(super) struct RangeMap<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
}

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL }
    }
}

/// The range as start and end.
fn span(range: &KeyRange) -> (Bytes, Option<Bytes>) {
    match range {
        KeyRange::Single(key) => {
            let mut end = Vec::with_capacity(key.len() + 1);
            end.extend_from_slice(key);
            end.push(0);
            (key.clone(), Some(end.into()))
        }
        KeyRange::HalfOpen(start, end) => (start.clone(), Some(end.clone())),
        KeyRange::From(start) => (start.clone(), None),
        KeyRange::All => (Bytes::new(), None),
    }
}

fn compare_ends(a: Option<&Bytes>, b: Option<&Bytes>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Greater,
        (_, None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

impl<V: Default> RangeMap<V> {
    /// The value of this range, made if it is new.
    pub(super) fn entry(&mut self, range: &KeyRange) -> &mut V {
        let (start, end) = span(range);
        let mut found = NIL;
        self.root = self.insert(self.root, &start, end.as_ref(), &mut found);
        &mut self.nodes[found as usize].value
    }

    /// The value of this range.
    pub(super) fn get_mut(&mut self, range: &KeyRange) -> Option<&mut V> {
        let (start, end) = span(range);
        let mut at = self.root;
        while at != NIL {
            at = match self.order(&start, end.as_ref(), at) {
                Ordering::Less => self.nodes[at as usize].left,
                Ordering::Greater => self.nodes[at as usize].right,
                Ordering::Equal => return Some(&mut self.nodes[at as usize].value),
            };
        }
        None
    }

    /// Takes the range out, if it is in.
    pub(super) fn remove(&mut self, range: &KeyRange) {
        let (start, end) = span(range);
        self.root = self.delete(self.root, &start, end.as_ref());
    }

    /// Whether no range is in.
    pub(super) fn is_empty(&self) -> bool {
        self.root == NIL
    }

    /// Shows the value of every range that contains the key.
    pub(super) fn stab(&self, key: &[u8], f: &mut impl FnMut(&V)) {
        self.stab_under(self.root, key, f);
    }

    fn stab_under(&self, mut at: u32, key: &[u8], f: &mut impl FnMut(&V)) {
        while at != NIL {
            let node = &self.nodes[at as usize];
            let reach = &self.nodes[node.farthest as usize].end;
            if reach.as_ref().is_some_and(|end| &end[..] <= key) {
                return;
            }
            self.stab_under(node.left, key, f);
            if &node.start[..] > key {
                return;
            }
            if node.end.as_ref().is_none_or(|end| key < &end[..]) {
                f(&node.value);
            }
            at = node.right;
        }
    }

    fn order(&self, start: &Bytes, end: Option<&Bytes>, at: u32) -> Ordering {
        let node = &self.nodes[at as usize];
        start.cmp(&node.start).then_with(|| compare_ends(end, node.end.as_ref()))
    }

    fn new_node(&mut self, start: &Bytes, end: Option<&Bytes>) -> u32 {
        let mut node = Node {
            start: start.clone(),
            end: end.cloned(),
            value: V::default(),
            left: NIL,
            right: NIL,
            height: 1,
            farthest: NIL,
        };
        let at = self.free.pop().unwrap_or(self.nodes.len() as u32);
        node.farthest = at;
        match self.nodes.get_mut(at as usize) {
            Some(place) => *place = node,
            None => self.nodes.push(node),
        }
        at
    }

    /// Inserts below `at` unless it is there; tells its place and the subtree's new top.
    fn insert(&mut self, at: u32, start: &Bytes, end: Option<&Bytes>, found: &mut u32) -> u32 {
        if at == NIL {
            *found = self.new_node(start, end);
            return *found;
        }
        match self.order(start, end, at) {
            Ordering::Equal => {
                *found = at;
                return at;
            }
            Ordering::Less => {
                let left = self.insert(self.nodes[at as usize].left, start, end, found);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = self.insert(self.nodes[at as usize].right, start, end, found);
                self.nodes[at as usize].right = right;
            }
        }
        self.balance(at)
    }

    fn delete(&mut self, at: u32, start: &Bytes, end: Option<&Bytes>) -> u32 {
        if at == NIL {
            return NIL;
        }
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        match self.order(start, end, at) {
            Ordering::Less => {
                let left = self.delete(left, start, end);
                self.nodes[at as usize].left = left;
                self.balance(at)
            }
            Ordering::Greater => {
                let right = self.delete(right, start, end);
                self.nodes[at as usize].right = right;
                self.balance(at)
            }
            Ordering::Equal => {
                self.discard(at);
                if right == NIL {
                    return left;
                }
                let (rest, first) = self.take_first(right);
                self.nodes[first as usize].left = left;
                self.nodes[first as usize].right = rest;
                self.balance(first)
            }
        }
    }

    /// Forgets what a node held, so that a free place keeps no memory alive.
    fn discard(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        node.value = V::default();
        node.start = Bytes::new();
        node.end = None;
        self.free.push(at);
    }

    /// Cuts the first node out of a subtree: what is left of it, and the node.
    fn take_first(&mut self, at: u32) -> (u32, u32) {
        let left = self.nodes[at as usize].left;
        if left == NIL {
            return (self.nodes[at as usize].right, at);
        }
        let (rest, first) = self.take_first(left);
        self.nodes[at as usize].left = rest;
        (self.balance(at), first)
    }

    fn height(&self, at: u32) -> u8 {
        if at == NIL { 0 } else { self.nodes[at as usize].height }
    }

    /// Height and reach of a node from those of its children.
    fn update(&mut self, at: u32) {
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        let mut farthest = at;
        for child in [left, right].into_iter().filter(|&child| child != NIL) {
            let reach = self.nodes[child as usize].farthest;
            let end = self.nodes[reach as usize].end.as_ref();
            if compare_ends(end, self.nodes[farthest as usize].end.as_ref()).is_gt() {
                farthest = reach;
            }
        }
        let height = 1 + self.height(left).max(self.height(right));
        let node = &mut self.nodes[at as usize];
        node.farthest = farthest;
        node.height = height;
    }

    fn balance(&mut self, at: u32) -> u32 {
        self.update(at);
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        if self.height(left) > self.height(right) + 1 {
            let (outer, inner) = (self.nodes[left as usize].left, self.nodes[left as usize].right);
            if self.height(inner) > self.height(outer) {
                self.nodes[at as usize].left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if self.height(right) > self.height(left) + 1 {
            let (inner, outer) =
                (self.nodes[right as usize].left, self.nodes[right as usize].right);
            if self.height(inner) > self.height(outer) {
                self.nodes[at as usize].right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        at
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let top = self.nodes[at as usize].right;
        self.nodes[at as usize].right = self.nodes[top as usize].left;
        self.nodes[top as usize].left = at;
        self.update(at);
        self.update(top);
        top
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let top = self.nodes[at as usize].left;
        self.nodes[at as usize].left = self.nodes[top as usize].right;
        self.nodes[top as usize].right = at;
        self.update(at);
        self.update(top);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::Dice;

    fn key(n: u64) -> Bytes {
        Bytes::from(format!("{n:03}"))
    }

    fn depth<V>(map: &RangeMap<V>, at: u32) -> usize {
        if at == NIL {
            return 0;
        }
        let node = &map.nodes[at as usize];
        1 + depth(map, node.left).max(depth(map, node.right))
    }

    #[test]
    fn finds_what_a_list_finds_while_ranges_come_and_go() {
        let mut dice = Dice::new(7);
        let mut map = RangeMap::<u32>::default();
        let mut list: Vec<(KeyRange, u32)> = Vec::new();
        for step in 0..4000_u32 {
            let a = key(dice.below(100));
            let range = match dice.below(8) {
                0 => KeyRange::From(a),
                1 => KeyRange::All,
                _ => KeyRange::HalfOpen(a, key(dice.below(100))),
            };
            if range.is_empty() {
                continue;
            }
            let known = list.iter().position(|(r, _)| *r == range);
            assert_eq!(map.get_mut(&range).copied(), known.map(|at| list[at].1));
            match known {
                Some(at) if dice.below(2) == 0 => {
                    list.swap_remove(at);
                    map.remove(&range);
                }
                Some(_) => {}
                None => {
                    *map.entry(&range) = step;
                    list.push((range, step));
                }
            }
            let probe = key(dice.below(110));
            let mut found = Vec::new();
            map.stab(&probe, &mut |&v| found.push(v));
            found.sort_unstable();
            let mut expected: Vec<_> =
                list.iter().filter(|(r, _)| r.contains(&probe)).map(|(_, v)| *v).collect();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
        for (range, _) in list.drain(..) {
            map.remove(&range);
        }
        assert!(map.is_empty());
        assert_eq!(map.free.len(), map.nodes.len());
    }

    #[test]
    fn stays_shallow_when_ranges_come_in_order() {
        let mut map = RangeMap::<()>::default();
        for n in 0..1000 {
            map.entry(&KeyRange::HalfOpen(key(n), Bytes::from(format!("{n:03}~"))));
        }
        assert!(depth(&map, map.root) <= 14, "an AVL tree of a thousand");
        let mut found = 0;
        map.stab(b"500x", &mut |()| found += 1);
        assert_eq!(found, 1);
    }
}
