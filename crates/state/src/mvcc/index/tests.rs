//! The index against the plain map of histories in `model`, through random lives of few and many keys.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use etch_api::range::KeyRange;

use super::model;
use super::{Builder, Compaction, Index, Restored, Version, Walked};
use crate::mvcc::Revision;

/// A generator of test numbers; the same seed gives the same life.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Revisions that a compaction dropped, and whether they were tombstones.
type Dropped = BTreeSet<(Revision, bool)>;

/// An index and its model, which live the same life.
struct Pair {
    dice: Dice,
    keys: u64,
    index: Index,
    model: model::Index,
    /// Everything that the backend would hold.
    backend: Vec<(Vec<u8>, Restored)>,
    main: i64,
    compacted: i64,
    compaction: Option<(Compaction, Compaction, Dropped)>,
}

impl Pair {
    fn new(seed: u64, keys: u64) -> Self {
        Self {
            dice: Dice(seed),
            keys,
            index: Index::new(),
            model: model::Index::new(),
            backend: Vec::new(),
            main: 1,
            compacted: 0,
            compaction: None,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.dice.roll(self.keys);
        match n % 7 {
            0 => format!("/registry/pods/ns-{}/pod-{n}", n % 5).into_bytes(),
            1 => n.to_be_bytes().to_vec(),
            2 => vec![0; 1 + n as usize % 40],
            3 => [&b"/registry/"[..], &vec![b'x'; n as usize % 900], &n.to_le_bytes()].concat(),
            4 => format!("/registry/leases/{n:05}").into_bytes(),
            5 => format!("{n}").into_bytes(),
            _ => [&b"\xff\xff"[..], &n.to_be_bytes()[6..]].concat(),
        }
    }

    fn range(&mut self) -> KeyRange {
        let (key, end) = (Bytes::from(self.key()), Bytes::from(self.key()));
        match self.dice.roll(8) {
            0 => KeyRange::Single(key),
            1 => KeyRange::From(key),
            2 => KeyRange::prefix(Bytes::from_static(b"/registry/")),
            3 => KeyRange::HalfOpen(Bytes::new(), end),
            4 => KeyRange::All,
            _ => KeyRange::HalfOpen(key, end),
        }
    }

    /// One transaction of a few changes, of which some may hit the same key.
    fn transaction(&mut self, deletes: u64) {
        self.main += 1 + self.dice.roll(3) as i64 / 2;
        let changes = 1 + self.dice.roll(4);
        let mut key = self.key();
        let mut sub = 0;
        for _ in 0..changes {
            if self.dice.roll(3) > 0 {
                key = self.key();
            }
            let at = Revision::new(self.main, sub);
            if self.dice.roll(10) < deletes {
                let deleted = self.index.delete(&key, at);
                assert_eq!(deleted, self.model.delete(&key, at));
                if deleted.is_none() {
                    continue;
                }
                self.stored(&key, at, true, 0, 0, 0);
            } else {
                let size = self.dice.roll(1000) as u32;
                let put = self.index.put(&key, at, |new| size + new.version as u32);
                assert_eq!(put, self.model.put(&key, at, |new| size + new.version as u32));
                let size = size + put.version as u32;
                self.stored(&key, at, false, put.created, put.version, size);
            }
            sub += 1;
        }
    }

    fn stored(&mut self, key: &[u8], at: Revision, dead: bool, new: i64, version: i64, size: u32) {
        let restored = Restored { revision: at, tombstone: dead, created: new, version, size };
        self.backend.push((key.to_vec(), restored));
    }

    /// Goes on with the compaction, or begins one.
    fn compact(&mut self) {
        if self.compaction.is_none() {
            let span = (self.main - self.compacted + 1) as u64;
            self.compacted += self.dice.roll(span) as i64;
            let new = Compaction::new(self.compacted);
            assert_eq!(new.revision(), self.compacted);
            self.compaction = Some((new.clone(), new, Dropped::new()));
        }
        let (mut mine, mut models, mut gone) = self.compaction.take().expect("it was just begun");
        let mut dropped = Vec::new();
        let step = 1 + self.dice.roll(100) as usize;
        let done = self.index.compact_step(&mut mine, step, &mut dropped);
        self.index.tree.check();
        for revision in dropped {
            assert!(gone.insert(revision), "{revision:?} is dropped once");
        }
        if !done {
            self.compaction = Some((mine, models, gone));
            return;
        }
        let mut expected = Vec::new();
        while !self.model.compact_step(&mut models, 1000, &mut expected) {}
        assert_eq!(gone, expected.into_iter().collect());
        self.backend.retain(|(_, r)| !gone.contains(&(r.revision, r.tombstone)));
        assert_eq!((self.index.len(), self.index.live()), (self.model.len(), self.model.live()));
        assert_eq!(self.index.is_empty(), self.model.is_empty());
    }

    /// A readable main revision; often the latest.
    fn at(&mut self) -> i64 {
        match self.dice.roll(3) {
            0 => i64::MAX,
            _ => self.main - self.dice.roll((self.main - self.compacted + 1) as u64) as i64,
        }
    }

    fn look(&mut self) {
        let at = self.at();
        let key = self.key();
        assert_eq!(self.index.get(&key, at), self.model.get(&key, at), "{key:?} at {at}");
        let range = self.range();
        let expected =
            list(usize::MAX, |after, budget, out| self.model.walk(&range, after, at, budget, out));
        for budget in [1 + self.dice.roll(70) as usize, usize::MAX] {
            let walked =
                list(budget, |after, budget, out| self.index.walk(&range, after, at, budget, out));
            assert_eq!(walked, expected, "{range:?} at {at}");
        }
        assert_eq!(self.index.count(&range, at), expected.len() as u64, "{range:?} at {at}");
        if let Some(count) = self.index.count_quick(&range, at) {
            assert_eq!(count, expected.len() as u64, "{range:?} at {at}");
        }
        let to = self.at();
        if at < to && self.compaction.is_none() {
            let changes = self.index.versions_of(&key, at..=to);
            assert_eq!(changes, self.model.versions_of(&key, at..=to));
        }
    }

    fn look_at_keep(&mut self) {
        let at = self.main - self.dice.roll((self.main - self.compacted + 1) as u64) as i64;
        let mut expected = Vec::new();
        self.model.keep(at, None, usize::MAX, |revision| expected.push(revision));
        let mut kept = Vec::new();
        let mut after = None;
        let budget = 1 + self.dice.roll(200) as usize;
        while let Walked::More(key) =
            self.index.keep(at, after.as_deref(), budget, |revision| kept.push(revision))
        {
            after = Some(key);
        }
        assert_eq!(kept, expected);
    }

    /// A member starts again on what the backend holds.
    fn restart(&mut self) {
        let mut builder = Builder::new();
        let mut model = model::Builder::new();
        for (key, change) in &self.backend {
            builder.push(key, *change);
            model.push(key, *change);
        }
        self.index = builder.finish();
        self.index.tree.check();
        self.model = model.finish();
        self.compaction = None;
    }
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>;

fn list(
    budget: usize,
    mut walk: impl FnMut(Option<&[u8]>, usize, Visit<'_>) -> Walked,
) -> Vec<(Vec<u8>, Version)> {
    let mut out = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let walked = walk(after.as_deref(), budget, &mut |key, version| {
            out.push((key.to_vec(), *version));
            ControlFlow::Continue(())
        });
        match walked {
            Walked::More(key) => after = Some(key),
            Walked::End => return out,
            Walked::Stopped => panic!("nobody stopped it"),
        }
    }
}

fn live_together(seed: u64, keys: u64, rounds: usize) {
    let mut pair = Pair::new(seed, keys);
    for round in 0..rounds {
        // Some spells see mostly puts, others mostly deletes.
        let deletes = if round / 400 % 3 == 2 { 8 } else { 2 };
        pair.transaction(deletes);
        match pair.dice.roll(60) {
            0..5 => pair.compact(),
            5..10 => pair.look(),
            10 => pair.look_at_keep(),
            11 if round % 10 == 0 => pair.restart(),
            _ => {}
        }
    }
    pair.index.tree.check();
    // Everything is deleted and compacted: nothing stays.
    let all = list(usize::MAX, |after, budget, out| {
        pair.model.walk(&KeyRange::All, after, i64::MAX, budget, out)
    });
    pair.main += 1;
    for (sub, (key, version)) in all.iter().enumerate() {
        let at = Revision::new(pair.main, sub as i64);
        assert_eq!(pair.index.delete(key, at), Some(*version));
    }
    assert_eq!(pair.index.live(), 0);
    let mut last = Compaction::new(pair.main + 1);
    while !pair.index.compact_step(&mut last, 50, &mut Vec::new()) {
        pair.index.tree.check();
    }
    pair.index.tree.check();
    assert_eq!(pair.index.len(), 0);
}

#[test]
fn few_keys_with_long_lives() {
    for seed in 0..20 {
        live_together(seed, 12, 1500);
    }
}

#[test]
fn many_keys() {
    for seed in 0..4 {
        live_together(100 + seed, 4000, 6000);
    }
}

#[test]
fn a_deep_tree_grows_and_shrinks() {
    let key = |n: u64| format!("/registry/pods/{:08}", n.wrapping_mul(7_919) % 100_003);
    let (mut index, mut main) = (Index::new(), 0);
    let mut dice = Dice(5);
    for n in 0..60_000 {
        main += 1;
        index.put(key(n).as_bytes(), Revision::new(main, 0), |_| 1);
    }
    index.tree.check();
    let mut left: Vec<u64> = (0..60_000).collect();
    while !left.is_empty() {
        // A stretch of neighbours goes each time, and a tenth of the others.
        let from = dice.roll(100_003) as usize;
        let neighbour = |n: u64| {
            let place: usize = key(n)[15..].parse().expect("a number");
            (from..from + 20_000).contains(&place)
        };
        let few = left.len() < 100;
        let (dead, alive): (Vec<_>, Vec<_>) =
            left.iter().partition(|n| few || neighbour(**n) || dice.roll(10) == 0);
        for n in dead {
            main += 1;
            assert!(index.delete(key(n).as_bytes(), Revision::new(main, 0)).is_some());
        }
        let mut compaction = Compaction::new(main + 1);
        while !index.compact_step(&mut compaction, 5000, &mut Vec::new()) {
            index.tree.check();
        }
        index.tree.check();
        left = alive;
        assert_eq!((index.len(), index.live()), (left.len() as u64, left.len() as u64));
        for n in left.iter().take(50) {
            assert!(index.get(key(*n).as_bytes(), i64::MAX).is_some());
        }
    }
}

#[test]
fn a_restart_takes_up_interrupted_compactions() {
    let mut pair = Pair::new(7, 300);
    for _ in 0..3000 {
        pair.transaction(4);
    }
    pair.compact();
    let gone = pair.compaction.as_ref().map(|(_, _, gone)| gone.clone()).unwrap_or_default();
    pair.backend.retain(|(_, r)| !gone.contains(&(r.revision, r.tombstone)));
    pair.restart();
    for _ in 0..200 {
        pair.look();
    }
    let mut again = Compaction::new(pair.compacted);
    let mut expected = Vec::new();
    while !pair.model.compact_step(&mut again, 1000, &mut expected) {}
    let mut again = Compaction::new(pair.compacted);
    let mut dropped = Vec::new();
    while !pair.index.compact_step(&mut again, 10, &mut dropped) {}
    expected.sort();
    dropped.sort();
    assert_eq!(dropped, expected);
}

#[test]
fn the_last_change_of_a_transaction_counts() {
    let mut index = Index::new();
    index.put(b"k", Revision::new(2, 0), |_| 10);
    index.delete(b"k", Revision::new(5, 0));
    index.put(b"k", Revision::new(5, 1), |_| 11);
    index.put(b"k", Revision::new(5, 2), |_| 12);
    let modified = Revision::new(5, 2);
    let expected = Version { modified, created: 5, version: 2, size: 12 };
    assert_eq!(index.get(b"k", 5), Some(expected));
    assert_eq!(index.get(b"k", 4).map(|v| (v.created, v.size)), Some((2, 10)));
    assert_eq!(index.get(b"k", 1), None);
    assert_eq!(index.count(&KeyRange::All, 5), 1);
    assert_eq!(index.count(&KeyRange::All, 1), 0);
}

#[test]
fn a_tombstone_stays_at_exactly_the_compacted_revision() {
    let mut index = Index::new();
    index.put(b"k", Revision::new(2, 0), |_| 1);
    index.delete(b"k", Revision::new(3, 0));
    let mut dropped = Vec::new();
    assert!(index.compact_step(&mut Compaction::new(3), 10, &mut dropped));
    assert_eq!(dropped, [(Revision::new(2, 0), false)]);
    let changes = index.versions_of(b"k", 0..=9);
    assert_eq!((changes.len(), changes[0].tombstone, changes[0].previous), (1, true, None));
    let mut kept = Vec::new();
    index.keep(3, None, 10, |revision| kept.push(revision));
    assert_eq!(kept, [], "a hash does not count it");
    assert!(index.compact_step(&mut Compaction::new(4), 10, &mut dropped));
    assert_eq!(dropped[1..], [(Revision::new(3, 0), true)]);
    assert!(index.is_empty());
}

#[test]
fn generations_restored_from_their_middle_go_on_counting() {
    let restored = |main, tombstone, version| Restored {
        revision: Revision::new(main, 0),
        tombstone,
        created: 4,
        version,
        size: 7,
    };
    let mut builder = Builder::new();
    builder.push(b"dead", restored(8, true, 0));
    builder.push(b"k", restored(9, false, 5_000_000_000));
    builder.push(b"k", restored(12, false, 5_000_000_001));
    let mut index = builder.finish();
    let at = |index: &Index, main| index.get(b"k", main).map(|v| (v.created, v.version));
    assert_eq!(at(&index, 9), Some((4, 5_000_000_000)));
    assert_eq!(at(&index, 12), Some((4, 5_000_000_001)));
    assert_eq!((index.live(), index.len(), index.get(b"dead", 8)), (1, 2, None));
    let put = index.put(b"k", Revision::new(13, 0), |_| 1);
    assert_eq!((put.created, put.version), (4, 5_000_000_002));
    let put = index.put(b"dead", Revision::new(14, 0), |_| 1);
    assert_eq!((put.created, put.version, put.previous), (14, 1, None));
}

#[test]
fn sorts_long_equal_keys_without_deep_recursion() {
    let long = vec![b'x'; 100_000];
    let mut builder = Builder::new();
    for main in 1..100 {
        let revision = Revision::new(main, 0);
        let change = Restored { revision, tombstone: false, created: 1, version: main, size: 1 };
        builder.push(&long[main as usize % 2..], change);
    }
    let index = builder.finish();
    assert_eq!(index.get(&long, 98).map(|v| v.modified.main), Some(98));
    assert_eq!(index.get(&long[1..], 98).map(|v| v.modified.main), Some(97));
}
