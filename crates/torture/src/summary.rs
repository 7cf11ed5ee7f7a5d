//! What is printed: a line a run, and a table by fault. Not here: what is counted where (`run`).

use std::collections::BTreeMap;
use std::fmt;

use crate::options::Options;
use crate::plan::{Kind, Plan};
use crate::run::Report;

/// The line of a run, and what there is to know of one that went wrong.
pub fn print(plan: &Plan, report: &Report, options: &Options) {
    let verdict = match (report.violations.len(), report.void, report.checked.undecided) {
        (0, false, false) => "ok".to_owned(),
        (0, false, true) => "ok, without the search".to_owned(),
        (0, true, _) => "void: too little load before the fault".to_owned(),
        (n, ..) => format!("{n} VIOLATIONS"),
    };
    println!(
        "seed {:<5} {:<16} {:<25} {:>5} answered {:>3} unknown {:>3} refused {:>6} events {:>5} entries {:>2} lives {:>5.1} s  {verdict}",
        plan.seed,
        plan.profile,
        plan.fault_names(),
        report.answered,
        report.unknown,
        report.refused,
        report.events,
        report.entries,
        report.lives,
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
        let fault = match options.fault {
            _ if options.canary => " --canary".to_owned(),
            Some(kind) => format!(" --fault {}", kind.name()),
            None => String::new(),
        };
        println!(
            "  again: cargo xtask torture --runs 1 --seed {}{fault} --etch {}",
            plan.seed,
            options.etch.display()
        );
    }
}

/// Sums over runs.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    runs: u64,
    struck: u64,
    void: u64,
    lives: u64,
    answered: u64,
    unknown: u64,
    done: u64,
    reads: u64,
    events: u64,
    hashes: u64,
    violations: u64,
}

impl Row {
    /// A void run is told apart, and counts for nothing else.
    fn of(report: &Report) -> Row {
        let wrong = report.violations.len() as u64;
        if report.void && wrong == 0 {
            return Row { void: 1, ..Row::default() };
        }
        Row {
            runs: 1,
            struck: report.struck.into(),
            void: 0,
            lives: report.lives.into(),
            answered: report.answered as u64,
            unknown: report.unknown as u64,
            done: report.checked.unknown_done as u64,
            reads: report.checked.reads as u64,
            events: report.checked.events as u64,
            hashes: report.checked.hashes as u64,
            violations: wrong,
        }
    }

    fn add(&mut self, other: &Row) {
        self.runs += other.runs;
        self.struck += other.struck;
        self.void += other.void;
        self.lives += other.lives;
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.done += other.done;
        self.reads += other.reads;
        self.events += other.events;
        self.hashes += other.hashes;
        self.violations += other.violations;
    }
}

/// All runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    kinds: BTreeMap<Kind, Row>,
    all: Row,
    /// By seed, how many violations; none at all for a run that was void to the end.
    seeds: BTreeMap<u64, Option<u64>>,
}

impl Summary {
    /// Counts a run; one of two faults in the rows of both.
    pub fn count(&mut self, plan: &Plan, report: &Report) {
        let row = Row::of(report);
        for kind in &plan.faults {
            self.kinds.entry(*kind).or_default().add(&row);
        }
        self.all.add(&row);
        self.seeds.insert(plan.seed, (row.void == 0).then_some(row.violations));
    }

    /// Adds what another worker has counted.
    pub fn add(&mut self, other: Summary) {
        for (kind, row) in &other.kinds {
            self.kinds.entry(*kind).or_default().add(row);
        }
        self.all.add(&other.all);
        self.seeds.extend(other.seeds);
    }

    /// How many violations there were.
    pub fn violations(&self) -> u64 {
        self.all.violations
    }

    /// How many seeds passed, and how many did not. One that stayed void has shown nothing, and fails.
    pub fn passed_and_failed(&self) -> (usize, usize) {
        let passed = self.seeds.values().filter(|wrong| **wrong == Some(0)).count();
        (passed, self.seeds.len() - passed)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nfault         runs struck  void lives answered unknown  done   reads   events hashes violations"
        )?;
        let kinds = self.kinds.iter().map(|(kind, row)| (kind.name(), row));
        for (name, row) in kinds.chain([("all", &self.all)]) {
            writeln!(
                f,
                "{name:<13} {:>4} {:>6} {:>5} {:>5} {:>8} {:>7} {:>5} {:>7} {:>8} {:>6} {:>10}",
                row.runs,
                row.struck,
                row.void,
                row.lives,
                row.answered,
                row.unknown,
                row.done,
                row.reads,
                row.events,
                row.hashes,
                row.violations,
            )?;
        }
        writeln!(f, "struck: a fault came to pass; done: of the unknown, those that the log has")
    }
}
