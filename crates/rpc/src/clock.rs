//! What happens to a connection by time alone: pings of ours, a client that
//! does not read, the end of a drain. Not here: the client's own pings
//! (`flood`), deadlines of calls (`deadline`, `stream`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::connection::Closed;
use crate::shared::Shared;

/// The time as tokio's timers see it, which tests may hold still.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What others wait for by time alone.
pub(crate) struct Due {
    /// Since when the socket has taken nothing.
    pub(crate) blocked: Option<Instant>,
    /// The end of the drain.
    pub(crate) drain_ends: Option<Instant>,
    /// The next look at the calls with a deadline.
    pub(crate) deadline: Option<Instant>,
}

/// What happens by time alone: pings of ours, stalls, the end of a drain. The
/// timer is moved when it fires, not at each turn.
pub(crate) struct Clock {
    heard: Instant,
    pinged: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { heard: now(), pinged: None, timer: None, armed: None }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        shared: &Shared,
        due: &Due,
    ) -> Poll<Closed> {
        let limits = &shared.limits;
        let Due { blocked, drain_ends, deadline } = *due;
        let stalls = blocked.zip(limits.write_stall_timeout).map(|(at, wait)| at + wait);
        let ping_ends = self.pinged.map(|at| at + limits.keepalive_timeout);
        for (at, closed) in [
            (stalls, Closed::WriteStall),
            (ping_ends, Closed::KeepaliveTimeout),
            (drain_ends, Closed::DrainTimeout),
        ] {
            if at.is_some_and(|at| at <= now) {
                return Poll::Ready(closed);
            }
        }
        let mut ping_due = None;
        if let (None, Some(interval)) = (ping_ends, limits.keepalive_interval) {
            ping_due = Some(self.heard + interval);
            if self.heard + interval <= now {
                shared.mux(|mux| mux.ping());
                self.pinged = Some(now);
                ping_due = Some(now + limits.keepalive_timeout);
            }
        }
        let next = [stalls, ping_ends, drain_ends, ping_due, deadline].into_iter().flatten().min();
        self.arm(cx, now, next);
        Poll::Pending
    }

    fn arm(&mut self, cx: &mut Context<'_>, now: Instant, next: Option<Instant>) {
        let Some(next) = next else { return };
        // A timer that is set for earlier fires, finds nothing, and is moved.
        if self.armed.is_some_and(|armed| armed <= next && armed > now) {
            return;
        }
        self.armed = Some(next);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(next.into()),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(next.into()))),
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }
}
