//! The project's chores, run as `cargo xtask CHORE`. Here: which chores there are and how they are
//! called. Not here: what tidy looks at (`tidy`).

#![forbid(unsafe_code)]

mod archive;
mod bench;
mod dist;
mod mutants;
mod tidy;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask CHORE

  gate    all that must be green before a change lands: format, tidy, clippy, tests, fuzz targets,
          simulated worlds; with `--no-run` only what builds and looks, and runs nothing
  dist    a tarball and a Debian package, with manual pages and completion for shells
  tidy    the house rules that no compiler checks
  fuzz    parsers under bytes that nobody would send; `cargo xtask fuzz --help` says more
  sim     simulated worlds under faults, judged; `cargo xtask sim --help` says more
  mutants old bugs put back: each must be seen; `cargo xtask mutants --help` says more
  bench   etcd and etch under the same loads, and their ratios; see `cargo xtask bench --help`
  torture real processes under load, with faults; see `cargo xtask torture --help`
";

/// Seconds that each fuzz target is given before a change lands.
const GATE_FUZZ: &str = "2";
/// Seeds that must pass before a change lands.
const GATE_SEEDS: &str = "1000";
/// The micro-benchmarks are behind a feature, so that nobody builds what they need unasked; clippy reads them.
const MICRO: &str = "etch-bench/micro";

fn main() -> ExitCode {
    let chore = env::args().nth(1).unwrap_or_default();
    let root = root();
    let result = match chore.as_str() {
        "gate" => gate(&root, &env::args().skip(2).collect::<Vec<_>>()),
        "tidy" => tidy::run(&root),
        "dist" => dist::run(&root, &env::args().skip(2).collect::<Vec<_>>()),
        "sim" => sim(&root, env::args().skip(2)),
        "mutants" => mutants::run(&root, env::args().skip(2).collect()),
        "torture" => torture(&root, env::args().skip(2).collect()),
        "bench" => bench::run(&root, env::args().skip(2).collect()),
        "fuzz" => fuzz(&root, env::args().skip(2)),
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("unknown chore `{other}`\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: the parent of this crate's directory.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").into()
}

/// Everything that must be green, the cheap checks first. With `--no-run` it ends where programs would run: what
/// comes before needs no server, so that one may be built beside it.
fn gate(root: &Path, args: &[String]) -> Result<(), String> {
    let run = match args {
        [] => true,
        [flag] if flag == "--no-run" => false,
        _ => return Err(format!("gate: unknown arguments `{}`", args.join(" "))),
    };
    cargo(root, &["fmt", "--all", "--check"])?;
    tidy::run(root)?;
    cargo(
        root,
        &["clippy", "--workspace", "--all-targets", "--features", MICRO, "--", "-D", "warnings"],
    )?;
    let server = program(root, "etch")?;
    if !run {
        return Ok(());
    }
    let mut tests = cargo_command(root, &["test", "--workspace"]);
    if env::var_os("ETCH_BIN").is_none() {
        tests.env("ETCH_BIN", server);
    }
    finish(tests, "cargo test --workspace")?;
    fuzz(root, ["--seconds", GATE_FUZZ].map(String::from).into_iter())?;
    sim(root, ["--seeds", GATE_SEEDS].map(String::from).into_iter())
}

/// Runs the fuzz targets.
fn fuzz(root: &Path, args: impl Iterator<Item = String>) -> Result<(), String> {
    run(root, "etch-fuzz", args)
}

/// Runs the simulator.
fn sim(root: &Path, args: impl Iterator<Item = String>) -> Result<(), String> {
    run(root, "etch-sim", args)
}

/// Runs the driver of real processes; without `--etch`, on the server built as everyday tests build it.
fn torture(root: &Path, mut args: Vec<String>) -> Result<(), String> {
    let helps = args.iter().any(|arg| arg == "--help" || arg == "-h");
    if !helps && !args.iter().any(|arg| arg == "--etch") {
        args.extend(["--etch".into(), program(root, "etch")?.display().to_string()]);
    }
    run(root, "etch-torture", args.into_iter())
}

fn run(root: &Path, name: &str, args: impl Iterator<Item = String>) -> Result<(), String> {
    let mut command = Command::new(program(root, name)?);
    command.args(args).current_dir(root);
    finish(command, name)
}

/// A program of the workspace, from the one build that the tests come from as well: a build of one package
/// alone would compile what many depend on anew, for its own set of features.
fn program(root: &Path, name: &str) -> Result<PathBuf, String> {
    cargo(root, &["build", "--quiet", "--workspace", "--all-targets"])?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug").join(name))
}

fn cargo(root: &Path, args: &[&str]) -> Result<(), String> {
    finish(cargo_command(root, args), &format!("cargo {}", args.join(" ")))
}

fn cargo_command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(args).current_dir(root);
    command
}

fn finish(mut command: Command, name: &str) -> Result<(), String> {
    println!("xtask: {name}");
    let status = command.status().map_err(|e| format!("{name} did not start: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed")) }
}
