//! A Unix socket to listen on, whose file goes with it. Not here: accepting.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that is bound and does not block.
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Binds it. What a run that ended without tidying left there is removed; a socket that somebody listens on is not.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_err() && path.exists() {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.into() })
    }

    /// The same socket once more, for whoever accepts.
    ///
    /// # Errors
    /// The system's.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Whoever took it away has spared us the trouble.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_replaced_and_what_lives_is_not() {
        let dir = std::env::temp_dir().join(format!("etch-unix-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("socket");
        // Dropped alone, a listener leaves its file.
        drop(UnixListener::bind(&path).expect("a socket"));
        let socket = UnixSocket::bind(&path).expect("what was left is replaced");
        let Err(error) = UnixSocket::bind(&path) else { panic!("taken from the living") };
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("still there");
        drop(socket);
        assert!(!path.exists());
        fs::remove_dir(&dir).expect("nothing else is left");
    }
}
