//! What a run is to be: its traffic, its faults, the server's flags; all drawn from the seed. Not here: how it is
//! done (`run`, `faults`, `traffic`).

use std::fmt;

use crate::rng::Rng;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Reads, puts and transactions.
    Put,
    /// The same with deletes, leases and comparisons.
    PutDeleteLease,
    /// Create, update and delete by revision; list and watch from there.
    Kubernetes,
    /// Transactions in transactions, with deletes, ranges and comparisons.
    Nested,
    /// Values of up to a megabyte, so that the log goes on to further segments.
    Large,
}

impl Profile {
    const ALL: &[(u64, Profile)] = &[
        (4, Profile::Put),
        (8, Profile::PutDeleteLease),
        (6, Profile::Kubernetes),
        (5, Profile::Nested),
        (2, Profile::Large),
    ];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Profile::Put => "put",
            Profile::PutDeleteLease => "put-delete-lease",
            Profile::Kubernetes => "kubernetes",
            Profile::Nested => "nested",
            Profile::Large => "large",
        })
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9, again and again, also while it is starting.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// SIGTERM under load.
    Terminate,
    /// No room on the file system.
    FullDisk,
    /// Writes and flushes that take long.
    SlowDisk,
    /// EIO.
    FailingDisk,
    /// Writes that come up short.
    ShortWrites,
    /// The process's clocks leap.
    Clock,
    /// The process ends at a call to storage.
    CrashPoint,
    /// The same, and what was not flushed is lost in part.
    LostWrites,
}

impl Kind {
    /// All of them, and how often each is drawn.
    pub const ALL: &[(u64, Kind)] = &[
        (4, Kind::Kill),
        (3, Kind::Pause),
        (3, Kind::Terminate),
        (3, Kind::FullDisk),
        (3, Kind::SlowDisk),
        (4, Kind::FailingDisk),
        (2, Kind::ShortWrites),
        (3, Kind::Clock),
        (5, Kind::CrashPoint),
        (8, Kind::LostWrites),
    ];

    /// Its name, as given to `--fault`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Terminate => "terminate",
            Kind::FullDisk => "full-disk",
            Kind::SlowDisk => "slow-disk",
            Kind::FailingDisk => "failing-disk",
            Kind::ShortWrites => "short-writes",
            Kind::Clock => "clock",
            Kind::CrashPoint => "crash-point",
            Kind::LostWrites => "lost-writes",
        }
    }

    /// Whether it is done by the shim.
    pub fn needs_shim(self) -> bool {
        !matches!(self, Kind::Kill | Kind::Pause | Kind::Terminate | Kind::FullDisk)
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// The traffic.
    pub profile: Profile,
    /// The faults, one after the other.
    pub faults: Vec<Kind>,
    /// Flags of the server.
    pub flags: Vec<String>,
    /// How many clients read and write.
    pub clients: u64,
    /// How many watch.
    pub watchers: u64,
    /// Whether the data directory is in memory, where flushes cost nothing, or on the disk.
    pub in_memory: bool,
    /// The rest of the draws.
    pub rng: Rng,
}

impl Plan {
    /// The plan of a seed. `only` replaces the faults.
    pub fn draw(seed: u64, only: Option<Kind>) -> Plan {
        let mut rng = Rng::new(seed);
        let profile = rng.weighted(Profile::ALL);
        let mut faults = vec![rng.weighted(Kind::ALL)];
        if rng.percent(35) {
            let second = rng.weighted(Kind::ALL);
            // A full disk has a file system of its own, without the shim.
            if second != faults[0] && second != Kind::FullDisk && faults[0] != Kind::FullDisk {
                faults.push(second);
            }
        }
        if let Some(only) = only {
            faults = vec![only];
        }
        let flags = flags(&mut rng);
        let (clients, watchers) = (rng.between(6, 8), rng.between(4, 7));
        Plan { seed, profile, faults, flags, clients, watchers, in_memory: rng.percent(60), rng }
    }

    /// Whether there is a fault of this kind in it.
    pub fn has(&self, kind: Kind) -> bool {
        self.faults.contains(&kind)
    }

    /// The faults' names.
    pub fn fault_names(&self) -> String {
        self.faults.iter().map(|k| k.name()).collect::<Vec<_>>().join("+")
    }
}

/// All segments of the log are kept, since the judges read it from its first entry on.
fn flags(rng: &mut Rng) -> Vec<String> {
    let snapshot = *rng.pick(&[50, 100, 1000, 10_000]);
    let catchup = *rng.pick(&[10, 100, 5000]);
    let batch = *rng.pick(&[10, 100, 1000]);
    let commit = *rng.pick(&["10ms", "100ms", "100ms", "1s"]);
    let changes = *rng.pick(&[20, 10_000, 10_000]);
    let progress = *rng.pick(&["100ms", "1s", "10m"]);
    vec![
        "--max-wals=0".into(),
        format!("--snapshot-count={snapshot}"),
        format!("--snapshot-catchup-entries={catchup}"),
        format!("--compaction-batch-limit={batch}"),
        format!("--backend-batch-interval={commit}"),
        format!("--backend-batch-limit={changes}"),
        format!("--watch-progress-notify-interval={progress}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_a_hundred_seeds_have_every_kind() {
        let plans: Vec<Plan> = (1..=100).map(|seed| Plan::draw(seed, None)).collect();
        let again = Plan::draw(17, None);
        assert_eq!(again.flags, plans[16].flags);
        assert_eq!(again.faults, plans[16].faults);
        for (_, kind) in Kind::ALL {
            let with = plans.iter().filter(|p| p.has(*kind)).count();
            assert!(with >= 5, "{} in {with} of 100", kind.name());
        }
        for (_, profile) in Profile::ALL {
            assert!(plans.iter().any(|p| p.profile == *profile), "{profile}");
        }
        let only = Plan::draw(17, Some(Kind::Clock));
        assert_eq!((only.faults, only.flags), (vec![Kind::Clock], again.flags));
    }
}
