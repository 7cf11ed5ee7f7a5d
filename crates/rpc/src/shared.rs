//! What a connection, its replies and its streams know together: how many
//! calls there are, how much is waiting for the socket, the counters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use crate::call::{Handler, Peer};
use crate::deadline::Deadlines;
use crate::flood::Sent;
use crate::limits::Limits;
use crate::stats::Stats;
use crate::status::{Code, Status};

trait HasStats {
    fn stats(&self) -> &Stats;
}

impl<H: Handler> HasStats for H {
    fn stats(&self) -> &Stats {
        Handler::stats(self)
    }
}

/// What the connection, its replies and its streams know together.
pub(crate) struct Shared {
    pub(crate) limits: Rc<Limits>,
    pub(crate) peer: Rc<Peer>,
    handler: Rc<dyn HasStats>,
    /// Bytes handed to HTTP/2 since the socket last kept up.
    handed: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    /// What went out, for the judge.
    pub(crate) sent: Sent,
    /// Streams that we have reset, for the judge.
    pub(crate) resets: Cell<u32>,
    /// Unary calls that have one.
    pub(crate) deadlines: RefCell<Deadlines>,
    calls: Cell<u32>,
    partial: Cell<usize>,
    closed: Cell<bool>,
}

impl Shared {
    pub(crate) fn new<H: Handler>(limits: Rc<Limits>, peer: Peer, handler: Rc<H>) -> Shared {
        Shared {
            limits,
            peer: Rc::new(peer),
            handler,
            handed: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
            sent: Sent::default(),
            resets: Cell::new(0),
            deadlines: RefCell::default(),
            calls: Cell::new(0),
            partial: Cell::new(0),
            closed: Cell::new(false),
        }
    }

    /// Calls whose answer has not ended.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.get()
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.handler.stats()
    }

    /// Headers, or this many bytes of data, were given to HTTP/2.
    pub(crate) fn sent(&self, bytes: usize) {
        self.handed.set(self.handed.get() + bytes);
        self.sent.bytes.set(self.sent.bytes.get() + bytes as u64);
        self.sent.any.set(true);
    }

    /// A message of this length was taken to be sent.
    pub(crate) fn message_out(&self, len: usize) {
        let stats = self.stats();
        stats.messages_out.add(1);
        stats.message_bytes_out.add(len as u64);
        self.sent.messages.set(self.sent.messages.get() + 1);
    }

    /// A stream was reset by us.
    pub(crate) fn reset(&self) {
        self.resets.set(self.resets.get() + 1);
    }

    /// Whether the connection's buffer has room for large things.
    pub(crate) fn may_send(&self) -> bool {
        self.handed.get() < self.limits.send_buffer
    }

    /// Wakes this once the buffer has room again.
    pub(crate) fn wait_to_send(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// The socket has taken everything.
    pub(crate) fn kept_up(&self) {
        self.handed.set(0);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn call_began(&self) {
        self.calls.set(self.calls.get() + 1);
        self.stats().calls.add(1);
        self.stats().calls_in_flight.add(1);
    }

    pub(crate) fn call_ended(&self) {
        self.calls.set(self.calls.get() - 1);
        self.stats().calls_in_flight.sub(1);
    }

    /// Whether those who wait for the rest of a message hold too much.
    fn partial_is_full(&self) -> bool {
        let (ours, limits) = (self.partial.get(), &self.limits);
        let all = self.stats().partial_bytes.get() as usize;
        ours > limits.max_partial_bytes
            || (all > limits.max_partial_bytes_all && ours > limits.fair_partial_bytes)
            || all > 2 * limits.max_partial_bytes_all
    }
}

/// What one call holds of a message that has not come in whole.
pub(crate) struct Held {
    shared: Rc<Shared>,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(shared: Rc<Shared>) -> Held {
        Held { shared, bytes: 0 }
    }

    /// It holds so much now. An error says that it may not.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Status> {
        if bytes == self.bytes {
            return Ok(());
        }
        let (before, grows) = (self.bytes, bytes > self.bytes);
        self.bytes = bytes;
        self.shared.partial.set(self.shared.partial.get() - before + bytes);
        let stats = self.shared.stats();
        stats.partial_bytes.sub(before as u64);
        stats.partial_bytes.add(bytes as u64);
        if grows && self.shared.partial_is_full() {
            let text = "too many bytes of unfinished requests";
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // To hold nothing is never an error.
        let _ = self.set(0);
    }
}

/// Counts the connection while it is open, and lets go of whoever waits for it
/// when it is not.
pub(crate) struct Open(Rc<Shared>);

impl Open {
    pub(crate) fn new(shared: Rc<Shared>) -> Open {
        shared.stats().connections_opened.add(1);
        shared.stats().connections.add(1);
        Open(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.set(true);
        self.0.kept_up();
        self.0.stats().connections.sub(1);
    }
}
