//! Judges how many frames came in that cost us work and the client nothing:
//! pings by the policy of Go's server, resets and control frames by a rate,
//! window updates by a rate beyond what was sent to the client. Not here: the
//! counting, header blocks without end, and frames that are errors (`codec`).

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// What has come in since it was last asked.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// PING frames that want an answer.
    pub(crate) pings: u32,
    /// RST_STREAM frames, and those that the client has made us send.
    pub(crate) resets: u32,
    /// PRIORITY, GOAWAY, unknown frames, and DATA that is empty or
    /// padded, which no gRPC client's is.
    pub(crate) control: u32,
    /// SETTINGS frames. One may move the window of every stream there is.
    pub(crate) settings: u32,
    /// WINDOW_UPDATE frames.
    pub(crate) windows: u32,
    /// HEADERS frames. A new stream may come with an update of its window.
    pub(crate) headers: u32,
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
    pub(crate) any: bool,
    /// Bytes of data.
    pub(crate) bytes: u64,
    /// Messages.
    pub(crate) messages: u64,
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
        sent: &mut Sent,
        now: Instant,
    ) -> Verdict {
        let mut forgiven = 0;
        for _ in 0..counts.pings {
            // Go's clients measure the line with a ping for what they are sent, as fast as it comes.
            forgiven += u32::from(sent.any);
            if self.ping_strikes_out(calls > 0, &mut sent.any, now) {
                return Verdict::TooManyPings;
            }
        }
        let settings = counts.settings * (1 + calls / STREAMS_A_SETTING);
        let control = counts.control + settings + counts.pings - forgiven;
        let fine = (counts.resets == 0 || self.resets.take(counts.resets, now))
            && (control == 0 || self.control.take(control, now))
            && self.windows_are_fine(counts, sent, now);
        if fine { Verdict::Fine } else { Verdict::Flood }
    }

    /// A client that takes what we send says so in window updates: however
    /// small its steps, two for each of our messages and for each KiB are
    /// its due, and two for each stream. One that opens its window byte by
    /// byte, or without end, has to live on the rate.
    fn windows_are_fine(&mut self, counts: &Counts, sent: &mut Sent, now: Instant) -> bool {
        let bytes = std::mem::take(&mut sent.bytes) + self.odd_bytes;
        self.odd_bytes = bytes % 1024;
        let due =
            2 * (bytes / 1024 + std::mem::take(&mut sent.messages) + u64::from(counts.headers));
        self.earned = (self.earned + due).min(MAX_EARNED);
        let paid = u64::from(counts.windows).min(self.earned);
        self.earned -= paid;
        let left = counts.windows - paid as u32;
        left == 0 || self.windows.take(left, now)
    }

    fn ping_strikes_out(&mut self, has_calls: bool, has_sent: &mut bool, now: Instant) -> bool {
        let last = self.last_ping.replace(now);
        if std::mem::take(has_sent) {
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

    fn pings(n: u32) -> Counts {
        Counts { pings: n, ..Counts::default() }
    }

    #[test]
    fn pings_in_haste_strike_out_and_sending_forgives() {
        let start = Instant::now();
        let limits = Limits::default();
        let at = |s| start + Duration::from_secs(s);
        let mut sent = Sent::default();
        let mut judge = Judge::new(&limits, start);
        // The first ping is free, and those in time are.
        for s in [1, 6, 11, 16] {
            assert_eq!(judge.judge(&pings(1), 1, &mut sent, at(s)), Verdict::Fine);
        }
        assert_eq!(judge.judge(&pings(2), 1, &mut sent, at(17)), Verdict::Fine);
        sent.any = true;
        assert_eq!(judge.judge(&pings(3), 1, &mut sent, at(18)), Verdict::Fine);
        assert_eq!(judge.judge(&pings(1), 1, &mut sent, at(19)), Verdict::TooManyPings);
    }

    #[test]
    fn without_calls_two_hours_hold() {
        let start = Instant::now();
        let mut sent = Sent::default();
        let mut every_minute = |limits: &Limits| {
            let mut judge = Judge::new(limits, start);
            let at = |m: u64| start + Duration::from_secs(60 * m);
            let mut verdict = Verdict::Fine;
            for m in 1..=4 {
                verdict = judge.judge(&pings(1), 0, &mut sent, at(m));
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
        let mut sent = Sent::default();
        let burst = |n| Counts { control: n, ..Counts::default() };
        assert_eq!(judge.judge(&burst(20), 1, &mut sent, start), Verdict::Fine);
        let later = start + Duration::from_secs(1);
        assert_eq!(judge.judge(&burst(10), 1, &mut sent, later), Verdict::Fine);
        assert_eq!(judge.judge(&burst(1), 1, &mut sent, later), Verdict::Flood);
    }

    #[test]
    fn a_ping_for_what_was_sent_is_no_flood() {
        let start = Instant::now();
        let limits = Limits { max_control_per_second: 10, ..Limits::default() };
        let mut judge = Judge::new(&limits, start);
        let ping = pings(1);
        let mut sent = Sent::default();
        for _ in 0..1_000 {
            sent.any = true;
            assert_eq!(judge.judge(&ping, 1, &mut sent, start), Verdict::Fine);
        }
    }

    #[test]
    fn a_setting_weighs_as_much_as_it_moves() {
        let start = Instant::now();
        let limits = Limits { max_control_per_second: 10, ..Limits::default() };
        let mut sent = Sent::default();
        let one = Counts { settings: 1, ..Counts::default() };
        let mut verdict = |calls| Judge::new(&limits, start).judge(&one, calls, &mut sent, start);
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
            let mut sent = Sent { bytes, messages, ..Sent::default() };
            Judge::new(&limits, start).judge(&windows(n), 1, &mut sent, start)
        };
        assert_eq!(judged(20, 0, 0), Verdict::Fine);
        assert_eq!(judged(21, 0, 0), Verdict::Flood);
        assert_eq!(judged(21, 1024, 0), Verdict::Fine);
        assert_eq!(judged(2_020, 1024 * 1000, 0), Verdict::Fine);
        assert_eq!(judged(2_021, 1024 * 1000, 0), Verdict::Flood);
        assert_eq!(judged(2_020, 0, 1000), Verdict::Fine);
        let opened = Counts { headers: 100, ..windows(220) };
        let mut sent = Sent::default();
        assert_eq!(Judge::new(&limits, start).judge(&opened, 1, &mut sent, start), Verdict::Fine);
    }

    #[test]
    fn small_pieces_of_data_add_up() {
        let start = Instant::now();
        let limits = Limits { max_window_updates_per_second: 10, ..Limits::default() };
        let mut judge = Judge::new(&limits, start);
        let mut sent = Sent::default();
        for _ in 0..100_000 {
            sent.bytes = 512;
            let one = Counts { windows: 1, ..Counts::default() };
            assert_eq!(judge.judge(&one, 1, &mut sent, start), Verdict::Fine);
        }
    }
}
