//! Deadlines of unary calls: a call that has one is kept here until it is
//! answered, and when its time is over it is answered here. No timer for each:
//! the connection's clock asks for the next one, and a look at all of them
//! comes at most every [`STEP`]. Not here: deadlines of streams (`stream`).

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::codec::frame::Reason;
use crate::codec::streams::Key;
use crate::reply::Inner;
use crate::shared::Shared;
use crate::status::{Code, Status};

/// No two looks follow each other closer than this.
const STEP: Duration = Duration::from_millis(10);

/// The calls with a deadline of one connection.
#[derive(Default)]
pub(crate) struct Deadlines {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// No call ends before this; there may be none that ends then.
    next: Option<Instant>,
    looked: Option<Instant>,
}

enum Slot {
    Free,
    Open(Waits),
    /// Answered here; its reply does not know yet.
    Over,
    /// Its answer is on its way, as its client takes it.
    Sending(Instant, Rc<Shared>, Key),
}

/// A call whose time is over.
pub(crate) enum Open {
    /// The request has come in whole, or not, and is not answered.
    Waits(Waits),
    /// Its answer is not out.
    Sending(Rc<Shared>, Key),
}

pub(crate) struct Waits {
    at: Instant,
    /// The request has come in whole and is with the handler.
    whole: bool,
    inner: Inner,
}

impl Deadlines {
    pub(crate) fn insert(&mut self, at: Instant, inner: Inner) -> usize {
        self.put(at, Slot::Open(Waits { at, whole: false, inner }))
    }

    /// The answer of a call is on its way.
    pub(crate) fn sending(&mut self, at: Instant, shared: Rc<Shared>, key: Key) -> usize {
        self.put(at, Slot::Sending(at, shared, key))
    }

    /// An answer is out, or never will be.
    pub(crate) fn sent(&mut self, slot: usize) {
        self.slots[slot] = Slot::Free;
        self.free.push(slot);
    }

    fn put(&mut self, at: Instant, open: Slot) -> usize {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = open;
                slot
            }
            None => {
                self.slots.push(open);
                self.slots.len() - 1
            }
        }
    }

    /// The request has come in whole.
    pub(crate) fn whole(&mut self, slot: usize) {
        if let Slot::Open(open) = &mut self.slots[slot] {
            open.whole = true;
        }
    }

    /// The call itself, while it is not over.
    pub(crate) fn get(&mut self, slot: usize) -> Option<&mut Inner> {
        match &mut self.slots[slot] {
            Slot::Open(open) => Some(&mut open.inner),
            _ => None,
        }
    }

    /// Takes the call out to be answered, if it is not over.
    pub(crate) fn take(&mut self, slot: usize) -> Option<Inner> {
        self.free.push(slot);
        match std::mem::replace(&mut self.slots[slot], Slot::Free) {
            Slot::Open(open) => Some(open.inner),
            _ => None,
        }
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let next = self.next?;
        Some(self.looked.map_or(next, |looked| next.max(looked + STEP)))
    }

    /// Takes out the calls whose time is over; they are to be ended.
    pub(crate) fn over(&mut self, now: Instant) -> Vec<Open> {
        let mut over = Vec::new();
        if self.next().is_none_or(|next| next > now) {
            return over;
        }
        self.looked = Some(now);
        self.next = None;
        for slot in &mut self.slots {
            let at = match slot {
                Slot::Open(open) => open.at,
                Slot::Sending(at, ..) => *at,
                Slot::Free | Slot::Over => continue,
            };
            if at > now {
                self.next = Some(self.next.map_or(at, |next| next.min(at)));
                continue;
            }
            match std::mem::replace(slot, Slot::Over) {
                Slot::Open(open) => over.push(Open::Waits(open)),
                Slot::Sending(_, shared, key) => over.push(Open::Sending(shared, key)),
                Slot::Free | Slot::Over => {}
            }
        }
        over
    }
}

impl Open {
    /// Ends the call as Go's server does: a client that has not even sent all
    /// of its request gets no answer but a reset, so that nothing of it stays.
    /// Gives the stream back that was not even read.
    pub(crate) fn end(self) -> Option<Key> {
        match self {
            Open::Waits(Waits { whole: true, inner, .. }) => {
                let status = Status::new(Code::DeadlineExceeded, "context deadline exceeded");
                inner.refuse(&status);
                None
            }
            Open::Waits(Waits { inner, .. }) => {
                inner.reset(Reason::CANCEL);
                Some(inner.key)
            }
            Open::Sending(shared, key) => {
                shared.mux(|mux| mux.reset(key, Reason::CANCEL));
                None
            }
        }
    }
}
