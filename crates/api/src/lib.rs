//! The wire of etch: messages, the one table of request errors, key ranges, and the form of a raft entry.
//!
//! No logic, no runtime, no gRPC library: a request is bytes and plain types here, and who carries them
//! is decided in `rpc`, `client` and `server`.

#![forbid(unsafe_code)]

pub mod decode;
pub mod error;
pub mod internal;
pub mod line;
pub mod pb;
pub mod range;
mod secret;
pub mod stored;
pub mod wire;

/// The release of etcd whose API this is.
pub const ETCD_VERSION: &str = "3.7.1";

pub use error::{Code, Error, Status};
pub use range::KeyRange;
