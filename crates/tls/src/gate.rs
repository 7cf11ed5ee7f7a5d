//! The bounds of handshakes on one thread: how many, how long, and that their arithmetic takes turns with
//! everybody else's work. Not here: what a handshake is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// What handshakes may cost a thread.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Handshakes under way at a time. Who comes beyond that pushes out the oldest: a client that means it has
    /// long been through by then.
    pub handshakes: usize,
    /// Time for one of them; etcd gives as much.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { handshakes: 4096, time: Duration::from_secs(10) }
    }
}

/// Where handshakes of one thread enter.
#[derive(Debug)]
pub struct Gate {
    bounds: Bounds,
    next: Cell<u64>,
    /// Those under way, oldest first; each is ended by dropping its sender.
    open: RefCell<BTreeMap<u64, oneshot::Sender<()>>>,
    /// Held for the expensive step.
    turn: Semaphore,
}

impl Gate {
    /// A gate for one thread.
    pub fn new(bounds: Bounds) -> Rc<Gate> {
        Rc::new(Gate {
            bounds,
            next: Cell::new(0),
            open: RefCell::default(),
            turn: Semaphore::new(1),
        })
    }

    /// How many handshakes are under way.
    pub fn under_way(&self) -> usize {
        self.open.borrow().len()
    }

    pub(crate) fn time(&self) -> Duration {
        self.bounds.time
    }

    /// One handshake more: its place, and what ends when it is pushed out.
    pub(crate) fn enter(self: &Rc<Self>) -> (Place, oneshot::Receiver<()>) {
        let number = self.next.get();
        self.next.set(number + 1);
        let (sender, pushed_out) = oneshot::channel();
        let mut open = self.open.borrow_mut();
        if open.len() >= self.bounds.handshakes {
            open.pop_first();
        }
        open.insert(number, sender);
        (Place { gate: Rc::clone(self), number }, pushed_out)
    }

    /// Runs the expensive step of a handshake. Between two of them everybody else on the thread has had a turn,
    /// however many handshakes there are.
    pub(crate) async fn take_turn<T>(&self, step: impl AsyncFnOnce() -> T) -> T {
        // The semaphore is never closed; if it were, there would be nothing to wait for.
        let turn = self.turn.acquire().await;
        let done = step().await;
        tokio::task::yield_now().await;
        drop(turn);
        done
    }
}

/// One of the handshakes under way.
pub(crate) struct Place {
    gate: Rc<Gate>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.open.borrow_mut().remove(&self.number);
    }
}
