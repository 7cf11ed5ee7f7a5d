//! Watches through the server.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::stream::{Command, New, Task};
use super::{WatchSpec, WatchStream, Watcher};
use crate::call::hub::Hub;
use crate::call::{CallOptions, Core};
use crate::error::{Error, Result};
use crate::kv::BoxFuture;

/// Asks the server.
pub(crate) struct CoreWatcher {
    core: Arc<Core>,
    hub: Arc<Hub<Command>>,
}

impl CoreWatcher {
    pub fn new(core: Arc<Core>) -> CoreWatcher {
        CoreWatcher { core, hub: Arc::default() }
    }

    fn send(
        &self,
        options: CallOptions,
        command: impl FnOnce(&mpsc::UnboundedSender<Command>) -> Command,
    ) {
        let (core, hub) = (self.core.clone(), self.hub.clone());
        let run = |options, commands| Task::new(core, hub, options, commands).run();
        self.hub.tell(options, "watches", run, |sender| {
            let _ = sender.send(command(sender));
        });
    }
}

impl Watcher for CoreWatcher {
    fn watch(&self, options: CallOptions, spec: WatchSpec) -> BoxFuture<Result<WatchStream>> {
        let limit = options.timeout;
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
        self.send(options, |_| Command::Progress);
        Box::pin(async { Ok(()) })
    }
}
