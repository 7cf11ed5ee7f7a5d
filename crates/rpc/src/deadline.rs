//! Deadlines of unary calls: a call that has one is kept here until it is
//! answered, and when its time is over it is answered here. No timer for each:
//! the connection's clock asks for the next one, and a look at all of them
//! comes at most every [`STEP`]. Not here: deadlines of streams (`stream`).

use std::time::{Duration, Instant};

use h2::Reason;

use crate::reply::Inner;
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
    Open(Open),
    /// Answered here; its reply does not know yet.
    Over,
}

pub(crate) struct Open {
    at: Instant,
    /// The request has come in whole and is with the handler.
    whole: bool,
    inner: Inner,
}

impl Deadlines {
    pub(crate) fn insert(&mut self, at: Instant, inner: Inner) -> usize {
        let open = Slot::Open(Open { at, whole: false, inner });
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
            let Slot::Open(open) = slot else { continue };
            if open.at > now {
                self.next = Some(self.next.map_or(open.at, |next| next.min(open.at)));
            } else if let Slot::Open(open) = std::mem::replace(slot, Slot::Over) {
                over.push(open);
            }
        }
        over
    }
}

impl Open {
    /// Ends the call as Go's server does: a client that has not even sent all
    /// of its request gets no answer but a reset, so that nothing of it stays.
    pub(crate) fn end(mut self) {
        if self.whole {
            self.inner.refuse(&Status::new(Code::DeadlineExceeded, "context deadline exceeded"));
        } else {
            self.inner.reset(Reason::CANCEL);
        }
    }
}
