//! The house rules that no compiler checks: headers, sizes, arrows between crates, what the core must
//! not see. Each rule says why it is there. Not here: format and clippy.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this has outgrown a reader.
const LINES_MAX: usize = 700;

/// What each crate may use of the others. An arrow that is not here is a wall.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("disk", &["api"]),
    ("state", &["api", "disk"]),
    ("node", &["api", "disk", "state"]),
    ("rpc", &[]),
    ("tls", &[]),
    ("host", &[]),
    ("cli", &[]),
    ("json", &["api"]),
    ("transcode", &["json", "rpc"]),
    // Never opens a data directory.
    ("ctl", &["api", "cli", "client"]),
    ("client", &["api"]),
    ("server", &["api", "disk", "state", "node", "rpc", "host", "tls", "json", "transcode"]),
    ("proxy", &["api", "cli", "rpc", "host", "tls", "json", "transcode", "client"]),
    // Never opens a socket.
    ("utl", &["api", "cli", "disk", "state"]),
    ("etch", &["cli", "server", "ctl", "utl", "proxy"]),
    // For tests alone; nothing that ships may use them.
    ("bench", &["api", "disk", "state"]),
    ("doctest", &["client"]),
    ("fuzz", &["api", "disk", "json", "state", "rpc", "server"]),
    ("sim", &["api", "disk", "state", "node"]),
    ("torture", &["api", "disk", "sim"]),
];

/// Crates that must stay deterministic, and what they therefore must not name outside their tests.
const CORE: &[&str] = &["disk", "state", "node", "sim"];
const CORE_BANNED: &[(&str, &str)] = &[
    ("tokio", "the core runs in a simulated world as well"),
    ("Instant::now", "time comes in as a value"),
    ("SystemTime", "time comes in as a value"),
    ("thread::spawn", "threads belong to `server`"),
    ("std::net", "sockets belong to `server`"),
    ("rand::", "seeds come in as values"),
];

/// Words that mean that something was left open.
const LEFT_OPEN: &[&str] = &["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];

/// How items begin that are offered.
const OFFERS: &[&str] =
    &["pub struct ", "pub enum ", "pub trait ", "pub fn ", "pub async fn ", "pub type "];

/// Runs every rule and reports all that they find.
pub fn run(root: &Path) -> Result<(), String> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    for dir in ["crates", "xtask"] {
        sources(&root.join(dir), &mut files)?;
    }
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        check_file(&name, &text, &mut found);
    }
    check_arrows(root, &mut found)?;
    check_invariants(root, &files, &mut found)?;
    if found.is_empty() {
        println!("tidy: {} files, nothing to mend", files.len());
        return Ok(());
    }
    Err(format!("tidy:\n  {}", found.join("\n  ")))
}

fn check_file(name: &str, text: &str, found: &mut Vec<String>) {
    if !text.starts_with("//!") {
        found.push(format!(
            "{name}: the first line must be `//!`: what lives here, and what does not"
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{name}: {lines} lines, {LINES_MAX} at the most"));
    }
    // The rules' own words stand in this file.
    if name.ends_with("tidy.rs") {
        return;
    }
    for (at, line) in text.lines().enumerate() {
        if let Some(word) = LEFT_OPEN.iter().find(|w| line.contains(*w)) {
            found.push(format!("{name}:{}: `{word}`: finish it or file it", at + 1));
        }
    }
    if name.starts_with("crates/client/src/") {
        check_examples(name, text, found);
    }
    // The simulator's programs have threads and say how long it took; its worlds have neither.
    let program = name.ends_with("/src/main.rs") || name.contains("/src/bin/");
    let core = !program && CORE.iter().any(|c| name.starts_with(&format!("crates/{c}/src/")));
    let is_test = name.ends_with("/tests.rs") || name.contains("/tests/");
    if !core || is_test {
        return;
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    for (at, line) in code.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if let Some((word, why)) = CORE_BANNED.iter().find(|(w, _)| line.contains(w)) {
            found.push(format!("{name}:{}: `{word}` in the core: {why}", at + 1));
        }
    }
}

/// What the client offers has an example, which the documentation's tests compile.
fn check_examples(name: &str, text: &str, found: &mut Vec<String>) {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let mut has_example = false;
    for (at, line) in code.lines().enumerate() {
        if line.starts_with("///") {
            has_example |= line.contains("```");
        }
        let is_fence = line.contains("```");
        if is_fence && ["no_run", "ignore", "compile_fail"].iter().any(|word| line.contains(word)) {
            found.push(format!("{name}:{}: an example runs: see `etch-doctest`", at + 1));
        }
        if line.starts_with("///") {
            continue;
        }
        // An attribute may stand between the two, also over several lines.
        if line.starts_with(['#', ' ', ')']) {
            continue;
        }
        if !has_example && OFFERS.iter().any(|kind| line.starts_with(kind)) {
            found.push(format!("{name}:{}: what the client offers has an example", at + 1));
        }
        has_example = false;
    }
}

/// The arrows between crates: a `Cargo.toml` names no crate that [`ARROWS`] does not grant.
fn check_arrows(root: &Path, found: &mut Vec<String>) -> Result<(), String> {
    for entry in list(&root.join("crates"))? {
        let manifest = entry.join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        let krate = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == krate) else {
            found.push(format!("crates/{krate}: not in tidy's map of arrows"));
            continue;
        };
        let normal = text.split("[dev-dependencies]").next().unwrap_or(&text);
        for line in normal.lines().filter(|l| l.starts_with("etch-")) {
            let used = line.trim_start_matches("etch-");
            let used = used.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&used) {
                found.push(format!("crates/{krate}: must not use `etch-{used}`"));
            }
        }
    }
    Ok(())
}

/// Every number in docs/invariants.md is cited by code, and code cites no number that is not there.
fn check_invariants(root: &Path, files: &[PathBuf], found: &mut Vec<String>) -> Result<(), String> {
    let Ok(page) = fs::read_to_string(root.join("docs/invariants.md")) else {
        return Ok(());
    };
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|l| l.strip_prefix("## I"))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    let mut cited = Vec::new();
    for file in files.iter().filter(|f| !f.ends_with("tidy.rs")) {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        for part in text.split("invariant I").skip(1) {
            cited.push(part.chars().take_while(char::is_ascii_digit).collect::<String>());
        }
    }
    for number in &listed {
        if !cited.iter().any(|c| c == number) {
            found.push(format!("docs/invariants.md: I{number} is cited by no assert and no test"));
        }
    }
    for number in cited.iter().filter(|c| !listed.contains(&c.as_str())) {
        found.push(format!("invariant I{number} is cited but not listed in docs/invariants.md"));
    }
    Ok(())
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) -> Result<(), String> {
    for path in list(dir)? {
        if path.is_dir() {
            sources(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut out: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        check_file(name, text, &mut out);
        out
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(found("crates/rpc/src/a.rs", "fn a() {}\n").len(), 1);
        assert!(found("crates/rpc/src/a.rs", "//! A.\n").is_empty());
    }

    #[test]
    fn a_clock_in_the_core_is_found_but_not_in_its_tests() {
        let text = "//! A.\nfn a() { Instant::now(); }\n";
        assert_eq!(found("crates/node/src/a.rs", text).len(), 1);
        assert!(found("crates/server/src/a.rs", text).is_empty());
        let tested = "//! A.\n#[cfg(test)]\nmod tests { fn a() { Instant::now(); } }\n";
        assert!(found("crates/node/src/a.rs", tested).is_empty());
    }

    #[test]
    fn an_example_that_does_not_run_is_found() {
        let text = |fence: &str| format!("//! A.\n/// ```{fence}\n/// ```\npub fn a() {{}}\n");
        let name = "crates/client/src/a.rs";
        for fence in ["no_run", "rust,no_run", "ignore"] {
            assert_eq!(found(name, &text(fence)).len(), 1, "{fence}");
        }
        assert!(found(name, &text("")).is_empty());
        assert_eq!(found(name, "//! A.\npub fn a() {}\n").len(), 1);
    }

    #[test]
    fn the_tree_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("has a parent");
        if let Err(why) = run(root) {
            panic!("{why}");
        }
    }
}
