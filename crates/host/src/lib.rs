//! What a long-running process owes to the machine that it runs on, the same for the server and the proxies:
//! its log (`logging`), word to the service manager (`notify`), the file of
//! a Unix socket (`unix`), where its time goes (`profile`). Not here: other
//! sockets, flags, anything of etcd's.

#![forbid(unsafe_code)]

pub mod logging;
pub mod notify;
pub mod profile;
mod unix;

pub use unix::UnixSocket;

/// What the system says about an error, as Go says it: in lower case and without its number.
pub fn os_error_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if error.raw_os_error().is_some() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
