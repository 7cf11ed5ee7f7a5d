//! Word to the service manager: `READY=1` and `STOPPING=1` over systemd's notification socket. Without
//! `NOTIFY_SOCKET` there is nobody to tell. Not here: when it is said.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server takes requests. True if somebody was told.
pub fn ready() -> bool {
    tell(std::env::var_os("NOTIFY_SOCKET").as_deref(), b"READY=1").unwrap_or(false)
}

/// The server is about to end. True if somebody was told.
pub fn stopping() -> bool {
    tell(std::env::var_os("NOTIFY_SOCKET").as_deref(), b"STOPPING=1").unwrap_or(false)
}

fn tell(socket: Option<&OsStr>, message: &[u8]) -> io::Result<bool> {
    let Some(path) = socket.filter(|path| !path.is_empty()) else { return Ok(false) };
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(message, &address(path)?)?;
    Ok(true)
}

/// A path, or after an `@` a name outside of the file system.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_is_told_where_there_is_one() {
        assert!(!tell(None, b"READY=1").expect("nobody to tell"));
        let path = std::env::temp_dir().join(format!("etch-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).expect("bound");
        assert!(tell(Some(path.as_os_str()), b"READY=1").expect("told"));
        let mut message = [0; 32];
        let n = manager.recv(&mut message).expect("received");
        assert_eq!(&message[..n], b"READY=1");
        std::fs::remove_file(&path).expect("removed");
        tell(Some(path.as_os_str()), b"READY=1").expect_err("nobody listens");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_outside_of_the_file_system_are_understood() {
        use std::os::linux::net::SocketAddrExt;
        let address = address(OsStr::new("@etch/notify")).expect("an address");
        assert_eq!(address.as_abstract_name(), Some(&b"etch/notify"[..]));
    }
}
