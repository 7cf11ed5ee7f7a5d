//! gRPC over HTTP/2, on the server's side: a connection comes in, calls go
//! out as bytes, replies come in as bytes.
//!
//! What lives here: framing, flow control, the texts and codes that a gRPC
//! server of Go's sends for a malformed call, and the limits against abuse.
//! What does not: any message of etcd's, any policy on what a call may do,
//! TLS, listening sockets.
//!
//! Everything runs on one thread: a connection is a future for a tokio
//! `LocalRuntime` (or a `LocalSet`), and nothing of it is `Send`.
//! A unary call costs no task and no boxed future: the connection's own
//! future takes all calls that have come in, hands each to [`Handler::unary`],
//! and then says [`Handler::batch_end`]; the [`Reply`] is completed whenever
//! its answer is there, and all that were completed before the connection
//! runs again leave in one write.

mod call;
mod clock;
mod codec;
mod connection;
mod deadline;
mod deframe;
mod flood;
mod http2;
mod intake;
mod limits;
mod local;
mod payload;
mod plain;
mod reply;
mod shared;
mod sniff;
mod stats;
mod status;
mod stream;
mod wire;

pub use call::{CallInfo, Handler, LocalFuture, Peer, Route};
pub use codec::frame::{ProtocolError, Reason};
pub use connection::{Closed, serve_connection};
pub use limits::Limits;
pub use local::LocalStream;
pub use payload::{MessageBuf, Payload, PayloadSource, Run, RunBuf};
pub use plain::{BoxError, PlainBody};
pub use reply::{LocalReply, Reply};
pub use sniff::{Protocol, Rewind, sniff};
pub use stats::{Counter, Stats};
pub use status::{Code, Status};
pub use stream::{MessageStream, StreamSender, local_stream};
