//! Filling an index from a backend, whose changes come in the order of revisions: they are gathered,
//! sorted by key, and taken up in that order, in which each finds its place next to the last one's.
//! Not here: reading the backend.

use super::Index;
use super::log::Log;
use super::types::Restored;

/// Changes and bytes of keys that are sorted together.
const GATHER: usize = 1 << 19;
const GATHER_TEXT: usize = 64 << 20;
/// Runs of equal beginnings that are compared whole.
const SHORT_RUN: usize = 12;

/// Builds an index from the changes of a backend.
#[derive(Debug, Default)]
pub struct Builder {
    index: Index,
    text: Vec<u8>,
    gathered: Vec<(u32, Restored)>,
}

/// A gathered change while it is sorted: eight bytes of its key, how many more it has (9 stands for
/// all above 8), and its number.
#[derive(Clone, Copy, Default)]
struct Sorted {
    bytes: u64,
    left: u8,
    number: u32,
}

impl Builder {
    /// Nothing restored yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up the next change, in the order of revisions.
    pub fn push(&mut self, key: &[u8], change: Restored) {
        if self.gathered.len() == GATHER || self.text.len() + key.len() > GATHER_TEXT {
            self.take_up();
        }
        self.text.extend_from_slice(key);
        let end = u32::try_from(self.text.len()).expect("a key is shorter than 4 GiB");
        self.gathered.push((end, change));
    }

    /// The index of everything pushed.
    pub fn finish(mut self) -> Index {
        self.take_up();
        self.index.log = Log::after(self.index.last);
        self.index
    }

    fn key(&self, number: u32) -> &[u8] {
        let i = number as usize;
        let start = i.checked_sub(1).map_or(0, |before| self.gathered[before].0 as usize);
        &self.text[start..self.gathered[i].0 as usize]
    }

    fn take_up(&mut self) {
        let sorted = |number| Sorted { number, ..Sorted::default() };
        let mut order: Vec<Sorted> = (0..self.gathered.len() as u32).map(sorted).collect();
        self.sort(&mut order, 0);
        let mut index = std::mem::take(&mut self.index);
        for Sorted { number, .. } in order {
            index.restore(self.key(number), &self.gathered[number as usize].1);
        }
        self.index = index;
        self.gathered.clear();
        self.text.clear();
    }

    /// Sorts by key and then by number changes whose keys share their first `depth` bytes.
    fn sort(&self, run: &mut [Sorted], mut depth: usize) {
        if run.len() <= SHORT_RUN {
            return run.sort_unstable_by(|a, b| {
                let keys = self.key(a.number)[depth..].cmp(&self.key(b.number)[depth..]);
                keys.then(a.number.cmp(&b.number))
            });
        }
        // Only a run that falls apart is sorted by recursion: long equal keys must not make it deep.
        loop {
            self.look_at(run, depth);
            run.sort_unstable_by_key(|item| (item.bytes, item.left, item.number));
            depth += 8;
            if !run[0].is_equal_so_far(&run[run.len() - 1]) {
                break;
            }
            if run[0].left <= 8 {
                return;
            }
        }
        for equal in run.chunk_by_mut(Sorted::is_equal_so_far) {
            if equal[0].left > 8 && equal.len() > 1 {
                self.sort(equal, depth);
            }
        }
    }

    fn look_at(&self, run: &mut [Sorted], depth: usize) {
        for item in run {
            let rest = &self.key(item.number)[depth..];
            let mut bytes = [0; 8];
            let n = rest.len().min(8);
            bytes[..n].copy_from_slice(&rest[..n]);
            item.bytes = u64::from_be_bytes(bytes);
            item.left = rest.len().min(9) as u8;
        }
    }
}

impl Sorted {
    fn is_equal_so_far(&self, other: &Self) -> bool {
        (self.bytes, self.left) == (other.bytes, other.left)
    }
}
