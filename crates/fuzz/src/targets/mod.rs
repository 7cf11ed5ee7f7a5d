//! The targets' bodies, one file a kind of input. Not here: how inputs are made.

pub mod auth;
#[cfg(feature = "server")]
pub mod config;
pub mod db;
pub mod entries;
pub mod json;
#[cfg(feature = "server")]
pub mod jwt;
pub mod port;
pub mod requests;
pub mod snap;
pub mod wal;
