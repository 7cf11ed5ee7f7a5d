//! Filling an index from a backend, whose changes come in the order of revisions: they are gathered,
//! sorted by key, and taken up in that order, in which each finds its place next to the last one's.
//! Not here: reading the backend.

use super::Index;
use super::log::Log;
use super::types::Restored;

/// Changes and bytes of keys that are sorted together.
const GATHER: usize = 1 << 17;
const GATHER_TEXT: usize = 16 << 20;
/// Runs of equal beginnings that are compared whole.
const SHORT_RUN: usize = 12;

/// Builds an index from the changes of a backend.
#[derive(Debug, Default)]
pub struct Builder {
    index: Index,
    text: Vec<u8>,
    gathered: Vec<(u32, Restored)>,
    order: Vec<Sorted>,
}

/// A gathered change while it is sorted: eight bytes of its key, where the key is, and its number.
#[derive(Clone, Copy, Debug)]
struct Sorted {
    bytes: u64,
    start: u32,
    len: u32,
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

    fn take_up(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        let mut start = 0;
        order.extend(self.gathered.iter().enumerate().map(|(number, (end, _))| {
            let sorted = Sorted { bytes: 0, start, len: end - start, number: number as u32 };
            start = *end;
            sorted
        }));
        sort(&self.text, &mut order, 0);
        let changes = order.iter();
        let changes = changes.map(|s| (s.rest(&self.text, 0), &self.gathered[s.number as usize].1));
        self.index.restore(changes);
        self.order = order;
        self.gathered.clear();
        self.text.clear();
    }
}

impl Sorted {
    /// The key from its byte `depth` on.
    fn rest<'a>(&self, text: &'a [u8], depth: usize) -> &'a [u8] {
        &text[self.start as usize + depth..self.start as usize + self.len as usize]
    }

    /// The eight bytes, and how many bytes there were; 9 stands for all above 8.
    fn seen(&self, depth: usize) -> (u64, usize) {
        (self.bytes, (self.len as usize - depth).min(9))
    }
}

/// Sorts by key and then by number changes whose keys share their first `depth` bytes.
fn sort(text: &[u8], run: &mut [Sorted], mut depth: usize) {
    if run.len() <= SHORT_RUN {
        return run.sort_unstable_by(|a, b| {
            a.rest(text, depth).cmp(b.rest(text, depth)).then(a.number.cmp(&b.number))
        });
    }
    // Only a run that falls apart is sorted by recursion: long equal keys must not make it deep.
    loop {
        for item in &mut *run {
            let rest = item.rest(text, depth);
            let mut bytes = [0; 8];
            let n = rest.len().min(8);
            bytes[..n].copy_from_slice(&rest[..n]);
            item.bytes = u64::from_be_bytes(bytes);
        }
        run.sort_unstable_by_key(|item| (item.seen(depth), item.number));
        if run[0].seen(depth) != run[run.len() - 1].seen(depth) {
            break;
        }
        if run[0].seen(depth).1 <= 8 {
            return;
        }
        depth += 8;
    }
    for equal in run.chunk_by_mut(|a, b| a.seen(depth) == b.seen(depth)) {
        if equal[0].seen(depth).1 > 8 && equal.len() > 1 {
            sort(text, equal, depth + 8);
        }
    }
}
