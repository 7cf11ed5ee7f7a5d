//! What a connection, its replies and its streams know together: the streams
//! themselves, how many calls there are, the counters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use crate::call::{Handler, Peer};
use crate::codec::Mux;
use crate::codec::streams::remember;
use crate::deadline::Deadlines;
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
    mux: RefCell<Mux>,
    /// Unary calls that have one.
    pub(crate) deadlines: RefCell<Deadlines>,
    calls: Cell<u32>,
    partial: Cell<usize>,
    /// The connection's task.
    task: RefCell<Option<Waker>>,
    /// It runs, or will, and sees what is done meanwhile.
    awake: Cell<bool>,
}

impl Shared {
    pub(crate) fn new<H: Handler>(limits: Rc<Limits>, peer: Peer, handler: Rc<H>) -> Shared {
        Shared {
            mux: RefCell::new(Mux::new(limits.clone())),
            limits,
            peer: Rc::new(peer),
            handler,
            deadlines: RefCell::default(),
            calls: Cell::new(0),
            partial: Cell::new(0),
            task: RefCell::default(),
            awake: Cell::new(true),
        }
    }

    /// Does something with the streams, and sees to it that what comes of it
    /// is written. Nothing of the handler's may run within.
    pub(crate) fn mux<T>(&self, ask: impl FnOnce(&mut Mux) -> T) -> T {
        let mut mux = self.mux.borrow_mut();
        let before = mux.work();
        let answer = ask(&mut mux);
        let (pending, ring) = mux.work();
        if (pending > before.0 || ring > before.1) && !self.awake.replace(true) {
            drop(mux);
            if let Some(task) = &*self.task.borrow() {
                task.wake_by_ref();
            }
        }
        answer
    }

    /// The same for the connection itself, which writes by itself.
    pub(crate) fn quietly<T>(&self, ask: impl FnOnce(&mut Mux) -> T) -> T {
        ask(&mut self.mux.borrow_mut())
    }

    /// The connection runs: all that is done until [`Shared::sleep`] it sees.
    pub(crate) fn run(&self, task: &Waker) {
        remember(&mut self.task.borrow_mut(), task);
        self.awake.set(true);
    }

    /// The connection is about to write: what is done from now on has to
    /// wake it.
    pub(crate) fn sleep(&self) {
        self.awake.set(false);
    }

    /// Calls whose answer has not ended.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.get()
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.handler.stats()
    }

    /// So many messages were taken to be sent, of this length together.
    pub(crate) fn messages_out(&self, messages: usize, len: usize) {
        let stats = self.stats();
        stats.messages_out.add(messages as u64);
        stats.message_bytes_out.add(len as u64);
        self.mux.borrow_mut().sent.messages += messages as u64;
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
        // Replies and streams may live on, but nobody hears of them.
        self.0.mux.borrow_mut().close();
        self.0.stats().connections.sub(1);
    }
}
