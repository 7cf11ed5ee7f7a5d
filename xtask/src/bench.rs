//! `cargo xtask bench`: builds the programs that it compares, ours in the profile that ships, and hands over to the crate
//! `bench`. Not here: what is measured.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cargo, finish};

/// Official programs: the option that names another copy, and the package that ours is built from.
const OFFICIAL: [(&str, &str, &str); 2] = [
    ("--etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    ("--benchmark", "benchmark", "go.etcd.io/etcd/v3/tools/benchmark"),
];

/// Runs the benchmark; a program that an option names is not built.
pub fn run(root: &Path, mut args: Vec<String>) -> Result<(), String> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let asks_only = args.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h" | "--list"));
    cargo(root, &["build", "--quiet", "--profile", "loader", "-p", "etch-bench"])?;
    if !asks_only {
        if !args.iter().any(|arg| arg == "--etch") {
            cargo(root, &["build", "--quiet", "--release"])?;
            option(&mut args, "--etch", &target.join("release").join("etch"));
        }
        for (name, program, package) in OFFICIAL {
            if !args.iter().any(|arg| arg == name) {
                option(&mut args, name, &official(root, &target, program, package)?);
            }
        }
        if !args.iter().any(|arg| arg == "--dir") {
            option(&mut args, "--dir", &target.join("bench"));
        }
    }
    let mut bench = Command::new(target.join("loader").join("etch-bench"));
    bench.args(args).current_dir(root);
    finish(bench, "etch-bench")
}

fn option(args: &mut Vec<String>, name: &str, path: &Path) {
    args.extend([name.to_owned(), path.display().to_string()]);
}

/// One of etcd's programs, built from the version that the tests pin.
fn official(root: &Path, target: &Path, program: &str, package: &str) -> Result<PathBuf, String> {
    let path = target.join("interop").join("bin").join(program);
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&path).arg(package).current_dir(root.join("tests/interop"));
    finish(go, &format!("go build {package}"))?;
    Ok(path)
}
