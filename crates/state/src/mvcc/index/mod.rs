//! The ordered index of keys in memory: for each key its generations and their revisions, never a
//! value. Not here: locks (the store has one around the index), values, and what a request means.

mod model;
mod range;
mod types;

pub use model::{Builder, Index};
pub use types::{Change, Compaction, NewVersion, Put, Restored, Version, Walked};
