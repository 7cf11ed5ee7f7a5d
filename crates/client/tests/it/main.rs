//! The client against real servers, all in one program: it is linked once.

mod common;
mod concurrency;
mod faults;
mod kv;
mod lease;
mod watch;
