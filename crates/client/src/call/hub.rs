//! Which task a watch or a lease goes to: one for each set of options, begun when first needed, ended when it has
//! nothing left to keep.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::Instrument;

use super::CallOptions;

type Senders<C> = HashMap<CallOptions, UnboundedSender<C>>;

/// The tasks that run, by what they are told.
pub(crate) struct Hub<C>(Mutex<Senders<C>>);

impl<C> Default for Hub<C> {
    fn default() -> Hub<C> {
        Hub(Mutex::default())
    }
}

impl<C> Hub<C> {
    fn lock(&self) -> MutexGuard<'_, Senders<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the task of these options something; begins it, within this span, if there is none. A stream outlives the
    /// time limit of what begins it.
    pub fn tell<R, F>(
        &self,
        options: CallOptions,
        span: &'static str,
        run: impl FnOnce(CallOptions, UnboundedReceiver<C>) -> F,
        tell: impl FnOnce(&UnboundedSender<C>) -> R,
    ) -> R
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let options = CallOptions { timeout: None, ..options };
        let mut tasks = self.lock();
        let sender = tasks.entry(options.clone()).or_insert_with(|| {
            let (sender, commands) = unbounded_channel();
            let span = tracing::debug_span!("etch_client.stream", of = span);
            tokio::spawn(run(options, commands).instrument(span));
            sender
        });
        tell(sender)
    }

    /// Lets a task that has nothing left go. False if it has just been told something.
    pub fn leave(&self, options: &CallOptions, commands: &mut UnboundedReceiver<C>) -> bool {
        // Tasks are told things under this lock.
        let mut tasks = self.lock();
        if !commands.is_empty() {
            return false;
        }
        commands.close();
        tasks.remove(options);
        true
    }
}
