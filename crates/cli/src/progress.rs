//! A line on a terminal that says how far a long job has come. Where standard error is no terminal nothing
//! is shown, so that logs stay logs. Not here: what the job is.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use crate::human;

/// How often the line is drawn anew.
const PACE: Duration = Duration::from_millis(100);

/// How far a job has come, in bytes or in other things.
pub struct Progress {
    what: &'static str,
    /// What is counted, if not bytes.
    things: Option<&'static str>,
    total: Option<u64>,
    done: u64,
    started: Instant,
    drawn: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// A job of so many bytes, if that is known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let shown = stderr().is_terminal();
        Self { what, things: None, total, done: 0, started: Instant::now(), drawn: None, shown }
    }

    /// A job of so many of these things, if that is known.
    pub fn counting(what: &'static str, things: &'static str, total: Option<u64>) -> Self {
        Self { things: Some(things), ..Self::new(what, total) }
    }

    /// So much more is done.
    pub fn add(&mut self, more: u64) {
        self.done += more;
        let is_due = self.drawn.is_none_or(|last| last.elapsed() >= PACE);
        if self.shown && is_due {
            self.draw();
        }
    }

    fn draw(&mut self) {
        self.drawn = Some(Instant::now());
        let _ = write!(stderr(), "\r{}\x1b[K", self.line(self.started.elapsed()));
        let _ = stderr().flush();
    }

    fn line(&self, elapsed: Duration) -> String {
        let count = |count: u64| match self.things {
            None => human::bytes(count),
            Some(things) => format!("{count} {things}"),
        };
        let done = count(self.done);
        let seconds = elapsed.as_secs_f64().max(0.001);
        let pace = count((self.done as f64 / seconds) as u64);
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let percent = self.done.min(total) * 100 / total;
                let total = count(total);
                format!("{} {percent:3}% ({done} of {total}, {pace}/s)", self.what)
            }
            None => format!("{} {done} ({pace}/s)", self.what),
        }
    }
}

impl Drop for Progress {
    /// The line gives way to what is printed next.
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_fast() {
        let mut job = Progress::new("copying", Some(200_000));
        job.shown = false;
        job.add(50_000);
        let line = job.line(Duration::from_secs(1));
        assert_eq!(line, "copying  25% (50 kB of 200 kB, 50 kB/s)");
        job.total = None;
        assert_eq!(job.line(Duration::from_secs(2)), "copying 50 kB (25 kB/s)");
        job.things = Some("keys");
        assert_eq!(job.line(Duration::from_secs(2)), "copying 50000 keys (25000 keys/s)");
    }
}
