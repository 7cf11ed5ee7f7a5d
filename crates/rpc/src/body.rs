//! Unary requests whose body has not come in whole when the call was accepted,
//! and the waker that says which of them have more: no task for each, and no
//! walk over all of them when one moves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::RecvStream;

use crate::call::CallInfo;
use crate::deframe::Deframer;
use crate::reply::Reply;
use crate::shared::Held;
use crate::status::{Code, Status};

/// Wakes the connection's task, unless it is running: then it only goes round
/// once more. Without this every answer given inside a turn would cost a
/// needless poll of the whole task.
pub(crate) struct TurnWaker {
    in_turn: AtomicBool,
    again: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl TurnWaker {
    pub(crate) fn new() -> Arc<TurnWaker> {
        Arc::new(TurnWaker {
            in_turn: AtomicBool::new(false),
            again: AtomicBool::new(false),
            task: Mutex::new(None),
        })
    }

    pub(crate) fn enter(&self, task: &Waker) {
        let mut slot = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|w| w.will_wake(task)) {
            *slot = Some(task.clone());
        }
        self.in_turn.store(true, Ordering::SeqCst);
    }

    /// Whether anything has happened since this was asked last.
    pub(crate) fn take_again(&self) -> bool {
        self.again.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn leave(&self) {
        self.in_turn.store(false, Ordering::SeqCst);
        if self.take_again() {
            self.wake_task();
        }
    }

    fn wake_task(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

impl Wake for TurnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.in_turn.load(Ordering::SeqCst) {
            self.again.store(true, Ordering::SeqCst);
        } else {
            self.wake_task();
        }
    }
}

/// A unary call whose message is not there yet.
pub(crate) struct Call {
    pub(crate) method: u16,
    pub(crate) info: CallInfo,
    pub(crate) reply: Reply,
    pub(crate) body: RecvStream,
    pub(crate) deframer: Deframer,
    pub(crate) held: Held,
}

/// What became of a body that was looked at.
pub(crate) enum Read {
    Message(Bytes),
    Wait,
    Bad(Status),
    Gone,
}

impl Call {
    /// Reads what has come in. The first message is the request; Go's server
    /// does not wait for the end of the stream behind it, nor does this.
    pub(crate) fn read(&mut self, cx: &mut Context<'_>) -> Read {
        let read = self.read_more(cx);
        let held = if matches!(read, Read::Wait) { self.deframer.held() } else { 0 };
        match self.held.set(held) {
            Ok(()) => read,
            Err(status) => Read::Bad(status),
        }
    }

    fn read_more(&mut self, cx: &mut Context<'_>) -> Read {
        loop {
            match self.body.poll_data(cx) {
                Poll::Pending => return Read::Wait,
                Poll::Ready(Some(Ok(data))) => {
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.deframer.push(data);
                    match self.deframer.next() {
                        Ok(Some(message)) => return Read::Message(message),
                        Ok(None) => {}
                        Err(status) => return Read::Bad(status),
                    }
                }
                Poll::Ready(Some(Err(_))) => return Read::Gone,
                Poll::Ready(None) => {
                    let text = if self.deframer.held() > 0 { "unexpected EOF" } else { "EOF" };
                    return Read::Bad(Status::new(Code::Unknown, text));
                }
            }
        }
    }
}

/// The calls that wait for more of their bodies.
pub(crate) struct Partial {
    slots: Vec<Option<(Call, Waker)>>,
    free: Vec<usize>,
    /// Slots to look at.
    moved: Vec<usize>,
    ready: Arc<Ready>,
}

struct Ready {
    list: Mutex<Vec<usize>>,
    turn: Arc<TurnWaker>,
}

struct SlotWaker {
    slot: usize,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.list.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
        self.ready.turn.wake_by_ref();
    }
}

impl Partial {
    pub(crate) fn new(turn: Arc<TurnWaker>) -> Partial {
        let ready = Arc::new(Ready { list: Mutex::new(Vec::new()), turn });
        Partial { slots: Vec::new(), free: Vec::new(), moved: Vec::new(), ready }
    }

    /// Puts a call away, and looks at once whether its body has moved, with
    /// the slot's own waker.
    pub(crate) fn insert(&mut self, call: Call) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let waker = Waker::from(Arc::new(SlotWaker { slot, ready: self.ready.clone() }));
        self.slots[slot] = Some((call, waker));
        self.ready.list.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    /// Reads the bodies that have moved; gives the next call that is through,
    /// with what became of it.
    pub(crate) fn next_through(&mut self) -> Option<(Call, Read)> {
        loop {
            if self.moved.is_empty() {
                let mut list = self.ready.list.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut *list, &mut self.moved);
            }
            let slot = self.moved.pop()?;
            // A slot may be named twice, or by a waker of the call it held before.
            let Some((call, waker)) = &mut self.slots[slot] else { continue };
            let read = call.read(&mut Context::from_waker(waker));
            if matches!(read, Read::Wait) {
                continue;
            }
            if let Some((call, _)) = self.slots[slot].take() {
                self.free.push(slot);
                return Some((call, read));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wake_inside_the_turn_goes_round_and_one_outside_wakes() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let task = Waker::from(count.clone());
        let turn = TurnWaker::new();
        turn.enter(&task);
        turn.wake_by_ref();
        assert!(turn.take_again());
        turn.leave();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        turn.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        turn.enter(&task);
        turn.wake_by_ref();
        turn.leave();
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "a wake is not lost at the turn's end");
    }
}
