//! What becomes of a stream's watchers when permissions change. Not here: permissions (`auth`).

use std::borrow::Cow;

use etch_api::{Error, KeyRange, Status};

use super::{HistorySource, OutMessage, StreamState};

impl StreamState {
    /// Ends the watchers whose range may not be watched any more. What waits for them in `out` and was not
    /// sent goes with them: it may be from after the change.
    pub fn recheck(
        &mut self,
        mut may: impl FnMut(&KeyRange) -> Result<(), Error>,
        source: &dyn HistorySource,
        out: &mut Vec<OutMessage>,
    ) {
        let refused: Vec<(i64, u32, Error)> = self
            .ids
            .iter()
            .filter_map(|(&id, &at)| Some((id, at, may(&self.watcher(at).range).err()?)))
            .collect();
        for (id, at, error) in refused {
            self.ids.remove(&id);
            self.remove(at);
            out.retain(|message| message.watch_id != id || message.events.is_none());
            out.push(OutMessage {
                revision: source.revision(),
                watch_id: id,
                canceled: true,
                cancel_reason: Cow::Owned(Status::from(error).to_string()),
                ..OutMessage::default()
            });
        }
    }
}
