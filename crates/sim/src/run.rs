//! One seed: its world runs, and all judges look at what it left. A panic within is a finding like any other.
//! Not here: many seeds (`main`), and how a failing one is made small (`shrink`).

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::history::History;
use crate::judge;
use crate::params::Options;
use crate::stats::Stats;
use crate::world::World;

/// What one seed came to.
#[derive(Debug)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// What was wrong; nothing, if all is well.
    pub violations: Vec<String>,
    /// What happened to members, if that was asked for.
    pub journal: Vec<String>,
    /// Counts.
    pub stats: Stats,
    /// What clients asked and saw; empty after a panic.
    pub history: History,
    /// How many faults the seed plans.
    pub faults: usize,
    /// How many clients it has, those that watch included.
    pub clients: usize,
}

thread_local! {
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
    static LISTENING: RefCell<bool> = const { RefCell::new(false) };
}

/// Keeps what a panic in a world says, instead of printing it.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if LISTENING.with(|l| *l.borrow()) {
                PANICKED.with(|p| *p.borrow_mut() = Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

/// Runs one seed.
pub fn run(options: &Options) -> Report {
    listen_for_panics();
    LISTENING.with(|l| *l.borrow_mut() = true);
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut outcomes = World::new(options.clone()).run();
        let said = judged(&outcomes.history, &mut outcomes.stats);
        outcomes.violations.extend(said);
        outcomes
    }));
    LISTENING.with(|l| *l.borrow_mut() = false);
    match ran {
        Ok(mut outcomes) => {
            outcomes.stats.worlds = 1;
            Report {
                options: options.clone(),
                violations: outcomes.violations,
                journal: outcomes.journal,
                stats: outcomes.stats,
                history: outcomes.history,
                faults: outcomes.planned_faults,
                clients: outcomes.clients,
            }
        }
        Err(_) => {
            let said = PANICKED.with(|p| p.borrow_mut().take());
            Report {
                options: options.clone(),
                violations: vec![format!("panic: {}", said.unwrap_or_default())],
                journal: Vec::new(),
                stats: Stats { worlds: 1, ..Stats::default() },
                history: History::default(),
                faults: 0,
                clients: 0,
            }
        }
    }
}

/// What the judges say, and what they had to look at.
fn judged(history: &History, stats: &mut Stats) -> Vec<String> {
    match judge::check(history) {
        Ok(checked) => {
            stats.add("judged: writes in the log", checked.writes as u64);
            stats.add("judged: reads", checked.reads as u64);
            stats.add("judged: watches", checked.watches as u64);
            stats.add("judged: events", checked.events as u64);
            stats.add("judged: leases", checked.leases as u64);
            stats.add("judged: hashes", checked.hashes as u64);
            stats.add("judged: unknown writes done", checked.unknown_done as u64);
            stats.add("judged: searches given up", u64::from(checked.undecided));
            Vec::new()
        }
        Err(violations) => violations.iter().map(ToString::to_string).collect(),
    }
}

/// A number that stands for everything in a history: equal histories have equal ones.
pub fn fingerprint(history: &History) -> u64 {
    let mut sum = Fnv(0xcbf2_9ce4_8422_2325);
    // Writing into a number cannot fail.
    let _ = write!(sum, "{history:?}");
    sum.0
}

/// FNV-1a.
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

impl Options {
    /// The command that runs exactly this again.
    pub fn command(&self) -> String {
        let mut command = format!("cargo xtask sim --seed {}", self.seed);
        let list =
            |list: &[usize]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if self.load_ms != Self::new(0).load_ms {
            let _ = write!(command, " --ms {}", self.load_ms);
        }
        if let Some(members) = self.members {
            let _ = write!(command, " --members {members}");
        }
        if let Some(faults) = &self.faults {
            let _ = write!(
                command,
                " --faults {}",
                if faults.is_empty() { "none".into() } else { list(faults) }
            );
        }
        if let Some(clients) = &self.clients {
            let _ = write!(
                command,
                " --clients {}",
                if clients.is_empty() { "none".into() } else { list(clients) }
            );
        }
        command
    }
}
