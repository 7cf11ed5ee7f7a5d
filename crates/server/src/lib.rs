//! Where the world enters: configuration, logs, clocks, threads, sockets, signals; the gRPC services, the
//! HTTP pages and the metrics. Not here: anything that must be the same on every member.

#![forbid(unsafe_code)]

mod aside;
pub mod auth;
pub mod config;
pub mod driver;
mod gateway;
mod gauges;
pub mod http;
pub mod member;
pub mod metrics;
pub mod net;
pub mod run;
pub mod services;

pub use etch_host::{log_at, log_debug, log_error, log_fatal, log_info, log_warn, logging, notify};
