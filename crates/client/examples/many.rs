//! What many watches and many keep-alives cost: `many [WATCHES] [LEASES] [SECONDS]` prints this process's processor
//! time and memory. Linux alone.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use etch_client::{Client, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> etch_client::Result<()> {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let watches = args.next().unwrap_or(10_000);
    let leases = args.next().unwrap_or(100_000);
    let seconds = args.next().unwrap_or(30) as u64;
    let client = Client::connect(Config::from_env()?).await?;
    report("idle");

    let begun = Instant::now();
    let mut held = Vec::with_capacity(watches);
    for chunk in split(watches) {
        let made = chunk.map(|n| client.watch(format!("many/{n}")).into_future());
        held.extend(futures_util::future::try_join_all(made).await?);
    }
    println!("{watches} watches after {:?}", begun.elapsed());
    report("watches");

    let begun = Instant::now();
    let mut kept = Vec::with_capacity(leases);
    for chunk in split(leases) {
        let made = chunk.map(|_| async {
            let lease = client.lease_grant(60).await?.id;
            client.lease_keep_alive(lease).await
        });
        kept.extend(futures_util::future::try_join_all(made).await?);
    }
    println!("{leases} leases kept after {:?}", begun.elapsed());
    report("leases");

    let before = cpu_seconds();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    println!("{:.3} s of processor in {seconds} s", cpu_seconds() - before);
    report("kept");

    let begun = Instant::now();
    let before = cpu_seconds();
    for n in 0..watches.min(1000) {
        client.put(format!("many/{n}"), "event").await?;
    }
    for watch in held.iter_mut().take(1000) {
        if let Some(response) = watch.next().await {
            response?;
        }
    }
    let spent = cpu_seconds() - before;
    println!("1000 puts, each seen by its watch: {:?}, {spent:.3} s of processor", begun.elapsed());
    report("end");
    Ok(())
}

/// A thousand at a time.
fn split(count: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..count).step_by(1000).map(move |start| start..(start + 1000).min(count))
}

fn report(what: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!("{what}: {:.3} s of processor, {}", cpu_seconds(), resident.replace('\t', " "));
}

/// This process's processor time; the kernel counts hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|f| f.parse::<f64>().ok());
    (field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0)) / 100.0
}
