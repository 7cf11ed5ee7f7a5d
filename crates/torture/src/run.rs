//! One run, in the order in which it happens: plan, start, load, faults, healing, rest, verdict. Not here: the
//! parts (`plan`, `process`, `traffic`, `faults`, `settle`), nor the judges (`etch_sim::judge`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etch_sim::history::{History, Observation, Outcome};
use etch_sim::judge::{self, Checked};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::faults::Saboteur;
use crate::plan::{Kind, Plan, Profile};
use crate::process::Server;
use crate::rng::Rng;
use crate::shim::{Counters, Shim};
use crate::world::{Phase, World};
use crate::{dump, kube, log, settle, traffic, watcher};

/// Load before the first fault.
const WARM_UP: Duration = Duration::from_millis(1000);
/// Fewer answered requests a second before the fault, and a run says nothing.
const RATE: u64 = 100;
/// Load after the last fault.
const AFTERWARDS: Duration = Duration::from_millis(700);
/// No run may take longer.
const RUN: Duration = Duration::from_secs(150);
/// Clients stop when they are told to; the longest request is this.
const CLIENTS_END: Duration = Duration::from_secs(20);
/// A small disk: three segments of the log, the database, and little more.
const SMALL_DISK: &str = "size=224m,mode=0700";

/// What all runs share.
pub struct Bench {
    /// The server's program.
    pub program: PathBuf,
    /// The shim's library.
    pub library: PathBuf,
    /// Where runs make their directories.
    pub scratch: PathBuf,
    /// The same, in memory, if there is such a place.
    pub memory: Option<PathBuf>,
    /// Whether a directory stays even where nothing is wrong.
    pub keep: bool,
    /// Flags of the server beside those of the plan.
    pub more_flags: Vec<String>,
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests with an answer, refused, and of unknown outcome.
    pub answered: usize,
    /// Refused.
    pub refused: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// Events that watchers got.
    pub events: usize,
    /// Entries of the log.
    pub entries: usize,
    /// What the judges have looked at.
    pub checked: Checked,
    /// How often the server was started.
    pub lives: u32,
    /// What the shim has counted.
    pub shim: Counters,
    /// What the faults did.
    pub notes: Vec<String>,
    /// By how much the process's steady clock leapt, all told.
    pub leapt: Duration,
    /// Whether a fault came to pass: a process was stopped or ended, or the shim did something to a call.
    pub struck: bool,
    /// Too little load before the fault: the run says nothing.
    pub void: bool,
    /// What is wrong.
    pub violations: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// Where everything lies, if something is wrong.
    pub dir: Option<PathBuf>,
}

/// A run's directories; unmounts what was mounted when it goes.
struct Place {
    dir: PathBuf,
    /// The directory above the data, which may be elsewhere.
    base: PathBuf,
    mounted: bool,
}

impl Place {
    fn make(bench: &Bench, plan: &Plan) -> Result<Self, String> {
        let name = format!("run-{}", plan.seed);
        let dir = bench.scratch.join(&name);
        let base = match &bench.memory {
            Some(memory) if plan.in_memory && !plan.has(Kind::FullDisk) => memory.join(&name),
            _ => dir.join("disk"),
        };
        for dir in [&dir, &base] {
            if dir.exists() {
                fs::remove_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            }
            fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        let mut place = Place { dir, base, mounted: false };
        if plan.has(Kind::FullDisk) {
            // Without the right to mount, the shim says that the disk is full.
            let options = std::ffi::CString::new(SMALL_DISK).map_err(|e| e.to_string())?;
            place.mounted =
                mount("tmpfs", &place.base, "tmpfs", MountFlags::empty(), options.as_c_str())
                    .is_ok();
        }
        Ok(place)
    }

    fn remove(&mut self) {
        self.unmount();
        // What cannot be removed is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.base);
        let _ = fs::remove_dir_all(&self.dir);
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            let _ = unmount(&self.base, UnmountFlags::DETACH);
        }
    }

    /// Copies data that lies elsewhere to the run's directory.
    fn gather(&mut self) {
        let to = self.dir.join("data");
        if let Err(e) = copy(&self.base.join("data"), &to) {
            eprintln!("{}: {e}", to.display());
        }
        self.unmount();
        let _ = fs::remove_dir_all(&self.base);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Files are sparse or zero for the most part, and small enough.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Makes the run of a plan. A further attempt takes longer over its load, on a machine that is busy.
pub async fn run(bench: &Bench, plan: Plan, attempt: u32) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    match Place::make(bench, &plan) {
        Err(why) => report.violations.push(why),
        Ok(mut place) => {
            let made = timeout(RUN, make(bench, &plan, &place, attempt, &mut report)).await;
            match made {
                Err(_) => report.violations.push(format!("the run has not ended within {RUN:?}")),
                Ok(Err(why)) => report.violations.push(why),
                Ok(Ok(())) => {}
            }
            if report.violations.is_empty() && !bench.keep {
                place.remove();
            } else {
                place.gather();
                report.dir = Some(place.dir.clone());
            }
        }
    }
    report.took = began.elapsed();
    report
}

async fn make(
    bench: &Bench,
    plan: &Plan,
    place: &Place,
    attempt: u32,
    report: &mut Report,
) -> Result<(), String> {
    let shimmed =
        plan.faults.iter().any(|k| k.needs_shim()) || (plan.has(Kind::FullDisk) && !place.mounted);
    let tracking = plan.has(Kind::LostWrites) || plan.has(Kind::FailingDisk);
    let shim = match shimmed {
        true => Some(
            Shim::new(&bench.library, &place.dir, &place.base, tracking)
                .map_err(|e| e.to_string())?,
        ),
        false => None,
    };
    let data_dir = place.base.join("data");
    let flags = [&plan.flags[..], &bench.more_flags].concat();
    let mut server = Server::new(&bench.program, &flags, &place.dir, &data_dir, shim)?;
    let limit = if plan.profile == Profile::Large { 1000 } else { 200 };
    let world = Arc::new(World::new(server.endpoint(), Duration::from_millis(limit)));
    server.serve(&world);
    let lived = live(plan, place, &mut server, &world, attempt, report).await;
    report.lives = server.starts();
    if let Some(shim) = &server.shim {
        report.shim = shim.counters().unwrap_or_default();
    }
    // Two starts belong to every run: the first, and the one at the end.
    report.struck = report.lives > 2
        || report.shim.hits > 0
        || plan.faults.iter().any(|k| matches!(k, Kind::Pause | Kind::Clock | Kind::FullDisk));
    if report.void && lived.is_ok() {
        return Ok(());
    }
    let history = conclude(place, &mut server, &world, lived, report).await;
    report.violations.extend(server.panics());
    report.violations.append(&mut server.complaints);
    if !report.violations.is_empty() {
        dump::write(&place.dir, plan, report, &history).map_err(|e| format!("dump: {e}"))?;
    }
    Ok(())
}

/// The server's whole life; what it said of itself at the end.
async fn live(
    plan: &Plan,
    place: &Place,
    server: &mut Server,
    world: &Arc<World>,
    attempt: u32,
    report: &mut Report,
) -> Result<(u64, Vec<Observation>), String> {
    let rng = &mut plan.rng.clone();
    server.start().await?;
    let (mut clients, mut watchers) = (JoinSet::new(), JoinSet::new());
    populate(plan, world, rng, &mut clients, &mut watchers);
    let began = Instant::now();
    sleep(WARM_UP * attempt).await;
    let rate = world.answered() * 1000 / began.elapsed().as_millis().max(1) as u64;
    report.void = rate < RATE;
    if report.void {
        return Ok((0, Vec::new()));
    }
    let mut saboteur = Saboteur {
        server,
        rng: rng.part(),
        notes: vec![format!("{rate} requests/s")],
        small_disk: place.mounted,
        leapt: Duration::ZERO,
    };
    let made = sabotage(plan, &mut saboteur).await;
    (report.notes, report.leapt) = (saboteur.notes, saboteur.leapt);
    made?;
    let healed = world.now_ns();
    sleep(AFTERWARDS).await;
    world.phase.send_replace(Phase::Rest);
    timeout(CLIENTS_END, clients.join_all()).await.map_err(|_| "a client hangs")?;
    let last = settle::last_write(world, rng.part()).await?;
    world.phase.send_replace(Phase::Drain(last));
    timeout(Duration::from_secs(45), watchers.join_all()).await.map_err(|_| "a watcher hangs")?;
    let seen = settle::observe_twice(world, server, rng.percent(50)).await?;
    Ok((healed, seen))
}

async fn sabotage(plan: &Plan, saboteur: &mut Saboteur<'_>) -> Result<(), String> {
    for kind in &plan.faults {
        saboteur.make(*kind).await?;
    }
    saboteur.heal().await
}

/// Starts everybody who asks and watches.
fn populate(
    plan: &Plan,
    world: &Arc<World>,
    rng: &mut Rng,
    clients: &mut JoinSet<()>,
    watchers: &mut JoinSet<()>,
) {
    let kube = plan.profile == Profile::Kubernetes;
    let cache = kube::Cache::default();
    for nth in 0..plan.clients {
        let client = Client::new(world, rng.part());
        if kube {
            clients.spawn(kube::run(client, cache.clone(), nth % 2 == 0));
        } else {
            clients.spawn(traffic::run(client, plan.profile));
        }
    }
    clients.spawn(traffic::compact(Client::new(world, rng.part())));
    clients.spawn(traffic::maintain(Client::new(world, rng.part())));
    let prefix = if kube { kube::PREFIX } else { traffic::PREFIX };
    for _ in 0..plan.watchers {
        watchers.spawn(watcher::run(Arc::clone(world), rng.part(), prefix));
    }
}

/// The judges' word.
fn ask_the_judges(history: &History, report: &mut Report) {
    match judge::check(history) {
        Ok(checked) => report.checked = checked,
        Err(broken) => {
            report.violations.extend(broken.iter().map(ToString::to_string));
        }
    }
}

/// Gathers the history and has it judged.
async fn conclude(
    place: &Place,
    server: &mut Server,
    world: &World,
    lived: Result<(u64, Vec<Observation>), String>,
    report: &mut Report,
) -> History {
    let (operations, watches, complaints) = world.take();
    let clock_ahead_ns = u64::try_from(report.leapt.as_nanos()).unwrap_or(u64::MAX);
    let starts = world.starts();
    let mut history = History { operations, watches, clock_ahead_ns, starts, ..History::default() };
    report.violations.extend(complaints);
    let count = |which: fn(&Outcome) -> bool| {
        history.operations.iter().filter(|o| which(&o.outcome)).count()
    };
    report.answered = count(|o| matches!(o, Outcome::Ok(_)));
    report.refused = count(|o| matches!(o, Outcome::Refused(_)));
    report.unknown = count(|o| matches!(o, Outcome::Unknown));
    report.events =
        history.watches.iter().flat_map(|w| &w.responses).map(|(_, r)| r.events.len()).sum();
    match lived {
        Err(why) => report.violations.push(why),
        Ok((healed, observations)) => {
            history.healed_ns = Some(healed);
            history.observations = observations;
            report.violations.extend(settle::check_file(server).await);
            match log::read(&place.base.join("data")) {
                Err(why) => report.violations.push(why),
                Ok(entries) => {
                    history.log = entries;
                    ask_the_judges(&history, report);
                }
            }
        }
    }
    report.entries = history.log.len();
    history
}
