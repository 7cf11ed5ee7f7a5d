//! HTTP: the pages of the client, metrics and peer ports (`pages`, `health`), and the server of HTTP/1.1
//! connections (`serve`). Requests over HTTP/2 that are not gRPC get the same pages. Not here: gRPC, and the
//! sockets.

mod health;
mod pages;
mod query;
mod serve;

pub use pages::{Alarm, Member, MemberInfo, Pages, Secured, Settings, Site, redirect};
pub use serve::{Http1Limits, serve_http1, serve_port};

#[cfg(test)]
mod tests;
