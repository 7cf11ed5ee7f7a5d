//! Many seeds side by side, or one: what `cargo xtask sim` runs. Here: the command line, threads, real time, and
//! what is printed. Not here: the world itself (the library beside this).

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use etch_sim::params::Options;
use etch_sim::run::{Report, fingerprint, run};
use etch_sim::shrink::shrink;
use etch_sim::stats::Stats;

const HELP: &str = "\
cargo xtask sim [OPTIONS]

Runs the core in simulated worlds, each drawn from one seed: clients, faults, then a time without faults in which
all must come right. Prints what was done, and for a seed that fails, one command that runs it again, made small.

  --seeds N      how many seeds (100)
  --first S      the first of them (1)
  --seed S       this one alone, with its counts
  --minutes M    virtual minutes of load and faults in each world (1)
  --ms MS        the same in milliseconds
  --members N    members in each world; drawn if not given
  --faults LIST  of the faults that the seed plans these alone, by number; `none` for none
  --clients LIST of its clients these alone, by number
  --keep-going   go on after a seed that fails
  --no-shrink    print a failing seed as it is
  --journal      print what happened to members (of one seed)
  --history      print what the clients saw (of one seed)
";

/// A world makes and drops many small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Arguments {
    first: u64,
    seeds: u64,
    alone: bool,
    keep_going: bool,
    shrink: bool,
    history: bool,
    base: Options,
}

fn main() -> ExitCode {
    let arguments = match parse(env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("sim: {why}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.alone { one(&arguments) } else { many(&arguments) }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut out = Arguments {
        first: 1,
        seeds: 100,
        alone: false,
        keep_going: false,
        shrink: true,
        history: false,
        base: Options::new(0),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--seeds" => out.seeds = number(&value()?)?,
            "--first" => out.first = number(&value()?)?,
            "--seed" => (out.first, out.alone) = (number(&value()?)?, true),
            "--minutes" => out.base.load_ms = number(&value()?)? * 60_000,
            "--ms" => out.base.load_ms = number(&value()?)?,
            "--members" => out.base.members = Some(number(&value()?)?.clamp(1, 7) as usize),
            "--faults" => out.base.faults = Some(list(&value()?)?),
            "--clients" => out.base.clients = Some(list(&value()?)?),
            "--keep-going" => out.keep_going = true,
            "--no-shrink" => out.shrink = false,
            "--journal" => out.base.journal = true,
            "--history" => out.history = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown option `{other}`")),
        }
    }
    Ok(Some(out))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn list(text: &str) -> Result<Vec<usize>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    text.split(',').map(|n| number(n).map(|n| n as usize)).collect()
}

/// One seed, with all that can be said of it.
fn one(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let report = run(&Options { seed: arguments.first, ..arguments.base.clone() });
    report.journal.iter().for_each(|line| println!("{line}"));
    if arguments.history {
        println!("{:#?}", report.history);
    }
    print!("{}", report.stats);
    println!(
        "\nfingerprint {:016x}, {} ms",
        fingerprint(&report.history),
        began.elapsed().as_millis()
    );
    if report.violations.is_empty() {
        println!("seed {}: nothing wrong", arguments.first);
        return ExitCode::SUCCESS;
    }
    tell(&report);
    ExitCode::FAILURE
}

fn tell(report: &Report) {
    println!("\nseed {}: {} violations", report.options.seed, report.violations.len());
    for violation in report.violations.iter().take(8) {
        println!("  {violation}");
    }
    println!("run it again: {}", report.options.command());
}

/// Seeds on as many threads as there are cores.
fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Stats::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds {
                        return;
                    }
                    let seed = arguments.first + number;
                    let report = run(&Options { seed, ..arguments.base.clone() });
                    let mut total = total.lock().expect("no thread panics with it");
                    total.0.merge(&report.stats);
                    if !report.violations.is_empty() {
                        stop.store(!arguments.keep_going, Ordering::Relaxed);
                        tell(&report);
                        total.1.push(report);
                    }
                }
            });
        }
    });
    let (stats, failing) = total.into_inner().expect("no thread panics with it");
    let took = began.elapsed().as_secs_f64();
    print!("{stats}");
    println!(
        "\n{} histories checked in {took:.1} s: {:.0} virtual seconds a second, {} violations",
        stats.worlds,
        stats.virtual_ns as f64 / 1e9 / took,
        failing.len(),
    );
    let Some(first) = failing.iter().min_by_key(|r| r.options.seed) else {
        return ExitCode::SUCCESS;
    };
    if arguments.shrink {
        println!("\nmaking seed {} small", first.options.seed);
        tell(&shrink(first));
    }
    ExitCode::FAILURE
}
