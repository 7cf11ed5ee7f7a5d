//! The store as a source of history for watchers. Not here: how it is read (`mvcc`).

use std::io;

use bytes::Bytes;
use etch_api::KeyRange;

use super::{HistoryError, HistorySource};
use crate::mvcc::{Budget, Event, History, ReadError, Store};

impl HistorySource for Store {
    fn revision(&self) -> i64 {
        Store::revision(self)
    }

    fn compact_revision(&self) -> i64 {
        Store::compact_revision(self)
    }

    fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        budget: Budget,
    ) -> Result<History, HistoryError> {
        Store::history(self, range, from, to, budget).map_err(|error| match error {
            // The only request that can fail here is one for what is compacted.
            ReadError::Request(_) => HistoryError::Compacted(Store::compact_revision(self)),
            ReadError::Io(error) => HistoryError::Io(error),
        })
    }

    fn previous_kv(&self, event: &Event) -> io::Result<Option<Bytes>> {
        Store::previous_kv(self, event)
    }
}
