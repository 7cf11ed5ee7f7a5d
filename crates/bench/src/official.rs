//! Rows whose load comes from etcd's own `benchmark` tool, for those who know its figures. Not here: our own
//! loads (`rows`).

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::measure::{Measure, Sample, Window};
use crate::rows::Scale;
use crate::server::Server;

/// `benchmark put` with so many connections and clients.
pub fn put(server: &Server, clients: [usize; 2], scale: &Scale) -> Result<Sample, String> {
    let words = ["put", "--val-size", "256", "--key-space-size", "100000"];
    run(server, clients, scale, &words)
}

/// `benchmark range` of one key.
pub fn range(server: &Server, clients: [usize; 2], scale: &Scale) -> Result<Sample, String> {
    run(server, clients, scale, &["range", "k"])
}

fn run(
    server: &Server,
    [connections, clients]: [usize; 2],
    scale: &Scale,
    words: &[&str],
) -> Result<Sample, String> {
    let total = if clients > 1 { scale.official[0] } else { scale.official[1] };
    let window = Window::open(server)?;
    let output = Command::new(&scale.benchmark)
        .args(words)
        .args(["--endpoints", &server.addr().to_string()])
        .args(["--conns", &connections.to_string(), "--clients", &clients.to_string()])
        .args(["--total", &total.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", scale.benchmark.display()))?;
    let report = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || report.contains("Error distribution") {
        return Err(format!("benchmark failed:\n{report}"));
    }
    let sample = read(&report).ok_or_else(|| format!("benchmark said:\n{report}"))?;
    let time = Duration::from_secs_f64(total as f64 / sample[0].1);
    // The loader is another process here, and not counted.
    let used = window.close(server, total, time)?;
    Ok(sample.into_iter().chain(used.into_iter().filter(|u| u.0 != Measure::LoaderCpu)).collect())
}

/// What the tool reports at its end.
fn read(report: &str) -> Option<Sample> {
    let number = |line: &str| line.split_whitespace().find_map(|w| w.parse::<f64>().ok());
    let after = |name: &str| {
        report.lines().find_map(|l| l.trim_start().strip_prefix(name)).and_then(number)
    };
    let mut sample = vec![(Measure::Rate, after("Requests/sec:")?)];
    for (name, measure) in
        [("50% in", Measure::P50), ("99% in", Measure::P99), ("99.9% in", Measure::P999)]
    {
        sample.push((measure, after(name)? * 1e6));
    }
    Some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_report_is_read() {
        let report = "\nSummary:\n  Total:\t0.4 secs.\n  Requests/sec:\t28123.5\n\nLatency distribution:\n  \
                      50% in 0.0010 secs.\n  99% in 0.0020 secs.\n  99.9% in 0.0040 secs.\n";
        let sample = read(report).expect("is whole");
        assert_eq!(sample[0], (Measure::Rate, 28123.5));
        assert_eq!(sample[3], (Measure::P999, 4000.0));
        assert!(read("Summary:\n").is_none());
    }
}
