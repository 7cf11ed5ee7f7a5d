//! Everything that one seed draws before its world begins: the members' settings, the load, the delays, which
//! faults there will be. Not here: what is drawn on the way (each part has its stream of chance), and what the
//! settings mean.

use etch_disk::{backend, wal};
use etch_node::Config;
use etch_state::StateConfig;
use etch_state::lease::LessorConfig;
use etch_state::mvcc::Budget;
use etch_state::watch::StreamConfig;

use crate::rng::Rng;

/// Nanoseconds in a microsecond.
pub const US: u64 = 1000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1000 * US;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1000 * MS;

/// What the caller of a run decides; everything else the seed does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// How long clients and faults go on, in virtual milliseconds.
    pub load_ms: u64,
    /// The faults that happen, by their numbers in the plan; all of them if there is no list.
    pub faults: Option<Vec<usize>>,
    /// The clients that do anything, by their numbers; all of them if there is no list.
    pub clients: Option<Vec<usize>>,
    /// How many members there are; drawn if not given.
    pub members: Option<usize>,
    /// Keep a journal of what happens to members.
    pub journal: bool,
}

impl Options {
    /// A minute of this seed with all that it draws.
    pub fn new(seed: u64) -> Self {
        Self { seed, load_ms: 60_000, faults: None, clients: None, members: None, journal: false }
    }
}

/// What the clients do most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Puts and reads.
    Put,
    /// Puts, deletes and leases.
    PutDeleteLease,
    /// Creates, updates and deletes on condition, lists at a revision and watches from there.
    Kubernetes,
    /// Transactions, nested ones too, with comparisons of ranges and leases.
    Txn,
    /// Some of everything.
    Mixed,
}

/// How long things take, in nanoseconds on average.
#[derive(Clone, Debug)]
pub struct Delays {
    /// Until a thread that was woken runs.
    pub wake: u64,
    /// A write that stays in the kernel.
    pub write: u64,
    /// A flush.
    pub sync: u64,
    /// A commit of the B+tree.
    pub commit: u64,
    /// From a client to its member, or back.
    pub client: u64,
    /// From a member to another.
    pub peer: u64,
    /// In so many cases of a thousand a disk takes a hundred times as long.
    pub disk_spikes: u64,
    /// In so many cases of a thousand a message is lost: between members, and between clients and members.
    pub loss: u64,
}

/// Which faults a world has, and how often.
#[derive(Clone, Debug)]
pub struct FaultRates {
    /// Time between two of them, in nanoseconds on average.
    pub every: u64,
    /// Each kind's weight.
    pub weights: Vec<(Kind, u64)>,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The process is killed; the kernel lives.
    Kill,
    /// The power fails: what was not flushed is lost, torn, or there, by chance.
    PowerLoss,
    /// The power fails at some call to storage that is yet to come.
    CrashAtCall,
    /// The process is killed at some call to storage that is yet to come.
    KillAtCall,
    /// The power fails, and again at some call of the recovery that follows.
    CrashInRecovery,
    /// A call to storage answers an error.
    IoError,
    /// The disk is full for a while.
    DiskFull,
    /// The process stands still for a while.
    Pause,
    /// The disk is slow for a while.
    SlowDisk,
    /// The member's clock jumps forward.
    ClockJump,
    /// A bit of a file that has a checksum is flipped while the member is down.
    BitFlip,
    /// A member and some of its clients do not hear one another for a while.
    ClientPartition,
    /// Members do not hear one another for a while, at times in one direction only.
    Partition,
}

impl Kind {
    /// As the table shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Kill => "process killed",
            Kind::PowerLoss => "power lost",
            Kind::CrashAtCall => "power lost at a storage call",
            Kind::KillAtCall => "killed at a storage call",
            Kind::CrashInRecovery => "power lost in recovery",
            Kind::IoError => "I/O error",
            Kind::DiskFull => "disk full",
            Kind::Pause => "process paused",
            Kind::SlowDisk => "disk slow",
            Kind::ClockJump => "clock jumped",
            Kind::BitFlip => "bit flipped",
            Kind::ClientPartition => "clients cut off",
            Kind::Partition => "members cut off",
        }
    }
}

/// One world, as its seed draws it.
#[derive(Clone, Debug)]
pub struct Params {
    /// How many members.
    pub members: usize,
    /// The member's settings; `id` and `seed` are set at each start.
    pub node: Config,
    /// How the log is written.
    pub wal: wal::Options,
    /// How the B+tree is written.
    pub backend: backend::Options,
    /// What the state is told.
    pub state: StateConfig,
    /// Segments of the log that are kept.
    pub max_wals: usize,
    /// Clients that ask and wait for the answer.
    pub clients: usize,
    /// Clients that watch.
    pub watchers: usize,
    /// Keys.
    pub keys: u64,
    /// What clients do.
    pub profile: Profile,
    /// Time between an answer and the client's next request, in nanoseconds on average.
    pub think: u64,
    /// How long a client waits, in nanoseconds.
    pub patience: u64,
    /// Nanoseconds between two compactions; 0: none but what clients do by chance.
    pub compact_every: u64,
    /// Lengths of values.
    pub value_bytes: u64,
    /// A stream of watches.
    pub stream: StreamConfig,
    /// Bytes of events that are made ready at a time.
    pub stream_budget: usize,
    /// Messages on their way on a stream, at the most.
    pub stream_window: usize,
    /// How long things take.
    pub delays: Delays,
    /// Which faults.
    pub faults: FaultRates,
}

impl Params {
    /// What this seed draws.
    pub fn draw(options: &Options) -> Self {
        let rng = &mut Rng::new(options.seed, 1);
        let members = rng.weighted(&[(1, 80), (2, 3), (3, 14), (5, 3)]);
        let heartbeat_ms = rng.pick(&[10, 50, 100, 100]);
        let election_ms = heartbeat_ms * rng.pick(&[5, 10, 10]);
        let profile = rng.weighted(&[
            (Profile::Put, 15),
            (Profile::PutDeleteLease, 20),
            (Profile::Kubernetes, 20),
            (Profile::Txn, 20),
            (Profile::Mixed, 25),
        ]);
        let compact_every = rng.weighted(&[(0, 3), (200 * MS, 4), (SECOND, 2), (5 * SECOND, 1)]);
        let members = options.members.unwrap_or(members);
        let mut node = node(rng, heartbeat_ms, election_ms);
        if members > 1 {
            // A member that is far behind needs the leader's whole log: snapshots are not sent yet.
            (node.snapshot_count, node.catchup_entries) = (u64::MAX / 2, u64::MAX / 2);
        }
        Self {
            members,
            node,
            wal: wal::Options {
                segment_bytes: rng.pick(&[8 << 10, 16 << 10, 64 << 10, 256 << 10]),
                fill: rng.pick(&[0, 1 << 10, 4 << 10, 16 << 10]),
            },
            backend: backend::Options {
                page_size: rng.pick(&[1024, 4096, 4096]),
                grow: rng.pick(&[4 << 10, 64 << 10, 256 << 10]),
            },
            state: StateConfig {
                quota_bytes: rng.weighted(&[(0, 80), (128 << 10, 10), (512 << 10, 10)]),
                leases: LessorConfig {
                    min_ttl: (election_ms as i64 * 3 / 2).div_euclid(1000) + 1,
                    checkpoint_interval_ms: rng.weighted(&[(None, 70), (Some(1000), 30)]),
                    retry_ms: rng.pick(&[300, 3000]),
                    revoke_rate: 1000,
                },
                persist_checkpoints: rng.chance(500),
            },
            max_wals: rng.pick(&[1, 2, 5]),
            clients: rng.between(6, 8) as usize,
            watchers: rng.between(2, 5) as usize,
            keys: rng.between(6, 14),
            profile,
            think: rng.weighted(&[(20 * MS, 2), (100 * MS, 4), (300 * MS, 2)]),
            patience: rng.pick(&[50, 200, 200, 1000]) * MS,
            compact_every,
            value_bytes: rng.weighted(&[(16, 6), (200, 3), (3000, 1)]),
            stream: StreamConfig {
                queue_events: rng.pick(&[2, 16, 128, 8192]),
                queue_bytes: rng.pick(&[1 << 10, 64 << 10, 2 << 20]),
                history: Budget {
                    events: rng.pick(&[1, 10, 1000]),
                    bytes: rng.pick(&[1 << 8, 1 << 20]),
                    visited: rng.pick(&[5, 50, 5000]),
                },
                fragment_limit: rng.pick(&[256, 4096, 2 << 20]),
                header_len: 32,
                progress_interval_ms: rng.pick(&[100, 1000, 600_000]),
            },
            stream_budget: rng.pick(&[64, 4096, 256 << 10]),
            stream_window: rng.pick(&[2, 8, 64]),
            delays: delays(rng),
            faults: faults(rng),
        }
    }
}

fn node(rng: &mut Rng, heartbeat_ms: u64, election_ms: u64) -> Config {
    Config {
        id: 0,
        heartbeat_ms,
        election_ms,
        pre_vote: rng.chance(700),
        snapshot_count: rng.pick(&[5, 20, 100, 1000]),
        catchup_entries: rng.pick(&[1, 5, 100, 5000]),
        max_request_bytes: 1536 << 10,
        request_timeout_ms: 5000 + 2 * election_ms,
        compaction_batch: rng.pick(&[1, 3, 10, 100, 1000]),
        compaction_pause_ms: rng.pick(&[1, 10, 50]),
        commit_interval_ms: rng.pick(&[5, 20, 100, 100, 1000]),
        commit_changes: rng.pick(&[1, 10, 100, 10_000]),
        seed: 0,
    }
}

fn delays(rng: &mut Rng) -> Delays {
    Delays {
        wake: rng.pick(&[5, 20, 200]) * US,
        write: rng.pick(&[5, 20, 500]) * US,
        sync: rng.pick(&[20, 200, 2000, 10_000]) * US,
        commit: rng.pick(&[200, 2000, 20_000]) * US,
        client: rng.pick(&[50, 500, 5000]) * US,
        peer: rng.pick(&[50, 500, 5000]) * US,
        disk_spikes: rng.pick(&[0, 0, 1, 10]),
        loss: rng.weighted(&[(0, 6), (1, 2), (20, 2)]),
    }
}

fn faults(rng: &mut Rng) -> FaultRates {
    let all = [
        (Kind::Kill, 10),
        (Kind::PowerLoss, 15),
        (Kind::CrashAtCall, 25),
        (Kind::KillAtCall, 10),
        (Kind::CrashInRecovery, 10),
        (Kind::IoError, 8),
        (Kind::DiskFull, 5),
        (Kind::Pause, 8),
        (Kind::SlowDisk, 5),
        (Kind::ClockJump, 3),
        (Kind::BitFlip, 5),
        (Kind::ClientPartition, 5),
        (Kind::Partition, 10),
    ];
    // Each world has some kinds often and others not at all, so that rare meetings come about.
    let weights = all.map(|(kind, weight)| (kind, weight * rng.pick(&[0, 1, 1, 4]))).to_vec();
    FaultRates { every: rng.pick(&[500, 2000, 5000, 10_000]) * MS, weights }
}
