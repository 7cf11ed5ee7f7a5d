//! The targets' bodies, one file a kind of input. Not here: how inputs are made.

#[cfg(feature = "server")]
pub mod config;
pub mod db;
pub mod entries;
pub mod port;
pub mod requests;
pub mod snap;
pub mod wal;
