//! A connection that is carried: both its directions until both have ended, and how a thread ends those that
//! it carries. Not here: how bytes move (`flow`), who is connected with whom (`lane`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::flow::{Flow, Lent};
use super::lane::One;

/// Both directions of a connection.
pub(super) struct Relay {
    client: TcpStream,
    server: TcpStream,
    up: Flow,
    down: Flow,
    lent: Rc<Lent>,
    traffic: Rc<Traffic>,
    _one: One,
}

/// What can be seen of a relay from outside.
#[derive(Default)]
pub(super) struct Traffic {
    moved: Cell<u64>,
    holds: Cell<bool>,
}

impl Traffic {
    /// Bytes that were taken in, both ways.
    pub(super) fn moved(&self) -> u64 {
        self.moved.get()
    }

    /// Whether bytes wait for one who does not take them.
    pub(super) fn holds(&self) -> bool {
        self.holds.get()
    }
}

impl Relay {
    /// Between these two.
    pub(super) fn new(client: TcpStream, server: TcpStream, lent: Rc<Lent>, one: One) -> Self {
        let traffic = Rc::default();
        let (up, down) = (Flow::default(), Flow::default());
        Self { client, server, up, down, lent, traffic, _one: one }
    }

    /// Where its traffic can be seen.
    pub(super) fn traffic(&self) -> Rc<Traffic> {
        Rc::clone(&self.traffic)
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Relay { client, server, up, down, lent, traffic, .. } = &mut *self;
        let upward = up.poll(cx, client, server, lent);
        let downward = down.poll(cx, server, client, lent);
        traffic.moved.set(up.moved + down.moved);
        traffic.holds.set(up.holds() || down.holds());
        match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// The relays of one thread.
#[derive(Default)]
pub(super) struct Relays {
    running: RefCell<HashMap<u64, Running>>,
    next: Cell<u64>,
}

struct Running {
    traffic: Rc<Traffic>,
    abort: AbortHandle,
}

/// A connection that has been quiet for so long has nothing under way, as far as can be seen.
const QUIET: Duration = Duration::from_secs(1);
/// Nobody gets more time than this to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

impl Relays {
    /// Runs a relay on this thread, until it ends by itself or the thread stops.
    pub(super) fn run(self: &Rc<Self>, relay: Relay) {
        let number = self.next.get();
        self.next.set(number + 1);
        let traffic = relay.traffic();
        let gone = Gone(Rc::clone(self), number);
        let task = tokio::task::spawn_local(async move {
            let _gone = gone;
            relay.await;
        });
        let running = Running { traffic, abort: task.abort_handle() };
        self.running.borrow_mut().insert(number, running);
    }

    /// Ends all of them: each as soon as it is quiet.
    pub(super) async fn drain(&self) {
        let began = Instant::now();
        let mut seen: HashMap<u64, (u64, Instant)> = HashMap::new();
        while !self.running.borrow().is_empty() {
            let now = Instant::now();
            for (number, running) in &*self.running.borrow() {
                let moved = running.traffic.moved();
                let last = seen.entry(*number).or_insert((moved, now));
                if last.0 != moved || running.traffic.holds() {
                    *last = (moved, now);
                }
                if now - last.1 >= QUIET || now - began >= PATIENCE {
                    running.abort.abort();
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Takes a relay off the list, however it ends.
struct Gone(Rc<Relays>, u64);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.running.borrow_mut().remove(&self.1);
    }
}
