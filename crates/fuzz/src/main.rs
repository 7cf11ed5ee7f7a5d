//! The runner for a stable toolchain: goes through the corpus of each target, and then through inputs made from
//! it. Not here: the targets. `cargo xtask fuzz` calls it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use etch_fuzz::corpus::{self, Plan};
use etch_fuzz::memory::Counting;
use etch_fuzz::{TARGETS, Target, on_large_stack, target};

#[global_allocator]
static MEMORY: Counting = Counting;

const HELP: &str = "\
usage: etch-fuzz [--seconds N] [--inputs N] [--seed N] [--target NAME]... [FILE]...

  --seconds N    how long inputs are made for each target (3)
  --inputs N     how many at the most
  --seed N       what they are made from (1)
  --target NAME  this target alone; may be repeated
  FILE           runs these inputs alone, for one target
";

struct Asked {
    plan: Plan,
    targets: Vec<&'static Target>,
    files: Vec<String>,
}

fn main() -> ExitCode {
    let asked = match read_arguments() {
        Ok(asked) => asked,
        Err(why) => {
            eprint!("{why}{HELP}");
            return ExitCode::from(2);
        }
    };
    // A panic is told once, with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let mut outcome = Ok(());
    on_large_stack(|| {
        outcome = if asked.files.is_empty() { fuzz(&asked) } else { replay(&asked) };
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fuzz: {why}");
            ExitCode::FAILURE
        }
    }
}

fn read_arguments() -> Result<Asked, String> {
    let plan = Plan { time: Duration::from_secs(3), inputs: u64::MAX, seed: 1 };
    let mut asked = Asked { plan, targets: Vec::new(), files: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64, String> {
            let text = args.next().unwrap_or_default();
            text.parse().map_err(|_| format!("{arg} takes a number\n"))
        };
        match arg.as_str() {
            "--seconds" => asked.plan.time = Duration::from_secs(number()?),
            "--inputs" => asked.plan.inputs = number()?,
            "--seed" => asked.plan.seed = number()?,
            "--target" => {
                let name = args.next().unwrap_or_default();
                let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
                let none = format!("no such target; there are {}\n", names.join(", "));
                asked.targets.push(target(&name).ok_or(none)?);
            }
            other if other.starts_with('-') => return Err(String::new()),
            file => asked.files.push(file.into()),
        }
    }
    if asked.targets.is_empty() {
        asked.targets = TARGETS.iter().collect();
    }
    Ok(asked)
}

fn fuzz(asked: &Asked) -> Result<(), String> {
    for target in &asked.targets {
        let began = Instant::now();
        match corpus::run(target, asked.plan) {
            Ok(count) => {
                println!("fuzz: {}: {count} inputs in {:.1?}", target.name, began.elapsed())
            }
            Err(failure) => {
                let path = corpus::keep(target, &failure.input).map_err(|e| e.to_string())?;
                let (why, bytes) = (failure.why, failure.input.len());
                let path = path.display();
                return Err(format!("{}: {why}\n  {bytes} bytes, kept in {path}", target.name));
            }
        }
    }
    Ok(())
}

fn replay(asked: &Asked) -> Result<(), String> {
    let [target] = asked.targets[..] else { return Err("files are for one target".into()) };
    for file in &asked.files {
        let input = std::fs::read(file).map_err(|e| format!("{file}: {e}"))?;
        corpus::one(target, &input).map_err(|why| format!("{file}: {why}"))?;
    }
    Ok(())
}
