//! TLS on the server's side: which certificate is shown, who is let in, files that change while it serves, and
//! handshakes within bounds of number and time.
//!
//! What lives here: options as plain data ([`Options`]), their check and their loading with errors that name
//! the file, etcd's rules on clients' certificates (authorities, common names, host names, addresses, revoked
//! serial numbers), self-made certificates. What does not: flags, listening sockets, logs (events are told to
//! whoever made the [`Acceptor`]), HTTP.
//!
//! ```no_run
//! # async fn serve(socket: tokio::net::TcpStream) {
//! use etch_tls::{Acceptor, Bounds, Gate, Options, SanCheck};
//!
//! let options = Options {
//!     cert_file: "server.pem".into(),
//!     key_file: "server-key.pem".into(),
//!     ..Options::default()
//! };
//! let acceptor = Acceptor::new(options, Box::new(|event| eprintln!("{event:?}"))).expect("good files");
//! let gate = Gate::new(Bounds::default());
//! let remote = socket.peer_addr().ok();
//! match acceptor.accept(socket, remote, &gate, SanCheck::Skip).await {
//!     Ok(secured) => drop(secured.io),
//!     Err(refused) => eprintln!("{}", refused.why),
//! }
//! # }
//! ```

#![forbid(unsafe_code)]

mod accept;
mod acceptor;
mod ciphers;
mod crl;
mod files;
mod gate;
mod leaf;
mod names;
mod options;
mod reasons;
mod san;
mod self_signed;
mod verifier;

pub use accept::{Alpn, Refused, SanCheck, Secured};
pub use acceptor::{Acceptor, Event};
pub use ciphers::{check as check_ciphers, check_http2};
pub use gate::{Bounds, Gate};
pub use leaf::public_key;
pub use options::{Options, Version};
pub use self_signed::{SelfSigned, self_signed};

#[cfg(test)]
mod tests;
