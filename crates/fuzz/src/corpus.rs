//! The corpus in the repository, `fuzz/corpus/<target>/`, and the runner over it: every input once, and then
//! inputs made from them. Not here: how they are made.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mutate::{self, Chance};
use crate::{Target, memory};

/// A run may hold this many times its input, beside what its target allows.
const TIMES: usize = 64;
/// No input may take longer.
const SLOW: Duration = Duration::from_secs(10);

/// What a target is given.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long inputs are made; the corpus is always gone through.
    pub time: Duration,
    /// How many are made at the most.
    pub inputs: u64,
    /// What they are made from.
    pub seed: u64,
}

/// An input that a target does not stand.
#[derive(Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What went wrong.
    pub why: String,
}

/// `fuzz/` in the repository.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs of a target: its seeds, and the files of its directory.
pub fn load(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut inputs = (target.seeds)();
    inputs.push(Vec::new());
    let dir = home().join("corpus").join(target.name);
    if dir.is_dir() {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
        paths.sort();
        for path in paths {
            inputs.push(fs::read(path)?);
        }
    }
    Ok(inputs)
}

/// Runs one input. An error says what went wrong.
pub fn one(target: &Target, input: &[u8]) -> Result<(), String> {
    let (before, began) = (memory::begin(), Instant::now());
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let (held, took) = (memory::peak().saturating_sub(before), began.elapsed());
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })?;
    if held > target.memory + TIMES * input.len() {
        return Err(format!("{held} bytes of memory for {} bytes of input", input.len()));
    }
    if took > SLOW {
        return Err(format!("{took:?} for {} bytes of input", input.len()));
    }
    Ok(())
}

/// Goes through the corpus, and then through what is made from it. Answers how many inputs there were.
pub fn run(target: &Target, plan: Plan) -> Result<u64, Failure> {
    let told = |input: &[u8], why| Failure { input: input.to_vec(), why };
    let corpus = load(target).map_err(|e| told(&[], format!("the corpus: {e}")))?;
    for input in &corpus {
        one(target, input).map_err(|why| told(input, why))?;
    }
    let (mut chance, began, mut count) = (Chance(plan.seed), Instant::now(), 0);
    while count < plan.inputs && began.elapsed() < plan.time {
        let input = mutate::input(&mut chance, &corpus);
        one(target, &input).map_err(|why| told(&input, why))?;
        count += 1;
    }
    Ok(corpus.len() as u64 + count)
}

/// Keeps an input that a target does not stand, where the next run goes through it.
pub fn keep(target: &Target, input: &[u8]) -> io::Result<PathBuf> {
    let dir = home().join("corpus").join(target.name);
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("crash-{:08x}", crc32c::crc32c(input)));
    fs::write(&path, input)?;
    Ok(path)
}
