//! The process's clock: where time enters. Not here: whoever uses it gets numbers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the start of the process: never backwards, whatever the wall clock does.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins at 1: 0 means "never" to some of those who keep times.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start, plus one.
    pub fn now_ms(self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

/// Milliseconds since 1970 by the wall clock; only for what people read and for ids.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
