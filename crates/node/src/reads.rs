//! Linearizable reads that have to ask: one read-index round for all that arrived before it began, never
//! for those after. Not here: the read itself, and lone leaders, whose reads need not ask.

use raft::{RawNode, ReadState};

use crate::log::Log;

/// A round that got no answer is asked again after this long, as etcd does: raft drops what it cannot
/// answer yet.
const RETRY_MS: u64 = 500;

struct Reader<T> {
    caller: T,
    deadline_ms: u64,
}

struct Round<T> {
    context: u64,
    asked_ms: u64,
    readers: Vec<Reader<T>>,
}

/// Readers in the three stages of a read-index round.
pub struct Reads<T> {
    /// Arrived since the last round began.
    waiting: Vec<Reader<T>>,
    /// Their round is under way.
    round: Option<Round<T>>,
    /// Confirmed: they may read once this index is applied.
    confirmed: Vec<(u64, Reader<T>)>,
    contexts: u64,
}

impl<T> Reads<T> {
    /// No reader. Contexts start at `seed`, so that a late answer to an earlier run is nobody's.
    pub fn new(seed: u64) -> Self {
        Self { waiting: Vec::new(), round: None, confirmed: Vec::new(), contexts: seed }
    }

    /// One more reader.
    pub fn push(&mut self, caller: T, deadline_ms: u64) {
        self.waiting.push(Reader { caller, deadline_ms });
    }

    /// Begins a round where one is due, or asks again.
    pub fn ask(&mut self, raft: &mut RawNode<Log>, now_ms: u64) {
        match &mut self.round {
            Some(round) if now_ms.saturating_sub(round.asked_ms) >= RETRY_MS => {
                round.asked_ms = now_ms;
                raft.read_index(round.context.to_be_bytes().to_vec());
            }
            Some(_) => {}
            None if self.waiting.is_empty() => {}
            None => {
                self.contexts = self.contexts.wrapping_add(1);
                let readers = std::mem::take(&mut self.waiting);
                self.round = Some(Round { context: self.contexts, asked_ms: now_ms, readers });
                raft.read_index(self.contexts.to_be_bytes().to_vec());
            }
        }
    }

    /// Raft's answers. One whose context is not the round's is late or somebody else's.
    pub fn answered(&mut self, states: Vec<ReadState>) {
        for state in states {
            let ours = self
                .round
                .as_ref()
                .is_some_and(|r| r.context.to_be_bytes().as_slice() == state.request_ctx);
            if ours {
                let readers = self.round.take().expect("checked above").readers;
                self.confirmed.extend(readers.into_iter().map(|r| (state.index, r)));
            }
        }
    }

    /// Readers whose index is applied.
    pub fn release(&mut self, applied: u64, mut ready: impl FnMut(T)) {
        for (_, reader) in self.confirmed.extract_if(.., |(index, _)| *index <= applied) {
            ready(reader.caller);
        }
    }

    /// Everybody: whatever is published now holds what was acknowledged before they asked.
    pub fn release_all(&mut self, mut ready: impl FnMut(T)) {
        self.waiting.drain(..).for_each(|r| ready(r.caller));
        self.confirmed.drain(..).for_each(|(_, r)| ready(r.caller));
        if let Some(round) = self.round.take() {
            round.readers.into_iter().for_each(|r| ready(r.caller));
        }
    }

    /// The leader has changed: the round under way will not be answered.
    pub fn leader_changed(&mut self, mut lost: impl FnMut(T)) {
        if let Some(round) = self.round.take() {
            round.readers.into_iter().for_each(|r| lost(r.caller));
        }
    }

    /// Readers whose time is up.
    pub fn expire(&mut self, now_ms: u64, mut gone: impl FnMut(T)) {
        let late = |r: &Reader<T>| r.deadline_ms <= now_ms;
        self.waiting.extract_if(.., |r| late(r)).for_each(|r| gone(r.caller));
        self.confirmed.extract_if(.., |(_, r)| late(r)).for_each(|(_, r)| gone(r.caller));
        if let Some(round) = &mut self.round {
            round.readers.extract_if(.., |r| late(r)).for_each(|r| gone(r.caller));
            if round.readers.is_empty() {
                self.round = None;
            }
        }
    }

    /// When [`Reads::ask`] wants to be called again, if nothing else happens.
    pub fn wake_at(&self) -> Option<u64> {
        self.round.as_ref().map(|r| r.asked_ms + RETRY_MS)
    }
}
