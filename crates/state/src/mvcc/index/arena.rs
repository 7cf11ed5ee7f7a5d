//! Things by number: nodes and histories refer to each other with four bytes. Not here: what they are.

/// Slots of one chunk; chunks never move, so that growing never copies what is there.
const CHUNK: usize = 1024;

/// The number of nothing.
pub(super) const NONE: u32 = u32::MAX;

/// Slots with numbers; a freed number is used again.
#[derive(Debug)]
pub(super) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Arena<T> {
    /// Takes a thing in.
    pub fn add(&mut self, thing: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self[id] = thing;
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows like any vector: a small index stays small.
            let room = if self.chunks.is_empty() { 4 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(room));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("one was just made sure of");
        let id = u32::try_from(before + chunk.len()).expect("fewer than 2^32 slots");
        chunk.push(thing);
        id
    }

    /// Gives a slot back, and what it held.
    pub fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        std::mem::take(&mut self[id])
    }
}

impl<T> std::ops::Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}

impl<T> std::ops::IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}
