//! `check datascale`: how much memory a server takes for so many keys. Not here: asking it (`memory`).

use etch_cli::progress::Progress;
use etch_cli::{Command, Failure, Matches};

use super::report::Report;
use super::{
    Writers, clients, compact, defragment, delete, flags, key, load, memory, must_be_empty,
};
use crate::connect::Ctl;
use crate::display::print;
use crate::fail::failed;
use crate::{exit, words};

/// Keys, and clients, of each load.
const LOADS: [(u64, usize); 4] =
    [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];
const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;

/// The command.
pub fn command() -> Command {
    let load = "The datascale check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)";
    let prefix = "The prefix for writing the datascale check's keys.";
    let short = "Check the memory usage of holding data for different workloads on a given server endpoint.";
    let long = "If no endpoint is provided, localhost will be used. If multiple endpoints are provided, first endpoint will be used.";
    Command::new("datascale [options]", short, run).long(long).flags(flags(
        load,
        "/etcdctl-check-datascale/",
        prefix,
    ))
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let (limit, count) = LOADS[load(matches)?];
    let ctl = Ctl::lasting(matches)?;
    ctl.run(async {
        let prefix = words::bytes(matches.text("prefix"));
        let clients = clients(&ctl, count).await?;
        must_be_empty(&ctl, &prefix, "").await?;
        let before = resident(&ctl, "before").await?;
        let size = KEY_BYTES + VALUE_BYTES;
        print(format!("Start data scale check for work load [{limit} key-value pairs, {size} bytes per key-value, {count} concurrent clients].\n").as_bytes())?;
        let Writers { keys, mut timed } = Writers::start(clients, vec![0; VALUE_BYTES].into());
        let of = prefix.clone();
        tokio::spawn(async move {
            for _ in 0..limit {
                if keys.send(key(&of, KEY_BYTES)).await.is_err() {
                    return;
                }
            }
        });
        let mut bar = Progress::counting("writing", "keys", Some(limit));
        let mut report = Report::default();
        while let Some(result) = timed.recv().await {
            report.add(result);
            bar.add(1);
        }
        drop(bar);
        let after = resident(&ctl, "after").await?;
        let revision = delete(&ctl.client, &prefix).await.map_err(failed)?;
        if matches.is_on("auto-compact") {
            compact(&ctl.client, revision).await?;
        }
        if matches.is_on("auto-defrag") {
            defragment(&ctl.client).await?;
        }
        verdict(&report, after - before)
    })
}

/// The memory that the first endpoint's server holds, in bytes.
async fn resident(ctl: &Ctl, when: &str) -> Result<f64, Failure> {
    let endpoints = ctl.client.endpoints();
    let why = match memory::resident(&endpoints[0], ctl.limit()).await {
        Ok(bytes) => return Ok(bytes),
        Err(why) => why,
    };
    let line = format!(
        "{why}\nFAIL: Could not read process_resident_memory_bytes {when} the put operations.\n"
    );
    print(line.as_bytes())?;
    Err(Failure::silent(exit::ERROR))
}

fn verdict(report: &Report, used: f64) -> Result<(), Failure> {
    let failures = report.failures();
    if !failures.is_empty() {
        print(failures.as_bytes())?;
        return Err(Failure::silent(exit::ERROR));
    }
    let megabytes = used / (1024.0 * 1024.0);
    print(format!("PASS: Approximate system memory used : {megabytes:.2} MB.\n").as_bytes())
}
