//! Counters that the server turns into metrics. One `Stats` a thread: each has
//! one writer, so adding is a plain load and store, and a scrape sums them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writing thread and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. To be called from the owning thread alone.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away again (for gauges).
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one thread's connections have done since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that finished the HTTP/2 handshake.
    pub connections_opened: Counter,
    /// Connections open now.
    pub connections: Counter,
    /// gRPC calls begun, unary and streaming.
    pub calls: Counter,
    /// Calls whose answer has not ended yet.
    pub calls_in_flight: Counter,
    /// Bytes of messages that have not come in whole.
    pub partial_bytes: Counter,
    /// Messages received whole.
    pub messages_in: Counter,
    /// Messages sent or queued to send.
    pub messages_out: Counter,
    /// Bytes of the messages received, without framing.
    pub message_bytes_in: Counter,
    /// Bytes of the messages sent, without framing.
    pub message_bytes_out: Counter,
    /// Bytes read from sockets (above TLS).
    pub wire_bytes_in: Counter,
    /// Bytes written to sockets (above TLS).
    pub wire_bytes_out: Counter,
    /// Connections closed for breaking a limit (pings, floods, stalls).
    pub connections_cut: Counter,
}
