//! What stands between clients and a cluster: `gateway`, which carries TCP connections untouched, and
//! `grpc-proxy`, which speaks gRPC on both sides.
//!
//! Here: the two programs, their command lines and everything behind them. Not here: storage and anything that
//! only a member may decide; how gRPC is served (`etch_rpc`), how a cluster is called (`etch_client`).

#![forbid(unsafe_code)]

mod commands;
mod discover;
mod gateway;
mod grpc;
mod signals;
mod sockets;

pub use commands::run;
