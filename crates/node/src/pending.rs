//! The proposals that somebody waits for: from the moment they enter raft until they are applied or their
//! time is up. Not here: what they ask.

use std::collections::VecDeque;

/// Gives out the ids that pair an applied entry with its caller: two bytes of the member, then a counter
/// that starts at the time of the start, so that neither another member nor an earlier run of this one
/// gives out the same.
#[derive(Debug)]
struct Ids {
    prefix: u64,
    next: u64,
}

/// Bits of an id that are the counter's.
const COUNTER_BITS: u32 = 48;

impl Ids {
    fn new(member_id: u64, start_ms: u64) -> Self {
        let counter = (start_ms << 8) & ((1 << COUNTER_BITS) - 1);
        Self { prefix: (member_id & 0xffff) << COUNTER_BITS, next: counter }
    }

    fn at(&self, counter: u64) -> u64 {
        self.prefix | (counter & ((1 << COUNTER_BITS) - 1))
    }
}

struct Waiting<T> {
    caller: T,
    deadline_ms: u64,
    bytes: usize,
}

/// The callers that wait, in the order in which they came. A caller is any value: what it means is the
/// driver's matter.
pub struct Pending<T> {
    ids: Ids,
    /// The counter of `slots[0]`.
    base: u64,
    /// One slot an id given out since the oldest that is still waited for.
    slots: VecDeque<Option<Waiting<T>>>,
    waiting: usize,
    bytes: usize,
}

impl<T> Pending<T> {
    /// No one waits yet. `start_ms` is the wall clock at the start.
    pub fn new(member_id: u64, start_ms: u64) -> Self {
        let ids = Ids::new(member_id, start_ms);
        Self { base: ids.next, ids, slots: VecDeque::new(), waiting: 0, bytes: 0 }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Bytes of what they ask.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A new id, and its caller if anybody waits for it. `bytes` is the size of what is asked.
    pub fn register(&mut self, caller: Option<T>, deadline_ms: u64, bytes: usize) -> u64 {
        let id = self.ids.at(self.ids.next);
        self.ids.next += 1;
        if caller.is_some() {
            self.waiting += 1;
            self.bytes += bytes;
        }
        self.slots.push_back(caller.map(|caller| Waiting { caller, deadline_ms, bytes }));
        id
    }

    /// The id given out last.
    pub fn last_id(&self) -> u64 {
        self.ids.at(self.ids.next.wrapping_sub(1))
    }

    /// The caller who waits for this id, if there is one: it may have given up, or the entry may be
    /// another member's or an earlier run's.
    pub fn take(&mut self, id: u64) -> Option<T> {
        let first = self.ids.at(self.base);
        let at = usize::try_from(id.checked_sub(first)?).ok()?;
        let waiting = self.slots.get_mut(at)?.take()?;
        self.waiting -= 1;
        self.bytes -= waiting.bytes;
        self.drop_done();
        Some(waiting.caller)
    }

    /// The callers whose time is up. Their entries may still be applied.
    /// Each is told of with its id and its deadline.
    pub fn expire(&mut self, now_ms: u64, mut gone: impl FnMut(u64, u64, T)) {
        // Callers come in order and all wait equally long: the first that may stay ends the search.
        for (at, slot) in self.slots.iter_mut().enumerate() {
            match slot {
                Some(waiting) if waiting.deadline_ms > now_ms => break,
                Some(waiting) => {
                    self.waiting -= 1;
                    self.bytes -= waiting.bytes;
                    let id = self.ids.at(self.base + at as u64);
                    let Waiting { caller, deadline_ms, .. } = slot.take().expect("matched above");
                    gone(id, deadline_ms, caller);
                }
                None => {}
            }
        }
        self.drop_done();
    }

    /// Everybody who still waits.
    pub fn drain(&mut self, mut gone: impl FnMut(T)) {
        self.expire(u64::MAX, |_, _, caller| gone(caller));
    }

    fn drop_done(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_is_found_once_under_its_own_id() {
        let mut pending = Pending::new(0x1234_5678, 1000);
        let a = pending.register(Some('a'), 10, 7);
        let silent = pending.register(None, 10, 7);
        let b = pending.register(Some('b'), 10, 7);
        assert_eq!(a >> 48, 0x5678);
        assert_eq!((pending.len(), pending.bytes()), (2, 14));
        assert_eq!(pending.take(b), Some('b'));
        assert_eq!(pending.take(b), None);
        assert_eq!(pending.take(silent), None);
        assert_eq!(pending.take(a), Some('a'));
        assert_eq!(pending.take(a), None);
        assert_eq!(pending.take(a.wrapping_sub(1)), None, "an earlier run's");
        assert!(pending.slots.is_empty());
    }

    #[test]
    fn those_whose_time_is_up_go_and_the_others_stay() {
        let mut pending = Pending::new(1, 0);
        let a = pending.register(Some('a'), 10, 7);
        let b = pending.register(Some('b'), 20, 7);
        let mut gone = Vec::new();
        pending.expire(10, |id, deadline, c| gone.push((id, deadline, c)));
        assert_eq!(gone, [(a, 10, 'a')]);
        let mut gone = vec!['a'];
        assert_eq!(pending.take(b), Some('b'));
        pending.register(Some('c'), 30, 7);
        pending.drain(|c| gone.push(c));
        assert_eq!((gone, pending.len(), pending.bytes()), (vec!['a', 'c'], 0, 0));
    }
}
