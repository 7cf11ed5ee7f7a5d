//! Real `etch` under load from real gRPC clients, with faults of processes, disks and clocks, judged by what the
//! clients saw and what the log says. Bounded, and on loopback alone.
//!
//! Here: how it is called, and how many runs are made. One run is `run`. Not here: the judges (`etch_sim`).

#![forbid(unsafe_code)]

mod ask;
mod client;
mod dump;
mod faults;
mod kube;
mod log;
mod options;
mod plan;
mod process;
mod rng;
mod run;
mod settle;
mod shim;
mod summary;
mod traffic;
mod watcher;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use options::Options;
use plan::Plan;
use run::Bench;
use summary::Summary;
use tokio::task::JoinSet;

/// A run with too little load before its fault is made again, so often.
const TRIES: u32 = 5;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", options::HELP);
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
        .and_then(|runtime| runtime.block_on(all(options)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("torture: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Makes all runs. False if something is wrong.
async fn all(options: Options) -> Result<bool, String> {
    let scratch = std::env::temp_dir().join(format!("etch-torture-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let memory = memory();
    let bench = Arc::new(Bench {
        program: options.etch.clone(),
        library: shim::build(&scratch)?,
        scratch: scratch.clone(),
        memory: memory.clone(),
        keep: options.keep,
        more_flags: if options.canary { vec!["--unsafe-no-fsync".into()] } else { Vec::new() },
    });
    println!("{} runs from seed {}, {} at a time", options.runs, options.seed, options.jobs);
    let options = Arc::new(options);
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..options.jobs {
        workers.spawn(work(Arc::clone(&bench), Arc::clone(&options), Arc::clone(&next), began));
    }
    let mut summary = Summary::default();
    for one in workers.join_all().await {
        summary.add(one);
    }
    print!("{summary}");
    println!("{:.0} s", began.elapsed().as_secs_f64());
    if (summary.violations() == 0 || options.canary) && !options.keep {
        // Temporary, all of it.
        let _ = fs::remove_dir_all(&scratch);
    }
    if let Some(memory) = memory {
        let _ = fs::remove_dir_all(memory);
    }
    if options.canary {
        let seen = summary.violations() > 0;
        println!("a server that does not flush was {}found out", if seen { "" } else { "NOT " });
        println!("{} passed, {} failed", u8::from(seen), u8::from(!seen));
        return Ok(seen);
    }
    let (passed, failed) = summary.passed_and_failed();
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

/// A directory of ours in memory, where the system has such a place.
fn memory() -> Option<PathBuf> {
    let dir = Path::new("/dev/shm").join(format!("etch-torture-{}", std::process::id()));
    fs::create_dir(&dir).ok().map(|()| dir)
}

/// Makes one run after the other until there are no more, or no more time.
async fn work(
    bench: Arc<Bench>,
    options: Arc<Options>,
    next: Arc<AtomicU64>,
    began: Instant,
) -> Summary {
    let mut summary = Summary::default();
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        let late = options.seconds.is_some_and(|s| began.elapsed() > Duration::from_secs(s));
        if nth >= options.runs || late {
            return summary;
        }
        let seed = options.seed + nth;
        for attempt in 1..=TRIES {
            let plan = Plan::draw(seed, options.fault);
            let report = run::run(&bench, plan.clone(), attempt).await;
            summary::print(&plan, &report, &options);
            summary.count(&plan, &report);
            if !report.void || !report.violations.is_empty() {
                break;
            }
        }
    }
}
