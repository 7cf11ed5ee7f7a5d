//! The power of the net: each old bug is put back and must be seen, by a simulated world or by a test. What
//! `cargo xtask mutants` runs first. Here: the worlds, the table, and which bugs are left to tests. Not here:
//! the bugs (`etch_disk::mutants` has their list), and running those tests (`xtask`).

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use etch_disk::mutants::{self, Mutant};
use etch_sim::params::Options;
use etch_sim::run::{Report, run};

const HELP: &str = "\
cargo xtask mutants [OPTIONS]

Puts old bugs back, one after another, and shows how many seeds of the simulated world see each. Fails if one is
not seen, or if the canary is not seen by every seed.

  --only NAME  this bug alone
  --seed S     this seed alone, with all that is wrong
  --seeds N    how many seeds at the most for a bug (300)
  --least N    how many at the least (6)
  --ms MS      virtual time of load and faults in each world (15000)
  --tests      print the bugs that are left to tests: name, package, filter
";

/// Bugs that a world of clients and faults cannot show: each one's name is set for a test that must fail then.
/// The package, and what the test's path begins with.
const BY_TESTS: &[(Mutant, &str, &str)] = &[
    (Mutant::I11651, "etch-state", "auth"),
    (Mutant::I14571, "etch-state", "auth"),
    (Mutant::I14355, "etch-state", "auth"),
    (Mutant::I15814, "etch-state", "auth"),
    (Mutant::I21683, "etch-state", "auth"),
    (Mutant::GhsaXg4h, "etch-state", "auth"),
    (Mutant::Cve202633343, "etch-state", "auth"),
    // The world's members serve once an entry of their own is applied, as the server does.
    (Mutant::R105, "etch-node", "r105"),
    // Seen by worlds as well, but rarely.
    (Mutant::I14562, "etch-sim", "i14562"),
    (Mutant::I14758, "etch-sim", "i20590"),
    (Mutant::I15248, "etch-sim", "i15248"),
    (Mutant::I9291, "etch-sim", "i9291"),
    (Mutant::I15247, "etch-node", "i15247"),
    // A leader that was paused for seconds, and a renewal at the moment in which it goes on.
    (Mutant::I12528, "etch-sim", "i12528"),
    // What a crash leaves in files, tried at every step.
    (Mutant::I14685, "etch-sim", "i14685"),
    (Mutant::I11613, "etch-sim", "i11613"),
    // Where the log's writes take zeros along, they cover what such a tail has left.
    (Mutant::I5230, "etch-disk", "i5230"),
    (Mutant::I14114, "etch-sim", "i5230"),
    (Mutant::I17780, "etch-sim", "i17780"),
    (Mutant::I12691, "etch-sim", "every_sequence_of_three_operations"),
    (Mutant::AheadOfLog, "etch-sim", "every_sequence_of_three_operations"),
    // Seen by one world in a thousand or more.
    (Mutant::UnflushedTail, "etch-disk", "what_only_the_kernel_holds"),
    (Mutant::UnflushedRoot, "etch-disk", "a_root_that_only_the_kernel_holds"),
    (Mutant::LateCheckpoint, "etch-state", "a_lease_is_not_renewed"),
];

struct Arguments {
    only: Option<Mutant>,
    seed: Option<u64>,
    most: u64,
    least: u64,
    ms: u64,
    tests: bool,
}

/// What came of one bug.
struct Row {
    mutant: Mutant,
    seeds: u64,
    caught: u64,
    /// The first seed that saw it, and what it said.
    first: Option<(u64, String)>,
    /// Seeds that fail without the bug as well: they prove nothing.
    unsound: Vec<u64>,
}

fn main() -> ExitCode {
    let arguments = match parse(env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("mutants: {why}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.tests {
        for (mutant, package, filter) in BY_TESTS {
            println!("{} {package} {filter}", mutant.name());
        }
        return ExitCode::SUCCESS;
    }
    match (arguments.only, arguments.seed) {
        (Some(mutant), Some(seed)) => one(mutant, seed, arguments.ms),
        _ => all(&arguments),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut out =
        Arguments { only: None, seed: None, most: 300, least: 6, ms: 15_000, tests: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--only" => out.only = Some(named(&value()?)?),
            "--seed" => out.seed = Some(number(&value()?)?),
            "--seeds" => out.most = number(&value()?)?,
            "--least" => out.least = number(&value()?)?,
            "--ms" => out.ms = number(&value()?)?,
            "--tests" => out.tests = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown option `{other}`")),
        }
    }
    Ok(Some(out))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn named(text: &str) -> Result<Mutant, String> {
    let named = Mutant::ALL.iter().find(|mutant| mutant.name() == text);
    named.copied().ok_or(format!("no bug is called `{text}`"))
}

/// A world that may see the bug, with it or without.
fn world(bug: Mutant, put_back: bool, seed: u64, ms: u64) -> Report {
    mutants::set(put_back.then_some(bug));
    let report = run(&Options { load_ms: ms, ..Options::new(seed) });
    mutants::set(None);
    report
}

fn one(mutant: Mutant, seed: u64, ms: u64) -> ExitCode {
    let report = world(mutant, true, seed, ms);
    println!("{}: {}", mutant.name(), mutant.what());
    for violation in &report.violations {
        println!("  {violation}");
    }
    if report.violations.is_empty() {
        println!("  seed {seed} does not see it");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// All bugs that worlds are to see, on as many threads as there are cores: a switch is its thread's own.
fn all(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let left = |mutant: &&Mutant| !BY_TESTS.iter().any(|(other, ..)| other == *mutant);
    let todo: Vec<Mutant> = match arguments.only {
        Some(mutant) => vec![mutant],
        None => Mutant::ALL.iter().filter(left).copied().collect(),
    };
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = row(*mutant, arguments);
                    print(&row, arguments.ms);
                    rows.lock().expect("no thread panics with it").push(row);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("no thread panics with it");
    let missed: Vec<&str> =
        rows.iter().filter(|row| row.caught == 0).map(|row| row.mutant.name()).collect();
    let blind = rows.iter().any(|row| row.mutant == Mutant::Canary && row.caught < row.seeds);
    println!(
        "\n{} bugs put back, {} seen, in {:.0} s",
        rows.len(),
        rows.len() - missed.len(),
        began.elapsed().as_secs_f64()
    );
    if blind {
        println!("a seed did not see the canary: the judges are blind");
    }
    if !missed.is_empty() {
        println!("not seen: {}", missed.join(", "));
    }
    if missed.is_empty() && !blind && !rows.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Seeds with a bug put back, until it was seen and the least number is done. A seed counts only if nothing is
/// wrong without the bug.
fn row(mutant: Mutant, arguments: &Arguments) -> Row {
    let mut row = Row { mutant, seeds: 0, caught: 0, first: None, unsound: Vec::new() };
    for seed in 1..=arguments.most {
        if row.seeds >= arguments.least && row.caught > 0 {
            break;
        }
        row.seeds += 1;
        let report = world(mutant, true, seed, arguments.ms);
        let Some(said) = report.violations.first() else { continue };
        if row.first.is_none() {
            if !world(mutant, false, seed, arguments.ms).violations.is_empty() {
                row.unsound.push(seed);
                continue;
            }
            row.first = Some((seed, said.clone()));
        }
        row.caught += 1;
    }
    row
}

fn print(row: &Row, ms: u64) {
    let name = row.mutant.name();
    let mut lines = format!("{name}: {}\n", row.mutant.what());
    match &row.first {
        Some((seed, said)) => {
            let said: String = said.chars().take(110).collect();
            lines.push_str(&format!(
                "  seen in {} of {} seeds, first in {seed}: {said}\n  cargo xtask mutants --only {name} --seed {seed} --ms {ms}\n",
                row.caught, row.seeds
            ));
        }
        None => lines.push_str(&format!("  NOT SEEN in {} seeds\n", row.seeds)),
    }
    if !row.unsound.is_empty() {
        lines.push_str(&format!("  seeds that fail without it as well: {:?}\n", row.unsound));
    }
    // Several threads print: one write for each bug.
    print!("{lines}");
}
