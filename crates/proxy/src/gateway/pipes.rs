//! Pipes of the kernel, through which bytes go from one socket to another without coming up to us. Not here:
//! when they are used.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// What a pipe should hold: the more, the fewer calls. The kernel may give less.
const SIZE: usize = 256 * 1024;
/// So many are kept for later; the others are closed.
const KEPT: usize = 32;

/// A pipe's two ends.
pub(super) struct Pipe {
    /// Where bytes come out.
    pub(super) out: OwnedFd,
    /// Where they go in.
    pub(super) into: OwnedFd,
}

/// The pipes of one thread that nobody uses at the moment. They are all empty.
#[derive(Default)]
pub(super) struct Pipes(RefCell<Vec<Pipe>>);

impl Pipes {
    /// A pipe, or none where the kernel has no more to give.
    pub(super) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.0.borrow_mut().pop() {
            return Some(pipe);
        }
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // It serves in its own size as well.
        let _ = fcntl_setpipe_size(&into, SIZE);
        Some(Pipe { out, into })
    }

    /// Gives an empty pipe back.
    pub(super) fn give(&self, pipe: Pipe) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(pipe);
        }
    }

    /// How many wait for use.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.0.borrow().len()
    }
}

/// What one call may move at the most: all that a pipe holds.
pub(super) const AT_ONCE: usize = SIZE;
