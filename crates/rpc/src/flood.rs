//! Sees the frame headers that flow in, counts those that cost us work and
//! the client nothing, and judges the counts: pings by the policy of Go's
//! server, resets and control frames by a rate, window updates by a rate
//! beyond what was sent to the client. Not here: header and CONTINUATION
//! floods, small DATA frames and frames that are errors, which `h2` bounds.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::sniff::PREFACE;

const HEADER: usize = 9;
const PADDED: u8 = 8;

/// What has come in since it was last asked.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// PING frames that want an answer.
    pub(crate) pings: u32,
    /// RST_STREAM frames, and those that the client has made us send.
    pub(crate) resets: u32,
    /// PING, PRIORITY, GOAWAY, unknown frames, and DATA that is empty or
    /// padded, which no gRPC client's is.
    pub(crate) control: u32,
    /// SETTINGS frames. One may move the window of every stream there is.
    pub(crate) settings: u32,
    /// WINDOW_UPDATE frames.
    pub(crate) windows: u32,
    /// HEADERS frames. A new stream may come with an update of its window.
    pub(crate) headers: u32,
    /// The highest stream opened so far.
    pub(crate) last_stream: u32,
}

/// Follows the frames through whatever pieces the bytes come in.
pub(crate) struct FrameMeter {
    /// Bytes to pass over: the preface, and then each frame's payload.
    skip: usize,
    header: [u8; HEADER],
    have: usize,
    counts: Counts,
}

impl FrameMeter {
    pub(crate) fn new() -> FrameMeter {
        FrameMeter { skip: PREFACE.len(), header: [0; HEADER], have: 0, counts: Counts::default() }
    }

    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let step = self.skip.min(bytes.len());
            self.skip -= step;
            bytes = &bytes[step..];
            if bytes.is_empty() {
                return;
            }
            let step = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEADER {
                self.have = 0;
                self.count();
            }
        }
    }

    fn count(&mut self) {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.header;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        self.skip = len;
        let first_flag = flags & 1 != 0;
        match kind {
            0x0 if len == 0 && !first_flag => self.counts.control += 1,
            0x0 if flags & PADDED != 0 => self.counts.control += 1,
            0x0 | 0x9 => {}
            0x8 => self.counts.windows += 1,
            0x1 => {
                self.counts.headers += 1;
                let id = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
                self.counts.last_stream = self.counts.last_stream.max(id);
            }
            0x3 => self.counts.resets += 1,
            0x6 if first_flag => {}
            0x6 => {
                self.counts.pings += 1;
                self.counts.control += 1;
            }
            0x4 if first_flag => {}
            0x4 => self.counts.settings += 1,
            _ => self.counts.control += 1,
        }
    }

    /// The counts since the last call; the highest stream stays.
    pub(crate) fn take(&mut self) -> Counts {
        let counts = self.counts;
        self.counts = Counts { last_stream: counts.last_stream, ..Counts::default() };
        counts
    }
}

/// So many a second, twice as many at once.
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Bucket {
        Bucket { rate: f64::from(rate), tokens: 2.0 * f64::from(rate), at: now }
    }

    fn take(&mut self, n: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + elapsed * self.rate).min(2.0 * self.rate) - f64::from(n);
        self.tokens >= 0.0
    }
}

/// What has gone out to a client since it was last looked at.
#[derive(Default)]
pub(crate) struct Sent {
    /// Headers or data since the last ping, which forgives earlier strikes.
    pub(crate) any: Cell<bool>,
    /// Bytes of data.
    pub(crate) bytes: Cell<u64>,
    /// Messages.
    pub(crate) messages: Cell<u64>,
}

/// Which rule a client broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Fine,
    TooManyPings,
    Flood,
}

/// Judges one connection's counts.
pub(crate) struct Judge {
    ping_strikes: u32,
    last_ping: Option<Instant>,
    min_time: Duration,
    idle_min_time: Duration,
    resets: Bucket,
    control: Bucket,
    windows: Bucket,
    /// Window updates that what we sent has earned the client.
    earned: u64,
    /// Bytes sent that do not make a KiB yet.
    odd_bytes: u64,
}

/// Pings without calls are allowed as often as this, where they are not
/// permitted as such.
const IDLE_PING: Duration = Duration::from_secs(2 * 60 * 60);
const MAX_STRIKES: u32 = 2;
/// A SETTINGS frame counts once more for each so many calls whose window it
/// may move.
const STREAMS_A_SETTING: u32 = 100;
/// Window updates that a client may have in hand: those of a GiB that it had
/// room for at once, taken in the smallest of frames.
const MAX_EARNED: u64 = 1 << 21;

impl Judge {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Judge {
        let permit = limits.keepalive_permit_without_stream;
        Judge {
            ping_strikes: 0,
            last_ping: None,
            min_time: limits.keepalive_min_time,
            idle_min_time: if permit { limits.keepalive_min_time } else { IDLE_PING },
            resets: Bucket::new(limits.max_resets_per_second, now),
            control: Bucket::new(limits.max_control_per_second, now),
            windows: Bucket::new(limits.max_window_updates_per_second, now),
            earned: 0,
            odd_bytes: 0,
        }
    }

    /// Judges one turn: what came in, while so many calls were open, and what
    /// of ours went out.
    pub(crate) fn judge(
        &mut self,
        counts: &Counts,
        calls: u32,
        sent: &Sent,
        now: Instant,
    ) -> Verdict {
        for _ in 0..counts.pings {
            if self.ping_strikes_out(calls > 0, &sent.any, now) {
                return Verdict::TooManyPings;
            }
        }
        let settings = counts.settings * (1 + calls / STREAMS_A_SETTING);
        let control = counts.control + settings;
        let fine = (counts.resets == 0 || self.resets.take(counts.resets, now))
            && (control == 0 || self.control.take(control, now))
            && self.windows_are_fine(counts, sent, now);
        if fine { Verdict::Fine } else { Verdict::Flood }
    }

    /// A client that takes what we send says so in window updates: however
    /// small its steps, two for each of our messages and for each KiB are
    /// its due, and two for each stream. One that opens its window byte by
    /// byte, or without end, has to live on the rate.
    fn windows_are_fine(&mut self, counts: &Counts, sent: &Sent, now: Instant) -> bool {
        let bytes = sent.bytes.take() + self.odd_bytes;
        self.odd_bytes = bytes % 1024;
        let due = 2 * (bytes / 1024 + sent.messages.take() + u64::from(counts.headers));
        self.earned = (self.earned + due).min(MAX_EARNED);
        let paid = u64::from(counts.windows).min(self.earned);
        self.earned -= paid;
        let left = counts.windows - paid as u32;
        left == 0 || self.windows.take(left, now)
    }

    fn ping_strikes_out(&mut self, has_calls: bool, has_sent: &Cell<bool>, now: Instant) -> bool {
        let last = self.last_ping.replace(now);
        if has_sent.take() {
            self.ping_strikes = 0;
            return false;
        }
        let min = if has_calls { self.min_time } else { self.idle_min_time };
        if last.is_some_and(|last| now.saturating_duration_since(last) < min) {
            self.ping_strikes += 1;
        }
        self.ping_strikes > MAX_STRIKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, len: usize) -> Vec<u8> {
        let mut out = (len as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend(std::iter::repeat_n(0xff, len));
        out
    }

    #[test]
    fn counts_whatever_the_pieces() {
        let mut wire = PREFACE.to_vec();
        for f in [
            frame(4, 0, 0, 6),
            frame(4, 1, 0, 0),
            frame(1, 4, 5, 30),
            frame(0, 0, 5, 0),
            frame(0, 1, 5, 0),
            frame(6, 0, 0, 8),
            frame(6, 1, 0, 8),
            frame(3, 0, 5, 4),
            frame(8, 0, 0, 4),
            frame(2, 0, 5, 5),
            frame(0x77, 0, 0, 3),
            frame(0, 0x8, 5, 3),
        ] {
            wire.extend(f);
        }
        let want = Counts {
            pings: 1,
            resets: 1,
            control: 5,
            settings: 1,
            windows: 1,
            headers: 1,
            last_stream: 5,
        };
        for step in [1, 2, 5, 9, 13, wire.len()] {
            let mut meter = FrameMeter::new();
            wire.chunks(step).for_each(|piece| meter.feed(piece));
            assert_eq!(meter.take(), want);
            assert_eq!(meter.take(), Counts { last_stream: 5, ..Counts::default() });
        }
    }

    fn pings(n: u32) -> Counts {
        Counts { pings: n, ..Counts::default() }
    }

    #[test]
    fn pings_in_haste_strike_out_and_sending_forgives() {
        let start = Instant::now();
        let limits = Limits::default();
        let at = |s| start + Duration::from_secs(s);
        let sent = Sent::default();
        let mut judge = Judge::new(&limits, start);
        // The first ping is free, and those in time are.
        for s in [1, 6, 11, 16] {
            assert_eq!(judge.judge(&pings(1), 1, &sent, at(s)), Verdict::Fine);
        }
        assert_eq!(judge.judge(&pings(2), 1, &sent, at(17)), Verdict::Fine);
        sent.any.set(true);
        assert_eq!(judge.judge(&pings(3), 1, &sent, at(18)), Verdict::Fine);
        assert_eq!(judge.judge(&pings(1), 1, &sent, at(19)), Verdict::TooManyPings);
    }

    #[test]
    fn without_calls_two_hours_hold() {
        let start = Instant::now();
        let sent = Sent::default();
        let every_minute = |limits: &Limits| {
            let mut judge = Judge::new(limits, start);
            let at = |m: u64| start + Duration::from_secs(60 * m);
            let mut verdict = Verdict::Fine;
            for m in 1..=4 {
                verdict = judge.judge(&pings(1), 0, &sent, at(m));
            }
            verdict
        };
        let mut limits = Limits::default();
        assert_eq!(every_minute(&limits), Verdict::TooManyPings);
        limits.keepalive_permit_without_stream = true;
        assert_eq!(every_minute(&limits), Verdict::Fine);
    }

    #[test]
    fn floods_are_judged_by_rate() {
        let start = Instant::now();
        let limits = Limits { max_control_per_second: 10, ..Limits::default() };
        let mut judge = Judge::new(&limits, start);
        let sent = Sent::default();
        let burst = |n| Counts { control: n, ..Counts::default() };
        assert_eq!(judge.judge(&burst(20), 1, &sent, start), Verdict::Fine);
        let later = start + Duration::from_secs(1);
        assert_eq!(judge.judge(&burst(10), 1, &sent, later), Verdict::Fine);
        assert_eq!(judge.judge(&burst(1), 1, &sent, later), Verdict::Flood);
    }

    #[test]
    fn a_setting_weighs_as_much_as_it_moves() {
        let start = Instant::now();
        let limits = Limits { max_control_per_second: 10, ..Limits::default() };
        let sent = Sent::default();
        let one = Counts { settings: 1, ..Counts::default() };
        let verdict = |calls| Judge::new(&limits, start).judge(&one, calls, &sent, start);
        assert_eq!(verdict(0), Verdict::Fine);
        assert_eq!(verdict(1_000), Verdict::Fine);
        assert_eq!(verdict(10_000), Verdict::Flood);
    }

    #[test]
    fn window_updates_are_earned_by_what_is_sent() {
        let start = Instant::now();
        let limits = Limits { max_window_updates_per_second: 10, ..Limits::default() };
        let windows = |n| Counts { windows: n, ..Counts::default() };
        let judged = |n, bytes, messages| {
            let sent = Sent::default();
            sent.bytes.set(bytes);
            sent.messages.set(messages);
            Judge::new(&limits, start).judge(&windows(n), 1, &sent, start)
        };
        assert_eq!(judged(20, 0, 0), Verdict::Fine);
        assert_eq!(judged(21, 0, 0), Verdict::Flood);
        assert_eq!(judged(21, 1024, 0), Verdict::Fine);
        assert_eq!(judged(2_020, 1024 * 1000, 0), Verdict::Fine);
        assert_eq!(judged(2_021, 1024 * 1000, 0), Verdict::Flood);
        assert_eq!(judged(2_020, 0, 1000), Verdict::Fine);
        let opened = Counts { headers: 100, ..windows(220) };
        let sent = Sent::default();
        assert_eq!(Judge::new(&limits, start).judge(&opened, 1, &sent, start), Verdict::Fine);
    }

    #[test]
    fn small_pieces_of_data_add_up() {
        let start = Instant::now();
        let limits = Limits { max_window_updates_per_second: 10, ..Limits::default() };
        let mut judge = Judge::new(&limits, start);
        let sent = Sent::default();
        for _ in 0..100_000 {
            sent.bytes.set(512);
            let one = Counts { windows: 1, ..Counts::default() };
            assert_eq!(judge.judge(&one, 1, &sent, start), Verdict::Fine);
        }
    }
}
