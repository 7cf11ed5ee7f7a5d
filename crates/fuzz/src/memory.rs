//! The count of memory: an allocator that knows how much is held and how much was at the most. The one place of
//! this crate that is not safe Rust. Not here: what is too much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// More than this at once is refused, so that a runaway ends the process and not the machine.
const REFUSED: usize = 2 << 30;

/// Hands on to the system's allocator, and counts.
pub struct Counting;

impl Counting {
    fn add(size: usize) -> bool {
        let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
        PEAK.fetch_max(held, Ordering::Relaxed);
        if held > REFUSED {
            HELD.fetch_sub(size, Ordering::Relaxed);
        }
        held <= REFUSED
    }
}

// SAFETY: every call is handed on to `System` with the arguments that it came with, so `System`'s contract is
// the caller's; where nothing is to be given, null is returned, which the contract allows. The counters are
// atomics and allocate nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !Self::add(layout.size()) {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !Self::add(layout.size()) {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

/// What is held now. The peak begins anew from here.
pub fn begin() -> usize {
    let held = HELD.load(Ordering::Relaxed);
    PEAK.store(held, Ordering::Relaxed);
    held
}

/// The most that was held since [`begin`].
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}
