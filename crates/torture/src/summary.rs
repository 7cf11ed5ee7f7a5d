//! What is printed: a line a run, and a table by fault. Not here: what is counted where (`run`).

use std::collections::BTreeMap;
use std::fmt;

use crate::options::Options;
use crate::plan::{Kind, Plan};
use crate::run::Report;

/// The line of a run, and what there is to know of one that went wrong.
pub fn print(plan: &Plan, report: &Report, options: &Options) {
    let verdict = match (report.violations.len(), report.void) {
        (0, false) => "ok".to_owned(),
        (0, true) => "void: too little load before the fault".to_owned(),
        (n, _) => format!("{n} VIOLATIONS"),
    };
    let Report { answered, unknown, refused, events, entries, lives, .. } = report;
    println!(
        "seed {:<5} {:<16} {:<25} {:>5} answered {:>4} unknown {:>4} refused {:>6} events {:>5} entries {:>2} lives {:>5.1} s  {verdict}",
        plan.seed,
        plan.profile,
        plan.fault_names(),
        answered,
        unknown,
        refused,
        events,
        entries,
        lives,
        report.took.as_secs_f64(),
    );
    if options.keep || !report.violations.is_empty() {
        println!("  {}", report.notes.join("; "));
        println!("  {}", report.shim);
    }
    for violation in report.violations.iter().take(10) {
        println!("  {violation}");
    }
    if let Some(dir) = &report.dir {
        println!("  in {}", dir.display());
    }
    if !report.violations.is_empty() {
        let fault = options.fault.map_or(String::new(), |k| format!(" --fault {}", k.name()));
        println!(
            "  again: cargo xtask torture --runs 1 --seed {}{fault} --etch {}",
            plan.seed,
            options.etch.display()
        );
    }
}

/// Sums over runs with a fault.
#[derive(Clone, Debug, Default)]
struct Row {
    runs: u64,
    void: u64,
    lives: u64,
    answered: u64,
    unknown: u64,
    events: u64,
    violations: u64,
}

impl Row {
    fn add(&mut self, other: &Row) {
        self.runs += other.runs;
        self.void += other.void;
        self.lives += other.lives;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.events += other.events;
        self.violations += other.violations;
    }
}

/// All runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    kinds: BTreeMap<Kind, Row>,
    all: Row,
}

impl Summary {
    /// Counts a run. A void one is told apart, and counts for nothing else.
    pub fn count(&mut self, plan: &Plan, report: &Report) {
        let wrong = report.violations.len() as u64;
        let row = if report.void && wrong == 0 {
            Row { void: 1, ..Row::default() }
        } else {
            Row {
                runs: 1,
                void: 0,
                lives: report.lives.into(),
                answered: report.answered as u64,
                unknown: report.unknown as u64,
                events: report.events as u64,
                violations: wrong,
            }
        };
        for kind in &plan.faults {
            self.kinds.entry(*kind).or_default().add(&row);
        }
        self.all.add(&row);
    }

    /// Adds what another worker has counted.
    pub fn add(&mut self, other: Summary) {
        for (kind, row) in &other.kinds {
            self.kinds.entry(*kind).or_default().add(row);
        }
        self.all.add(&other.all);
    }

    /// How many violations there were.
    pub fn violations(&self) -> u64 {
        self.all.violations
    }

    /// Whether at least one run said something, and none stayed void for good.
    pub fn is_complete(&self, bounded: bool) -> bool {
        self.all.runs > 0 || bounded
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nfault           runs  void  lives  answered  unknown    events  violations"
        )?;
        let all =
            self.kinds.iter().map(|(kind, row)| (kind.name(), row)).chain([("all", &self.all)]);
        for (name, row) in all {
            let Row { runs, void, lives, answered, unknown, events, violations } = row;
            writeln!(
                f,
                "{name:<14} {runs:>5} {void:>5} {lives:>6} {answered:>9} {unknown:>8} {events:>9} {violations:>11}"
            )?;
        }
        Ok(())
    }
}
