//! `check perf`: whether a cluster keeps pace with a load for a minute. Not here: the figures (`report`).

use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_cli::progress::Progress;
use etch_cli::{Command, Failure, Matches};
use etch_client::Client;

use super::report::Report;
use super::{Writers, clients, compact, defragment, delete, flags, key, load, must_be_empty};
use crate::connect::Ctl;
use crate::display::print;
use crate::fail::text;
use crate::signals::Signals;
use crate::{exit, lock, words};

/// Writes a second, and clients, of each load.
const LOADS: [(f64, usize); 4] = [(150.0, 50), (1000.0, 200), (8000.0, 500), (15000.0, 1000)];
/// How long the load lasts.
const DURATION: Duration = Duration::from_secs(60);
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// How far writes may lag behind their times and still be made up for.
const CATCH_UP: Duration = Duration::from_millis(20);

/// The command.
pub fn command() -> Command {
    let load = "The performance check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge). Different workload models use different configurations in terms of number of clients and expected throughput.";
    let prefix = "The prefix for writing the performance check's keys.";
    let mut flags = flags(load, "/etcdctl-check-perf/", prefix);
    flags[0].values = &["small", "medium", "large", "xLarge"];
    Command::new("perf [options]", "Check the performance of the etcd cluster", run).flags(flags)
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let (rate, count) = LOADS[load(matches)?];
    let ctl = Ctl::lasting(matches)?;
    ctl.run(async {
        let prefix = words::bytes(matches.text("prefix"));
        let clients = clients(&ctl, count).await?;
        must_be_empty(&ctl, &prefix, "'").await?;
        let mut signals = lock::signals()?;
        let writers = Writers::start(clients, vec![0; VALUE_BYTES].into());
        let (report, total) = measure(writers, &prefix, rate, &mut signals).await;
        tidy(&ctl.client, &prefix, matches.is_on("auto-compact")).await?;
        if matches.is_on("auto-defrag") {
            defragment(&ctl.client).await?;
        }
        verdict(&report, report.rate(total), rate)
    })
}

/// Writes for the time of the load, or until a signal.
async fn measure(
    writers: Writers,
    prefix: &Bytes,
    rate: f64,
    signals: &mut Signals,
) -> (Report, Duration) {
    let Writers { keys, mut timed } = writers;
    let begun = Instant::now();
    let prefix = prefix.clone();
    let writing = async move {
        let period = Duration::from_secs_f64(1.0 / rate);
        let mut due = begun;
        while begun.elapsed() < DURATION {
            tokio::time::sleep_until(due.into()).await;
            if keys.send(key(&prefix, KEY_BYTES)).await.is_err() {
                return;
            }
            let earliest = Instant::now().checked_sub(CATCH_UP).unwrap_or(begun);
            due = (due + period).max(earliest);
        }
    };
    let writing = tokio::spawn(writing);
    let mut bar =
        Progress::counting("writing", "writes", Some((rate * DURATION.as_secs_f64()) as u64));
    let mut report = Report::default();
    loop {
        tokio::select! {
            result = timed.recv() => match result {
                Some(result) => {
                    report.add(result);
                    bar.add(1);
                }
                None => return (report, begun.elapsed()),
            },
            () = signals.wait() => writing.abort(),
        }
    }
}

/// Removes the keys. That it fails is said, and no more.
async fn tidy(client: &Client, prefix: &Bytes, auto_compact: bool) -> Result<(), Failure> {
    match delete(client, prefix).await {
        Ok(revision) if auto_compact => compact(client, revision).await,
        Ok(_) => Ok(()),
        Err(error) => {
            let why = text(&error);
            let line = format!("FAIL: Cleanup failed during key deletion: ERROR({why})\n");
            print(line.as_bytes())
        }
    }
}

fn verdict(report: &Report, found: f64, wanted: f64) -> Result<(), Failure> {
    let (lines, good) = judge(report, found, wanted);
    print(lines.as_bytes())?;
    if good { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
}

/// What is said of the figures, and whether they are good.
fn judge(report: &Report, found: f64, wanted: f64) -> (String, bool) {
    let mut lines = report.failures();
    let mut good = lines.is_empty();
    let mut line = |is_good: bool, pass: String, fail: String| {
        good &= is_good;
        lines.push_str(&if is_good { pass } else { fail });
    };
    let writes = found as u64 + 1;
    line(
        found / wanted > 0.9,
        format!("PASS: Throughput is {writes} writes/s\n"),
        format!("FAIL: Throughput too low: {writes} writes/s\n"),
    );
    let slowest = report.slowest();
    line(
        slowest <= 0.5,
        format!("PASS: Slowest request took {slowest:.6}s\n"),
        format!("Slowest request took too long: {slowest:.6}s\n"),
    );
    let deviation = report.deviation();
    line(
        deviation <= 0.1,
        format!("PASS: Stddev is {deviation:.6}s\n"),
        format!("Stddev too high: {deviation:.6}s\n"),
    );
    lines.push_str(if good { "PASS\n" } else { "FAIL\n" });
    (lines, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_judged_as_etcdctl_judges_them() {
        let mut report = Report::default();
        report.add(Ok(Duration::from_millis(10)));
        let good = "PASS: Throughput is 151 writes/s\nPASS: Slowest request took 0.010000s\n\
                    PASS: Stddev is 0.000000s\nPASS\n";
        assert_eq!(judge(&report, 150.0, 150.0), (good.to_owned(), true));
        report.add(Ok(Duration::from_secs(1)));
        let bad = "FAIL: Throughput too low: 136 writes/s\nSlowest request took too long: 1.000000s\n\
                   Stddev too high: 0.495000s\nFAIL\n";
        assert_eq!(judge(&report, 135.0, 150.0), (bad.to_owned(), false));
    }
}
