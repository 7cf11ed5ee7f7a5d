//! Gives freed memory back to the system once a burst is over. The allocator does so by itself only while
//! somebody allocates: a member that has nothing to do would keep what its busiest second took. Not here: what
//! the memory is for.

use std::thread;
use std::time::Duration;

/// Freed memory is looked for this often. What came free less than a second ago is left where it is: a load that
/// goes on takes it again.
const EVERY: Duration = Duration::from_secs(2);

/// Starts the thread that does it, for as long as the process runs. Without one everything still works, so that a
/// system that has no room for it is not told.
pub fn give_back() {
    let _ = thread::Builder::new().name("memory".into()).spawn(|| {
        loop {
            thread::sleep(EVERY);
            collect();
        }
    });
}

#[allow(unsafe_code, reason = "the allocator's crate has no safe call for it")]
fn collect() {
    // SAFETY: it may be called by any thread at any time. Blocks in use are not touched.
    unsafe { libmimalloc_sys::mi_collect(false) };
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
