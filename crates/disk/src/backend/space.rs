//! The free pages, and who may still read those that were given up. Not here: writing pages.

use std::collections::VecDeque;

use super::bits::Bits;

/// Below this many pages a run is passed over at first by commits that need many.
const GOOD_RUN: u64 = 8;
/// Commits of fewer pages take the lowest holes, however small.
const MANY: u64 = 64;

/// The file's pages. A page is in use, free, or waiting for readers of older roots.
pub(super) struct Space {
    free: Bits,
    /// Pages in use at which a branch or a leaf starts.
    heads: Bits,
    high: u64,
    /// Given up by these transactions, oldest first: (transaction, runs of pages).
    waiting: VecDeque<(u64, Vec<(u64, u64)>)>,
    waiting_pages: u64,
    taken: Vec<(u64, u64)>,
    given: Vec<(u64, u64)>,
    high_before: u64,
    run: (u64, u64),
    min_run: u64,
    /// For each power of two: no run of so many free pages starts before this page.
    from: [u64; 64],
}

impl Space {
    /// From a walk: what is not used is free.
    pub fn new(used: &Bits, heads: Bits) -> Self {
        let high = used.len();
        let mut free = Bits::new(high);
        let mut at = used.next_clear(0);
        while at < high {
            free.set(at);
            at = used.next_clear(at + 1);
        }
        Self {
            free,
            heads,
            high,
            waiting: VecDeque::new(),
            waiting_pages: 0,
            taken: Vec::new(),
            given: Vec::new(),
            high_before: high,
            run: (0, 0),
            min_run: 1,
            from: [0; 64],
        }
    }

    /// Free pages, without those that wait.
    pub fn free_pages(&self) -> u64 {
        self.free.ones()
    }

    pub fn waiting_pages(&self) -> u64 {
        self.waiting_pages
    }

    pub fn high(&self) -> u64 {
        self.high
    }

    /// Starts a transaction that will write about `expected` pages. `oldest` is the oldest root that
    /// somebody reads: what later transactions gave up has to wait on.
    pub fn begin(&mut self, oldest: u64, expected: u64, low: bool) {
        while let Some((txid, _)) = self.waiting.front()
            && *txid <= oldest
        {
            let (_, runs) = self.waiting.pop_front().expect("seen");
            for (start, pages) in runs {
                (start..start + pages).for_each(|page| self.free.set(page));
                self.waiting_pages -= pages;
            }
        }
        self.high_before = self.high;
        self.run = (0, 0);
        self.from = [0; 64];
        self.min_run = if expected >= MANY && !low { GOOD_RUN } else { 1 };
    }

    /// The first page of a new run of `pages` pages, low in the file where there is room.
    pub fn take(&mut self, pages: u64) -> u64 {
        loop {
            if self.run.1 >= pages {
                let start = self.run.0;
                self.run = (start + pages, self.run.1 - pages);
                (start..start + pages).for_each(|page| self.free.clear(page));
                return self.taken(start, pages);
            }
            let want = pages.max(self.min_run);
            match self.find(want) {
                Some(run) => self.run = run,
                None if self.min_run > 1 => self.min_run = 1,
                None => break,
            }
        }
        let start = self.high;
        self.high += pages;
        self.free.resize(self.high);
        self.heads.resize(self.high);
        self.taken(start, pages)
    }

    fn taken(&mut self, start: u64, pages: u64) -> u64 {
        self.heads.set(start);
        self.taken.push((start, pages));
        start
    }

    /// The first free run of at least `want` pages.
    fn find(&mut self, want: u64) -> Option<(u64, u64)> {
        let class = want.ilog2() as usize;
        let mut at = self.from[class];
        while let Some(start) = self.free.next_set(at) {
            let end = self.free.next_clear(start);
            if end - start >= want {
                self.from[class] = start;
                return Some((start, end - start));
            }
            at = end;
        }
        self.from[class] = self.high;
        None
    }

    /// The first free run of at least `pages` from a page on.
    pub fn run_from(&self, at: u64, pages: u64) -> Option<u64> {
        let mut at = at.max(self.from[pages.ilog2() as usize]);
        while let Some(start) = self.free.next_set(at) {
            let end = self.free.next_clear(start);
            if end - start >= pages {
                return Some(start);
            }
            at = end;
        }
        None
    }

    /// Gives up pages that roots before this transaction's use.
    pub fn give(&mut self, start: u64, pages: u64) {
        self.given.push((start, pages));
    }

    /// The high-water page if the transaction ends now.
    pub fn settled_high(&self) -> u64 {
        self.free.tail()
    }

    /// Takes the transaction as done.
    pub fn commit(&mut self, txid: u64) {
        let given = std::mem::take(&mut self.given);
        for (start, pages) in &given {
            self.heads.clear(*start);
            self.waiting_pages += pages;
        }
        if !given.is_empty() {
            self.waiting.push_back((txid, given));
        }
        self.taken.clear();
        self.high = self.free.tail();
        self.free.resize(self.high);
        self.heads.resize(self.high);
    }

    /// Takes the transaction back.
    pub fn rollback(&mut self) {
        for (start, pages) in std::mem::take(&mut self.taken) {
            self.heads.clear(start);
            (start..start + pages).for_each(|page| self.free.set(page));
        }
        self.given.clear();
        self.high = self.high_before;
        self.free.resize(self.high);
        self.heads.resize(self.high);
    }

    /// The last branch or leaf that starts before `before`.
    pub fn last_head(&self, before: u64) -> Option<u64> {
        self.heads.last_set(before)
    }

    /// The lowest free page.
    pub fn first_free(&self) -> Option<u64> {
        self.free.next_set(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(used: &[u64], high: u64) -> Space {
        let mut bits = Bits::new(high);
        used.iter().for_each(|page| bits.set(*page));
        Space::new(&bits, Bits::new(high))
    }

    #[test]
    fn takes_low_holes_and_then_grows() {
        let mut space = space(&[0, 1, 3, 6], 8);
        space.begin(0, 4, false);
        assert_eq!(space.take(2), 4);
        assert_eq!((space.take(1), space.take(1), space.take(1)), (2, 7, 8));
        assert_eq!((space.high(), space.free_pages()), (9, 0));
        space.rollback();
        assert_eq!((space.high(), space.free_pages()), (8, 4));
    }

    #[test]
    fn what_a_reader_may_see_waits() {
        let mut space = space(&[0, 1, 2, 3], 4);
        space.begin(5, 1, false);
        space.give(2, 1);
        assert_eq!(space.take(1), 4);
        space.commit(6);
        space.begin(5, 1, false);
        assert_eq!(space.take(1), 5, "transaction 5 is still read");
        space.commit(7);
        space.begin(6, 1, false);
        assert_eq!(space.take(1), 2);
        space.commit(8);
    }

    #[test]
    fn a_free_tail_leaves_the_file() {
        let mut space = space(&[0, 1, 2, 3, 4], 5);
        space.begin(1, 1, false);
        space.give(4, 1);
        space.commit(2);
        assert_eq!(space.high(), 5, "it waits");
        space.begin(2, 1, false);
        assert_eq!(space.settled_high(), 4);
        space.commit(3);
        assert_eq!(space.high(), 4);
    }
}
