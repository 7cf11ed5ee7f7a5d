//! Multi-version keys: the index in memory, the values that are not yet committed, and the store that
//! joins them with the B+tree. Not here: what a transaction means (`txn`), and who watches (`watch`).

mod compact;
mod dropped;
mod event;
mod hash;
mod history;
pub mod index;
mod load;
mod read;
mod reply;
mod revision;
mod stats;
mod store;
mod stream;
pub mod survey;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod write;

pub use compact::Step;
pub use event::{Event, EventKind};
pub use hash::HashKv;
pub use history::{Budget, History};
pub use load::Loaded;
pub use read::{ReadError, has_revision_filters, is_default_order};
pub use reply::RangeReply;
pub use revision::Revision;
pub use stats::{Counter, Stats};
pub use store::{Store, commit};
pub use stream::{Chunk, RangeChunks};
pub use value::KeyValue;
pub use write::{LeaseHook, Pending, WriteBatch, Writer};

pub(crate) use load::schedule_compaction;
pub(crate) use read::{View, resolve, select};
