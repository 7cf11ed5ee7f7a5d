//! The client against real servers, all in one program: it is linked once.

mod balance;
mod common;
mod concurrency;
mod examples;
mod faults;
mod kv;
mod layers;
mod lease;
mod limits;
mod observe;
mod secure;
mod watch;
