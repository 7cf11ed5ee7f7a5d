//! Addresses and sockets as Go's library handles them: `host:port` in its two parts, listening, dialling, what
//! is set on a connection. Not here: whose connections they are.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use etch_host::os_error_text;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;

/// Connections that the kernel has accepted and we have not yet; its own limit is below this, if at all.
const BACKLOG: i32 = 4096;
/// A connection without traffic is probed after so long, and then as often: Go's own times.
const PROBE_AFTER: Duration = Duration::from_secs(15);
/// So many probes may stay without an answer.
const PROBES: u32 = 9;

/// `host:port`, with an IPv6 host in brackets: the two parts.
pub(crate) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains([':', '[', ']']) => return None,
        None => host,
    };
    if port.is_empty() || !port.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// The two parts joined again.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The addresses of a host; an empty name has none.
pub(crate) fn resolve(host: &str) -> Option<Vec<IpAddr>> {
    if host.is_empty() {
        return None;
    }
    let found = (host, 0).to_socket_addrs().ok()?;
    Some(found.map(|address| address.ip()).collect())
}

/// Whether a packet to this address would come to this machine.
pub(crate) fn is_our_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Listens on `host:port`.
///
/// # Errors
/// Go's text.
pub(crate) fn listen(address: &str) -> Result<TcpListener, String> {
    let failed =
        |error: io::Error| format!("listen tcp {address}: bind: {}", os_error_text(&error));
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    let socket = TcpListener::bind(&addresses[..]).map_err(failed)?;
    // std asks for 128, which is too few when everybody comes back at once.
    rustix::net::listen(&socket, BACKLOG).map_err(|error| failed(error.into()))?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

/// Why nobody was reached.
pub(crate) struct DialError {
    address: String,
    why: String,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dial tcp {}: {}", self.address, self.why)
    }
}

/// Connects to `host:port`, to the first of its addresses that answers.
pub(crate) async fn dial(address: &str, limit: Duration) -> Result<TcpStream, DialError> {
    let failed = |why: String| DialError { address: address.to_owned(), why };
    let reach = async {
        match address.parse::<SocketAddr>() {
            Ok(address) => TcpStream::connect(address).await,
            Err(_) => TcpStream::connect(address).await,
        }
    };
    match tokio::time::timeout(limit, reach).await {
        Err(_) => Err(failed("i/o timeout".to_owned())),
        Ok(Err(error)) if error.raw_os_error().is_some() => {
            Err(failed(format!("connect: {}", os_error_text(&error))))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(stream)) => {
            tune(&stream);
            Ok(stream)
        }
    }
}

/// Nothing waits for more to send, and a peer that is gone without a word is noticed. A socket that does not
/// take this serves without.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, PROBE_AFTER);
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, PROBE_AFTER);
    let _ = rustix::net::sockopt::set_tcp_keepcnt(stream, PROBES);
}

/// Lets the process open as many files as it may at all: each connection carried takes two.
pub(crate) fn open_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Whoever runs us may have forbidden it; then the old limit stays.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_two_parts() {
        for (address, want) in [
            ("127.0.0.1:2379", Some(("127.0.0.1", 2379))),
            ("[::1]:1", Some(("::1", 1))),
            ("host:0", Some(("host", 0))),
            (":5", Some(("", 5))),
            ("host", None),
            ("::1:5", None),
            ("[::1:5", None),
            ("host:", None),
            ("host:+5", None),
            ("host:65536", None),
        ] {
            assert_eq!(split(address), want, "{address}");
            if let Some((host, port)) = want {
                assert_eq!(join(host, port), address);
            }
        }
    }

    #[test]
    fn our_own_addresses_are_known() {
        assert!(is_our_own("127.0.0.1".parse().expect("an address")));
        // A net for documentation, which no machine has.
        assert!(!is_our_own("192.0.2.1".parse().expect("an address")));
    }
}
