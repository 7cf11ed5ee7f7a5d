//! Large answers to ranges: made while they are sent, as the client's window opens. They are read from a root
//! of the B+tree, and a root that is held keeps its pages from being used again, so the answers of clients
//! that have stopped reading let go of theirs. Not here: what is in an answer (`etch_state::mvcc`).

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_rpc::{PayloadSource, Status};
use etch_state::mvcc::{RangeReply, Store};

use super::{internal, status};
use crate::net::Net;

/// A root is held for about this long at the most; then the answer goes on from the newest one, which costs
/// next to nothing. So what a reader that has stopped keeps from being used again is what is written in this
/// time, however long it stops.
pub const ROOT_AGE: Duration = Duration::from_secs(1);
/// Where a compaction has overtaken an answer, the newest root has not all of it any more: then the rest is
/// copied. All such copies of a net thread together may take this much memory.
const COPIES: usize = 64 << 20;

/// The way of one answer.
struct Sending {
    header: Bytes,
    total: usize,
    /// None once it has ended, for better or worse.
    range: Option<RangeReply>,
    /// The rest of it is a copy.
    copied: bool,
    buffer: BytesMut,
    failed: Option<Status>,
}

impl Sending {
    fn next(&mut self, max: usize) -> Option<Result<Bytes, Status>> {
        if let Some(status) = self.failed.take() {
            return Some(Err(status));
        }
        if !self.header.is_empty() {
            return Some(Ok(std::mem::take(&mut self.header)));
        }
        let range = self.range.as_mut()?;
        match range.fill(&mut self.buffer, max.max(1)) {
            Ok(more) => {
                if !more {
                    self.range = None;
                }
                let piece = self.buffer.split().freeze();
                if piece.is_empty() { None } else { Some(Ok(piece)) }
            }
            Err(error) => {
                self.range = None;
                Some(Err(internal(&error)))
            }
        }
    }

    fn held(&self) -> usize {
        match &self.range {
            Some(range) if self.copied => range.remaining(),
            _ => 0,
        }
    }

    /// Lets go of the root: by going on from the newest, by a copy of at most `room` bytes, or by ending.
    fn let_go(&mut self, store: &Store, room: usize) {
        let Some(range) = &mut self.range else { return };
        if self.copied || range.renew(store) {
            return;
        }
        let copied = if range.remaining() <= room {
            range.detach()
        } else {
            Err(std::io::ErrorKind::OutOfMemory.into())
        };
        match copied {
            Ok(()) => self.copied = true,
            Err(error) => {
                self.range = None;
                self.failed = Some(match error.kind() {
                    std::io::ErrorKind::OutOfMemory => status(Error::Compacted),
                    _ => internal(&error),
                });
            }
        }
    }
}

/// A large answer: its header, then the keys and values.
pub struct LazyRange(Rc<RefCell<Sending>>);

impl LazyRange {
    /// The answer, known to its thread from now on.
    pub fn new(net: &Net, range: RangeReply) -> Self {
        let mut header = BytesMut::new();
        net.member.header.encode(range.revision, net.member.view.term(), &mut header, 1);
        let total = header.len() + range.encoded_len();
        let sending = Rc::new(RefCell::new(Sending {
            header: header.freeze(),
            total,
            range: Some(range),
            copied: false,
            buffer: BytesMut::new(),
            failed: None,
        }));
        net.large_answers.0.borrow_mut().push(Rc::downgrade(&sending));
        Self(sending)
    }
}

impl PayloadSource for LazyRange {
    fn total_len(&self) -> usize {
        self.0.borrow().total
    }

    fn next(&mut self, max: usize) -> Option<Result<Bytes, Status>> {
        self.0.borrow_mut().next(max)
    }
}

/// The large answers of a net thread that are under way.
#[derive(Default)]
pub struct LargeAnswers(RefCell<Vec<Weak<RefCell<Sending>>>>);

impl LargeAnswers {
    /// Lets every answer go of the root that it reads from. To be called once in [`ROOT_AGE`].
    pub fn let_go(&self, store: &Store) {
        let mut answers = self.0.borrow_mut();
        answers.retain(|answer| answer.strong_count() > 0);
        let under_way: Vec<_> = answers.iter().filter_map(Weak::upgrade).collect();
        let mut held: usize = under_way.iter().map(|answer| answer.borrow().held()).sum();
        for answer in under_way {
            let mut answer = answer.borrow_mut();
            let before = answer.held();
            answer.let_go(store, COPIES.saturating_sub(held));
            held += answer.held() - before;
        }
    }
}
