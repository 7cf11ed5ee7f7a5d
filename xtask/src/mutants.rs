//! Old bugs put back: the worlds that must see them (the program `etch-mutants` of crate `sim`), and the tests
//! that must fail for those that no world can show. Not here: the bugs (`etch_disk::mutants`).

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program, built once with the bugs in it.
const PROGRAM: &[&str] = &[
    "run",
    "--quiet",
    "--package",
    "etch-sim",
    "--features",
    "mutants",
    "--bin",
    "etch-mutants",
    "--",
];

/// Runs the program with these arguments; without any, the tests as well.
pub fn run(root: &Path, args: Vec<String>) -> Result<(), String> {
    let mut all = PROGRAM.to_vec();
    all.extend(args.iter().map(String::as_str));
    let worlds = super::cargo(root, &all);
    if !args.is_empty() {
        return worlds;
    }
    let tests = tests(root);
    worlds.and(tests)
}

/// For each bug that is left to tests: without it they pass, with it they fail.
fn tests(root: &Path) -> Result<(), String> {
    let mut list = PROGRAM.to_vec();
    list.push("--tests");
    let output = cargo(root).args(&list).output().map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut missed = Vec::new();
    let mut sound = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[bug, package, filter] = words.as_slice() else { continue };
        if !sound.contains(&(package, filter)) {
            if !test(root, package, filter, None)? {
                return Err(format!("{package}: {filter} fails without any bug put back"));
            }
            sound.push((package, filter));
        }
        let seen = !test(root, package, filter, Some(bug))?;
        let verdict = if seen { "seen" } else { "NOT SEEN" };
        println!(
            "{bug}: {verdict} by a test\n  ETCH_MUTANT={bug} cargo test -p {package} --features mutants {filter}"
        );
        if !seen {
            missed.push(bug);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("no test sees {}", missed.join(", "))) }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(root);
    command
}

/// Whether tests pass with a bug put back. The build must succeed either way.
fn test(root: &Path, package: &str, filter: &str, bug: Option<&str>) -> Result<bool, String> {
    let mut args = vec!["test", "--quiet", "--package", package, "--features", "mutants"];
    let built = cargo(root).args(&args).arg("--no-run").status();
    if !built.map_err(|e| format!("cargo: {e}"))?.success() {
        return Err(format!("{package} does not build"));
    }
    args.push(filter);
    let mut command = cargo(root);
    command.args(&args).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(bug) = bug {
        command.env("ETCH_MUTANT", bug);
    }
    Ok(command.status().map_err(|e| format!("cargo: {e}"))?.success())
}
