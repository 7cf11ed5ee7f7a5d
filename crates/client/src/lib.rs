//! A client for etch and for etcd 3.4 and later that keeps the promises which Go's `clientv3` keeps.
//!
//! Here is the list of what it consists of; each part's own file says what it does.
//!
//! ```
//! use etch_client::Client;
//!
//! # etch_doctest::run(async |served| {
//! let client = Client::connect(["127.0.0.1:2379"]).await?;
//! # let client = served;
//! client.put("color", "blue").await?;
//! println!("{:?}", client.get("color").await?.kvs[0].value);
//! # Ok(())
//! # });
//! ```
//!
//! # How a call ends
//!
//! A call that may be repeated (a read) is, when the server is unavailable. A write is sent a second time only if the
//! first surely was not carried out. What is left is told apart by [`Error`]: refused by the server, nobody reached,
//! the time limit, or unknown. Dropping a future or a stream cancels it, on the server too.

#![forbid(unsafe_code)]

mod auth;
mod bytes;
mod call;
mod client;
mod cluster;
pub mod concurrency;
mod config;
mod error;
mod header;
mod kv;
mod lease;
mod leasing;
mod maintenance;
pub mod mirror;
mod namespace;
pub mod naming;
mod net;
mod ordering;
pub mod recipes;
mod requests;
mod snapshot;
mod waiter;
mod watch;

pub use crate::bytes::IntoBytes;
pub use auth::{KeySpan, PermissionType};
pub use call::CallOptions;
pub use client::Client;
pub use config::{Config, Pem, Tls};
pub use error::{Error, EtcdError, Refusal, Result};
pub use etch_api::pb::etcdserverpb as pb;
pub use etch_api::pb::mvccpb::{Event, KeyValue, event::EventType};
pub use etch_api::{Code, KeyRange};
pub use header::HasHeader;
pub use kv::{
    Bound, BoxFuture, BoxStream, Compact, Compare, Comparison, Delete, Get, Kv, Op, Put,
    RangeStream, SortOrder, SortTarget, Txn, delete, get, put, txn,
};
pub use lease::{Grant, KeepAlive, Lease};
pub use maintenance::DowngradeAction;
pub use namespace::Namespace;
pub use snapshot::Snapshot;
pub use watch::{Overflow, Watch, WatchResponse, WatchSpec, WatchStream, Watcher};

/// The answer to a read.
///
/// ```
/// let nothing = etch_client::GetResponse::default();
/// assert_eq!((nothing.count, nothing.kvs.len()), (0, 0));
/// ```
pub type GetResponse = pb::RangeResponse;
/// The answer to a write.
///
/// ```
/// assert!(etch_client::PutResponse::default().prev_kv.is_none());
/// ```
pub type PutResponse = pb::PutResponse;
/// The answer to a deletion.
///
/// ```
/// assert_eq!(etch_client::DeleteResponse::default().deleted, 0);
/// ```
pub type DeleteResponse = pb::DeleteRangeResponse;
/// The answer to a transaction.
///
/// ```
/// assert!(!etch_client::TxnResponse::default().succeeded);
/// ```
pub type TxnResponse = pb::TxnResponse;
