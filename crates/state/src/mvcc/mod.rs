//! Multi-version keys: the index in memory, the values that are not yet committed, and the store that
//! joins them with the B+tree. Not here: what a transaction means (`txn`), and who watches (`watch`).

mod event;
pub mod index;
mod revision;

pub use event::{Event, EventKind};
pub use revision::Revision;
