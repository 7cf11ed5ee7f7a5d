//! A failing seed is made small: a shorter time, fewer faults, fewer clients, as long as it still fails. Each part
//! of a world draws from a stream of its own, so that what is left does much the same as before. Not here: what
//! fails (`run`).

use crate::params::Options;
use crate::run::{Report, run};

/// Runs that a search may take.
const RUNS_MAX: usize = 250;

/// The smallest failing variant that was found within some runs; the given one, if none is smaller.
pub fn shrink(failing: &Report) -> Report {
    let mut search = Search { runs: 0, best: None };
    let mut options = failing.options.clone();
    search.shorten(&mut options);
    let faults = options.faults.clone().unwrap_or_else(|| (0..failing.faults).collect());
    let fewer = search.thin(faults, |list| Options { faults: Some(list), ..options.clone() });
    options.faults = fewer.or(options.faults);
    let clients = options.clients.clone().unwrap_or_else(|| (0..failing.clients).collect());
    let fewer = search.thin(clients, |list| Options { clients: Some(list), ..options.clone() });
    options.clients = fewer.or(options.clients);
    search.shorten(&mut options);
    search.best.unwrap_or_else(|| run(&failing.options))
}

struct Search {
    runs: usize,
    best: Option<Report>,
}

impl Search {
    /// Whether this still fails; if so, it is the best so far.
    fn fails(&mut self, options: &Options) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let report = run(options);
        let fails = !report.violations.is_empty();
        if fails {
            self.best = Some(report);
        }
        fails
    }

    fn shorten(&mut self, options: &mut Options) {
        let mut step = options.load_ms / 2;
        while step >= 100 {
            let shorter =
                Options { load_ms: options.load_ms.saturating_sub(step), ..options.clone() };
            if shorter.load_ms > 0 && self.fails(&shorter) {
                *options = shorter;
                step = step.min(options.load_ms / 2);
            } else {
                step /= 2;
            }
        }
    }

    /// Takes away parts of a list, large ones first; `None` if nothing can go.
    fn thin(
        &mut self,
        mut list: Vec<usize>,
        with: impl Fn(Vec<usize>) -> Options,
    ) -> Option<Vec<usize>> {
        let before = list.len();
        let mut size = list.len().max(1);
        loop {
            let mut at = 0;
            while at < list.len() {
                let end = (at + size).min(list.len());
                let rest: Vec<usize> = [&list[..at], &list[end..]].concat();
                if self.fails(&with(rest.clone())) {
                    list = rest;
                } else {
                    at = end;
                }
            }
            if size == 1 {
                return (list.len() < before).then_some(list);
            }
            size = size.div_ceil(2);
        }
    }
}
