//! Which stream a watch goes to: one for each set of options, begun when first needed, ended when nobody watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::stream::{Command, New, Task};
use super::{WatchSpec, WatchStream, Watcher};
use crate::call::{CallOptions, Core};
use crate::error::{Error, Result};
use crate::kv::BoxFuture;

/// Watches through the server.
pub(crate) struct CoreWatcher {
    core: Arc<Core>,
    hub: Arc<Hub>,
}

/// The streams that run.
#[derive(Default)]
pub(super) struct Hub(Mutex<HashMap<CallOptions, mpsc::UnboundedSender<Command>>>);

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<CallOptions, mpsc::UnboundedSender<Command>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a stream without watches go. False if somebody has just given it one.
    pub fn leave(
        &self,
        options: &CallOptions,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> bool {
        // New watches are sent under this lock.
        let mut streams = self.lock();
        if !commands.is_empty() {
            return false;
        }
        commands.close();
        streams.remove(options);
        true
    }
}

impl CoreWatcher {
    pub fn new(core: Arc<Core>) -> CoreWatcher {
        CoreWatcher { core, hub: Arc::default() }
    }
}

impl CoreWatcher {
    fn send(
        &self,
        options: CallOptions,
        command: impl FnOnce(&mpsc::UnboundedSender<Command>) -> Command,
    ) {
        let mut streams = self.hub.lock();
        let sender = streams.entry(options.clone()).or_insert_with(|| {
            let (sender, commands) = mpsc::unbounded_channel();
            let task = Task::new(self.core.clone(), self.hub.clone(), options, commands);
            tokio::spawn(task.run());
            sender
        });
        let command = command(sender);
        let _ = sender.send(command);
    }
}

impl Watcher for CoreWatcher {
    fn watch(&self, options: CallOptions, spec: WatchSpec) -> BoxFuture<Result<WatchStream>> {
        let limit = options.timeout;
        // The stream outlives the time limit of setting up one watch.
        let options = CallOptions { timeout: None, ..options };
        let (made, waiting) = oneshot::channel();
        self.send(options, |commands| {
            Command::Watch(Box::new(New { spec, made, commands: commands.clone() }))
        });
        Box::pin(async move {
            let waiting = async { waiting.await.unwrap_or(Err(Error::Closed)) };
            match limit {
                None => waiting.await,
                Some(limit) => tokio::time::timeout(limit, waiting)
                    .await
                    .unwrap_or(Err(Error::Deadline { sent: true })),
            }
        })
    }

    fn request_progress(&self, options: CallOptions) -> BoxFuture<Result<()>> {
        self.send(CallOptions { timeout: None, ..options }, |_| Command::Progress);
        Box::pin(async { Ok(()) })
    }
}
