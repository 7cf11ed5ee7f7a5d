//! Outcomes on their way to a net thread: one lock and one wake for a whole batch. Not here: what the
//! net thread does with them (`net`).

use std::mem;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::inbox::Outcome;

/// A net thread's mailbox.
#[derive(Default)]
pub struct Mailbox {
    outcomes: Mutex<Vec<(usize, Outcome)>>,
    filled: Notify,
}

impl Mailbox {
    /// Adds outcomes by their slots and wakes the thread once.
    pub fn deliver(&self, batch: &mut Vec<(usize, Outcome)>) {
        if batch.is_empty() {
            return;
        }
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).append(batch);
        self.filled.notify_one();
    }

    /// Wakes the thread without an outcome: its watch streams have something to look at.
    pub fn ring(&self) {
        self.filled.notify_one();
    }

    /// Waits for a wake, then moves what is there to `out`, which must be empty.
    pub async fn receive(&self, out: &mut Vec<(usize, Outcome)>) {
        self.filled.notified().await;
        mem::swap(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner), out);
    }
}
