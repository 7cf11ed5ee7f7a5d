//! What one connection may cost, with the defaults of etcd where it has one.

use std::time::Duration;

/// Bounds on one connection. Every queue in this crate is bounded by a field
/// of this, and the field says what happens when it is full.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls at a time; more are refused with `REFUSED_STREAM`, which clients
    /// retry. A call counts until its answer has ended, even when the client
    /// has reset it, so resetting in haste buys nobody more work.
    pub max_concurrent_streams: u32,
    /// Size of a request's header list as HTTP/2 counts it; more is 431.
    pub max_header_bytes: u32,
    /// The largest message received; a larger one ends its call with
    /// `ResourceExhausted`. etcd: max-request-bytes + 512 KiB.
    pub max_recv_message: usize,
    /// The largest message sent.
    pub max_send_message: usize,
    /// Flow-control window of a stream, for what we receive.
    pub initial_stream_window: u32,
    /// Flow-control window of the connection, for what we receive.
    pub initial_connection_window: u32,
    /// Bytes of messages that have not come in whole, on one connection;
    /// beyond it a call that brings more ends with `ResourceExhausted`.
    pub max_partial_bytes: usize,
    /// The same for all connections of a thread: beyond it those that hold
    /// more than `fair_partial_bytes` may not bring more, and beyond twice as
    /// much nobody may.
    pub max_partial_bytes_all: usize,
    /// What a connection may hold while others hold much: some of the largest
    /// requests.
    pub fair_partial_bytes: usize,
    /// Bytes handed to HTTP/2 and not yet taken by the socket. Beyond it
    /// large replies and streams wait, and while the socket takes nothing no
    /// further requests are read.
    pub send_buffer: usize,
    /// Bytes queued on one stream before [`crate::StreamSender::send`] waits.
    pub stream_send_buffer: usize,
    /// Bytes read before calls are handed over and answers written.
    pub read_per_turn: usize,
    /// The shortest time between a client's pings while it has calls; a third
    /// ping in haste ends the connection with `too_many_pings`.
    pub keepalive_min_time: Duration,
    /// Whether that time, not two hours, holds without calls as well.
    pub keepalive_permit_without_stream: bool,
    /// Silence after which we ping the client; `None` never.
    pub keepalive_interval: Option<Duration>,
    /// How long after that ping without any byte the connection is closed.
    pub keepalive_timeout: Duration,
    /// Time for the HTTP/2 preface and settings to arrive.
    pub handshake_timeout: Duration,
    /// How long the socket may take nothing while there is something to
    /// write; `None` is for ever, as in etcd.
    pub write_stall_timeout: Option<Duration>,
    /// How long calls may go on after the drain signal.
    pub drain_grace: Duration,
    /// Streams reset by us for the client's errors, in a connection's life.
    pub max_local_error_reset: usize,
    /// RST_STREAM frames a second (twice as many at once), those that the
    /// client makes us send among them.
    pub max_resets_per_second: u32,
    /// PING, SETTINGS, PRIORITY, empty or padded DATA and unknown frames a
    /// second (twice as many at once).
    pub max_control_per_second: u32,
    /// WINDOW_UPDATE frames a second (twice as many at once) beyond two for
    /// each stream, for each message sent and for each KiB of them.
    pub max_window_updates_per_second: u32,
    /// Streams that we have ended before the client had, and whose last
    /// frames, still on their way, are therefore no fault.
    pub max_ended_early: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_concurrent_streams: 1 << 16,
            max_header_bytes: 64 * 1024,
            max_recv_message: 1_572_864 + 512 * 1024,
            max_send_message: i32::MAX as usize,
            initial_stream_window: 1024 * 1024,
            initial_connection_window: 16 * 1024 * 1024,
            max_partial_bytes: 32 * 1024 * 1024,
            max_partial_bytes_all: 128 * 1024 * 1024,
            fair_partial_bytes: 4 * 1024 * 1024,
            send_buffer: 1024 * 1024,
            stream_send_buffer: 256 * 1024,
            read_per_turn: 128 * 1024,
            keepalive_min_time: Duration::from_secs(5),
            keepalive_permit_without_stream: false,
            keepalive_interval: Some(Duration::from_secs(2 * 60 * 60)),
            keepalive_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            write_stall_timeout: None,
            drain_grace: Duration::from_secs(10),
            max_local_error_reset: 1000,
            max_resets_per_second: 10_000,
            max_control_per_second: 1_000,
            max_window_updates_per_second: 5_000,
            max_ended_early: 4_000,
        }
    }
}
