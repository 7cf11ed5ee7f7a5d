//! The project's chores, run as `cargo xtask CHORE`. Here: which chores there are and how they are
//! called. Not here: what tidy looks at (`tidy`).

#![forbid(unsafe_code)]

mod tidy;

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask CHORE

  gate    all that must be green before a change lands: format, clippy, tidy, tests
  tidy    the house rules that no compiler checks
";

fn main() -> ExitCode {
    let chore = env::args().nth(1).unwrap_or_default();
    let root = root();
    let result = match chore.as_str() {
        "gate" => gate(&root),
        "tidy" => tidy::run(&root),
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

/// Everything that must be green, the cheap checks first.
fn gate(root: &PathBuf) -> Result<(), String> {
    cargo(root, &["fmt", "--all", "--check"])?;
    tidy::run(root)?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(root, &["test", "--workspace"])
}

fn cargo(root: &PathBuf, args: &[&str]) -> Result<(), String> {
    println!("xtask: cargo {}", args.join(" "));
    let status = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(args)
        .current_dir(root)
        .status()
        .map_err(|e| format!("cargo did not start: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", args.join(" "))) }
}
