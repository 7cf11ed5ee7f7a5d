//! The latest births and deaths of keys, in the order of revisions: what lies between the number of
//! keys now and their number a short while ago. Not here: the number now.

use std::collections::VecDeque;

use super::range::Span;

/// Entries and bytes of keys after which a chunk is closed.
const CHUNK_ENTRIES: usize = 1024;
const CHUNK_TEXT: usize = 64 << 10;
/// Chunks that are kept: about 65 000 entries, or 4 MiB of keys.
const CHUNKS: usize = 64;

/// Births and deaths after a revision.
#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Chunk>,
    /// The log is whole after this main revision.
    whole_after: i64,
}

#[derive(Debug, Default)]
struct Chunk {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    main: i64,
    end: u32,
    born: bool,
}

impl Log {
    /// A log of what happens after a main revision.
    pub fn after(main: i64) -> Self {
        Self { chunks: VecDeque::new(), whole_after: main }
    }

    /// Notes a birth or a death.
    pub fn push(&mut self, main: i64, key: &[u8], born: bool) {
        if key.len() > CHUNK_TEXT {
            // Not worth its room: what came before is told from here on by a walk.
            self.chunks.clear();
            self.whole_after = main;
            return;
        }
        let closed = |chunk: &Chunk| {
            chunk.entries.len() >= CHUNK_ENTRIES || chunk.text.len() + key.len() > CHUNK_TEXT
        };
        if self.chunks.back().is_none_or(closed) {
            if self.chunks.len() >= CHUNKS {
                self.drop_oldest();
            }
            self.chunks.push_back(Chunk::default());
        }
        let chunk = self.chunks.back_mut().expect("one was just made sure of");
        chunk.text.extend_from_slice(key);
        chunk.entries.push(Entry { main, end: chunk.text.len() as u32, born });
    }

    fn drop_oldest(&mut self) {
        if let Some(last) = self.chunks.pop_front().and_then(|mut c| c.entries.pop()) {
            self.whole_after = self.whole_after.max(last.main);
        }
    }

    /// Forgets what no read at or above `main` asks for.
    pub fn trim(&mut self, main: i64) {
        while self.chunks.front().and_then(|c| c.entries.last()).is_some_and(|e| e.main <= main) {
            self.drop_oldest();
        }
    }

    /// Births less deaths in a span after a main revision. `None` if the log does not
    /// reach back so far.
    pub fn born_after(&self, main: i64, span: &Span<'_>) -> Option<i64> {
        if main < self.whole_after {
            return None;
        }
        let mut sum = 0;
        for (chunk, first) in self.chunks_after(main) {
            let mut start = first.checked_sub(1).map_or(0, |i| chunk.entries[i].end as usize);
            for entry in &chunk.entries[first..] {
                let key = &chunk.text[start..entry.end as usize];
                start = entry.end as usize;
                if key >= span.start && span.before_end(key) {
                    sum += if entry.born { 1 } else { -1 };
                }
            }
        }
        Some(sum)
    }

    /// How many entries lie after a main revision. `None` if the log does not reach back so far.
    pub fn entries_after(&self, main: i64) -> Option<usize> {
        let whole = main >= self.whole_after;
        whole.then(|| self.chunks_after(main).map(|(c, first)| c.entries.len() - first).sum())
    }

    fn chunks_after(&self, main: i64) -> impl Iterator<Item = (&Chunk, usize)> {
        let reached = |c: &Chunk| c.entries.last().is_some_and(|e| e.main <= main);
        let from = self.chunks.partition_point(reached);
        self.chunks.range(from..).map(move |c| (c, c.entries.partition_point(|e| e.main <= main)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::range::KeyRange;

    #[test]
    fn tells_births_after_a_revision_until_it_is_trimmed() {
        let all = Span::of(&KeyRange::All);
        let mut log = Log::after(10);
        for main in 11..=20_000 {
            log.push(main, format!("key{main}").as_bytes(), main % 3 != 0);
        }
        let expected =
            |at: i64| (at + 1..=20_000).map(|m| if m % 3 != 0 { 1 } else { -1 }).sum::<i64>();
        for at in [10, 11, 12, 1033, 1034, 1035, 1036, 15_000, 19_999, 20_000, i64::MAX - 1] {
            assert_eq!(log.born_after(at, &all), Some(expected(at)), "{at}");
        }
        assert_eq!(log.born_after(9, &all), None);
        assert_eq!(log.entries_after(19_990), Some(10));
        let one = KeyRange::Single(bytes::Bytes::from_static(b"key19999"));
        assert_eq!(log.born_after(11, &Span::of(&one)), Some(1));
        log.trim(5000);
        assert_eq!(log.born_after(5000, &all), Some(expected(5000)));
        assert_eq!(log.born_after(100, &all), None);
    }

    #[test]
    fn is_bounded() {
        let mut log = Log::after(0);
        for main in 1..=200_000 {
            log.push(main, b"key", true);
        }
        let all = Span::of(&KeyRange::All);
        assert!(log.chunks.len() <= CHUNKS);
        assert_eq!(log.born_after(1, &all), None);
        assert_eq!(log.born_after(190_000, &all), Some(10_000));
        log.push(200_001, &vec![0; CHUNK_TEXT + 1], true);
        assert_eq!(log.born_after(200_000, &all), None);
        assert_eq!(log.born_after(200_001, &all), Some(0));
    }
}
