//! Gives freed memory back to the system once a burst is over. The allocator does so by itself only while
//! somebody allocates: a member that has nothing to do would keep what its busiest second took. Not here: what
//! the memory is for.

use std::ffi::c_long;
use std::thread;
use std::time::Duration;

/// All that is free goes this often. A load that goes on faults some of it in again: rarely enough to cost it nothing.
const EVERY: Duration = Duration::from_secs(2);
/// mimalloc's `purge_delay`, by its place among the options, and how long free memory may wait, milliseconds. A second,
/// as it has it, keeps twice as much under load and after, and costs the processor as much.
const PURGE_DELAY: (i32, c_long) = (15, 100);

/// Has free memory go soon, and starts the thread that sees to it for as long as the process runs. Without one
/// everything still works, so that a system that has no room for it is not told.
pub fn give_back() {
    go_soon();
    let _ = thread::Builder::new().name("memory".into()).spawn(|| {
        loop {
            thread::sleep(EVERY);
            collect();
        }
    });
}

#[allow(unsafe_code, reason = "the allocator's crate has no safe call for it")]
fn go_soon() {
    let (option, ms) = PURGE_DELAY;
    // SAFETY: a number is stored, by any thread at any time.
    unsafe { libmimalloc_sys::mi_option_set(option, ms) };
}

#[allow(unsafe_code, reason = "the allocator's crate has no safe call for it")]
fn collect() {
    // SAFETY: it may be called by any thread at any time. Blocks in use are not touched.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A burst on one thread whose blocks another frees, as requests are: after it nobody allocates.
    #[test]
    fn a_burst_is_given_back() {
        // SAFETY: a number is read.
        #[allow(unsafe_code)]
        let delay = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY.0) };
        assert_eq!(delay, 1000, "mimalloc's own: the option is still at its place");
        let blocks: Vec<Vec<u8>> =
            thread::spawn(|| (0..2_000).map(|_| vec![1; 64 << 10]).collect()).join().unwrap();
        let full = anonymous_kib();
        assert!(full > 100 << 10, "{full} KiB");
        drop(blocks);
        give_back();
        let patience = std::time::Instant::now();
        while anonymous_kib() > full / 4 {
            assert!(patience.elapsed() < Duration::from_secs(60), "{} KiB", anonymous_kib());
            thread::sleep(Duration::from_millis(50));
        }
    }
}
