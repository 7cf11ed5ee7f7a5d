//! A closed loop: each stream sends its next request when the one before is answered. And the open one: requests
//! leave when their time has come, whatever became of those before, and their latency counts from that time, so
//! that a stall of the server is not hidden by clients that wait for it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::{Driver, Engine};
use crate::link::{Event, Link};

/// A call's answer that takes longer than this is a failure of the whole row.
const LIMIT: Duration = Duration::from_secs(120);
/// Latencies are kept from a microsecond to two minutes, to three digits.
const HIGHEST_US: u64 = 120_000_000;

/// Writes the next request's message into an empty buffer.
pub type Requests = Box<dyn FnMut(&mut Vec<u8>)>;

/// Connections that make the same kind of call.
pub struct Lane {
    /// The method's path.
    pub path: &'static str,
    /// How many connections.
    pub connections: usize,
    /// Calls that a connection has under way at once.
    pub streams: usize,
    /// What is asked.
    pub requests: Requests,
}

/// What came of a lane.
pub struct Outcome {
    /// Calls that were answered.
    pub calls: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub time: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    fn new() -> Outcome {
        Outcome { calls: 0, refused: 0, bytes: 0, time: Duration::ZERO, latency: histogram() }
    }

    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.time.as_secs_f64()
    }

    /// A percentile of the latency in microseconds.
    pub fn percentile(&self, q: f64) -> f64 {
        self.latency.value_at_quantile(q / 100.0) as f64
    }
}

/// An empty histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("the bounds are right")
}

/// When a closed loop has done enough.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so long.
    Time(Duration),
    /// After so many calls of every lane.
    Calls(u64),
}

/// Runs lanes side by side, each in a closed loop. Fails if a call was refused: a load that is not served
/// measures nothing.
pub fn run(engine: &mut Engine, lanes: Vec<Lane>, until: Until) -> Result<Vec<Outcome>, String> {
    let start = Instant::now();
    let mut lane_of = Vec::new();
    for (at, lane) in lanes.iter().enumerate() {
        lane_of.extend(std::iter::repeat_n(at, lane.connections));
    }
    assert_eq!(lane_of.len(), engine.connections(), "lanes take all connections");
    let mut driver = Closed {
        sent: vec![0; lanes.len()],
        outcomes: lanes.iter().map(|_| Outcome::new()).collect(),
        under_way: lane_of.iter().map(|_| Vec::new()).collect(),
        lanes,
        lane_of,
        until,
        stop: match until {
            Until::Time(time) => Some(start + time),
            Until::Calls(_) => None,
        },
        message: Vec::new(),
    };
    engine.run(&mut driver, LIMIT * 5)?;
    for outcome in &mut driver.outcomes {
        outcome.time = start.elapsed();
    }
    checked(driver.outcomes)
}

fn checked(outcomes: Vec<Outcome>) -> Result<Vec<Outcome>, String> {
    for one in &outcomes {
        if one.refused > 0 || one.calls == 0 {
            return Err(format!("{} calls answered, {} refused", one.calls, one.refused));
        }
    }
    Ok(outcomes)
}

/// A call that waits for its answer.
struct UnderWay {
    id: u32,
    since: Instant,
    bytes: u64,
}

struct Closed {
    lanes: Vec<Lane>,
    lane_of: Vec<usize>,
    until: Until,
    stop: Option<Instant>,
    sent: Vec<u64>,
    under_way: Vec<Vec<UnderWay>>,
    outcomes: Vec<Outcome>,
    message: Vec<u8>,
}

impl Closed {
    fn goes_on(&self, now: Instant, lane: usize) -> bool {
        match self.until {
            Until::Time(_) => self.stop.is_some_and(|at| now < at),
            Until::Calls(n) => self.sent[lane] < n,
        }
    }
}

impl Driver for Closed {
    fn pump(&mut self, now: Instant, conn: usize, link: &mut Link) {
        let at = self.lane_of[conn];
        while self.under_way[conn].len() < self.lanes[at].streams && self.goes_on(now, at) {
            self.message.clear();
            (self.lanes[at].requests)(&mut self.message);
            let id = link.open(self.lanes[at].path, &self.message, true);
            self.under_way[conn].push(UnderWay { id, since: now, bytes: 0 });
            self.sent[at] += 1;
        }
    }

    fn event(&mut self, now: Instant, conn: usize, event: Event<'_>) {
        settle(&mut self.under_way[conn], &mut self.outcomes[self.lane_of[conn]], now, &event);
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn finished(&self, now: Instant) -> bool {
        self.under_way.iter().all(Vec::is_empty)
            && (0..self.lanes.len()).all(|lane| !self.goes_on(now, lane))
    }
}

/// Books what came in for the calls of one connection.
fn settle(under_way: &mut Vec<UnderWay>, outcome: &mut Outcome, now: Instant, event: &Event<'_>) {
    match event {
        Event::Data(id, bytes) => {
            if let Some(call) = under_way.iter_mut().find(|c| c.id == *id) {
                call.bytes += bytes.len() as u64;
            }
        }
        Event::End(id) => {
            let Some(at) = under_way.iter().position(|c| c.id == *id) else { return };
            let call = under_way.swap_remove(at);
            // A call that fails has no message.
            if call.bytes == 0 {
                outcome.refused += 1;
                return;
            }
            outcome.calls += 1;
            outcome.bytes += call.bytes;
            let us = now.saturating_duration_since(call.since).as_micros() as u64;
            outcome.latency.saturating_record(us.max(1));
        }
    }
}

/// Sends `rate` requests a second, evenly over all connections, for `time`.
pub fn run_open(
    engine: &mut Engine,
    path: &'static str,
    requests: Requests,
    rate: f64,
    time: Duration,
) -> Result<Outcome, String> {
    let start = Instant::now();
    let mut driver = Open {
        path,
        requests,
        start,
        gap: Duration::from_secs_f64(1.0 / rate),
        total: (rate * time.as_secs_f64()) as u32,
        connections: engine.connections(),
        sent: 0,
        under_way: (0..engine.connections()).map(|_| Vec::new()).collect(),
        outcome: Outcome::new(),
        message: Vec::new(),
    };
    engine.run(&mut driver, time + LIMIT)?;
    driver.outcome.time = start.elapsed();
    checked(vec![driver.outcome]).map(|mut all| all.remove(0))
}

struct Open {
    path: &'static str,
    requests: Requests,
    start: Instant,
    gap: Duration,
    total: u32,
    connections: usize,
    sent: u32,
    under_way: Vec<Vec<UnderWay>>,
    outcome: Outcome,
    message: Vec<u8>,
}

impl Open {
    /// When the next request is due.
    fn due(&self) -> Instant {
        self.start + self.gap * self.sent
    }
}

impl Driver for Open {
    /// The connections take turns: each sends the requests that are its own, once they are due.
    fn pump(&mut self, now: Instant, conn: usize, link: &mut Link) {
        while self.sent < self.total
            && self.sent as usize % self.connections == conn
            && self.due() <= now
        {
            self.message.clear();
            (self.requests)(&mut self.message);
            let id = link.open(self.path, &self.message, true);
            let since = self.due();
            self.under_way[conn].push(UnderWay { id, since, bytes: 0 });
            self.sent += 1;
        }
    }

    fn event(&mut self, now: Instant, conn: usize, event: Event<'_>) {
        settle(&mut self.under_way[conn], &mut self.outcome, now, &event);
    }

    fn wake_at(&self) -> Option<Instant> {
        (self.sent < self.total).then(|| self.due())
    }

    fn finished(&self, _now: Instant) -> bool {
        self.sent >= self.total && self.under_way.iter().all(Vec::is_empty)
    }
}
