//! The server's life in the order in which it happens: open, recover, bind, serve, drain. Not here: what the
//! flags mean (`config`), and what the threads do (`driver`, `net`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use etch_api::wire::HeaderTemplate;
use etch_disk::backend::{self, Bolt};
use etch_disk::fs::{Disk, RealDisk};
use etch_disk::snap::Snapshotter;
use etch_disk::wal;
use etch_node::{Commit, LogWrite, Node, RecoverError, Recovered, Recovery};
use etch_rpc::{Limits, Stats};
use etch_state::StateConfig;
use etch_state::lease::LessorConfig;
use etch_state::members::Member as MemberRow;
use prost::Message as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc as channel, oneshot, watch};

use crate::aside::Aside;
use crate::auth::Guard;
use crate::config::{self, Config};
use crate::driver::auto_compact;
use crate::driver::backend_thread::BackendThread;
use crate::driver::clock::{Clock, unix_ms};
use crate::driver::helm::{Helm, Kept, SharedHelm};
use crate::driver::inbox::{Caller, Command, Inbox};
use crate::driver::mailbox::Mailbox;
use crate::driver::node_thread::NodeThread;
use crate::driver::wal_thread::{LogWriter, SharedWriter, WalThread};
use crate::http::{Settings, Site};
use crate::logging::Logger;
use crate::member::{Asked, Member, RequestLimits};
use crate::metrics::{Metrics, Op};
use crate::net::NetThread;
use crate::net::accept::{self, Lane, Listener};
use crate::net::bind::{self, Served};
use crate::net::port::Offer;
use crate::services::snapshot::Snapshots;
use crate::{gateway, gauges, log_error, log_info, log_warn, notify};

/// The quota that 0 stands for, as in etcd.
const DEFAULT_QUOTA: u64 = 2 << 30;
/// Calls under way may go on for so long once the server stops; watches would for ever.
const DRAIN: Duration = Duration::from_millis(500);
/// Proposals wait this long at the most, and two election timeouts more.
const REQUEST_TIMEOUT_MS: u64 = 5000;

/// Runs the server until it is told to stop. The error says why it could not.
pub fn run(config: &Config, log: &Logger) -> Result<(), String> {
    allow_files();
    let data_dir = PathBuf::from(&config.data_dir);
    let disk = open_disk(config);
    let recovery = recovery(config, &data_dir)?;
    let is_new = !wal::exists(disk.as_ref(), &recovery.wal_dir);
    config::log_starting(config, log, !is_new);
    if is_new {
        config.check_bootstrap()?;
    }
    let listeners = bind::bind(config, log)?;
    let served = Served::of(&listeners);
    let recovered = recovery.open(&disk).map_err(|e| explain(&e, &recovery))?;
    log_recovered(&recovered, log);
    let server = Server::start(config, log, &disk, &recovery, recovered, listeners)?;
    server.serve(&served)
}

/// A connection is a file. Systems allow few by default and many to who asks; Go's runtime asks, so etcd may.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused we serve as many as we may.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn open_disk(config: &Config) -> Arc<dyn Disk> {
    Arc::new(if config.unsafe_no_fsync { RealDisk::without_flush() } else { RealDisk::new() })
}

/// Where the files are, and what they are opened with.
fn recovery(config: &Config, data_dir: &Path) -> Result<Recovery, String> {
    let member_dir = data_dir.join("member");
    let wal_dir = if config.wal_dir.is_empty() {
        member_dir.join("wal")
    } else {
        PathBuf::from(&config.wal_dir)
    };
    let peer_urls = config::urls::strings(&config.initial_advertise_peer_urls);
    let new_member = MemberRow::new(&config.name, &peer_urls, &config.initial_cluster_token, None);
    let asked_for =
        config.given.contains("name") && config.given.contains("initial-advertise-peer-urls");
    let quota_bytes = match config.quota_backend_bytes {
        0 => DEFAULT_QUOTA,
        bytes => u64::try_from(bytes).unwrap_or(0),
    };
    // One and a half election timeouts, in whole seconds.
    let min_ttl = (config.election_timeout * 3 / 2).div_ceil(1000);
    let checkpoints = config.feature_gates.enabled("LeaseCheckpoint");
    Ok(Recovery {
        wal_dir,
        snap_dir: member_dir.join("snap"),
        claimed: asked_for.then(|| (config.name.clone(), peer_urls)),
        new_member,
        others: Vec::new(),
        may_create: config.initial_cluster_state != "existing",
        force_new_cluster: config.force_new_cluster,
        wal: wal::Options::default(),
        backend: backend::Options::default(),
        state: StateConfig {
            quota_bytes,
            leases: LessorConfig {
                min_ttl: i64::try_from(min_ttl).map_err(|e| e.to_string())?,
                checkpoint_interval_ms: checkpoints.then_some(5 * 60 * 1000),
                ..LessorConfig::default()
            },
            persist_checkpoints: config.feature_gates.enabled("LeaseCheckpointPersist"),
        },
    })
}

fn explain(error: &RecoverError, recovery: &Recovery) -> String {
    match error {
        RecoverError::Wal(e) => {
            format!("cannot open the WAL in {}: {e}", recovery.wal_dir.display())
        }
        other => other.to_string(),
    }
}

fn log_recovered(recovered: &Recovered, log: &Logger) {
    if let Some(torn) = &recovered.torn {
        log_warn!(
            log,
            "repaired WAL: cut a torn tail",
            "path" => torn.path.display().to_string(),
            "offset" => torn.offset,
            "what" => torn.what,
        );
    }
    log_info!(
        log,
        if recovered.is_new { "starting local member" } else { "restarting local member" },
        "local-member-id" => format!("{:x}", recovered.identity.member),
        "cluster-id" => format!("{:x}", recovered.identity.cluster),
        "applied-index" => recovered.member.state.index(),
        "snapshot-index" => recovered.member.snapshot_index,
        "revision" => recovered.member.state.store().revision(),
    );
}

/// Makes our name and client URLs known to the cluster, through the log. Once that is applied, so is
/// everything that was ever acknowledged: before it, nobody is served.
fn publish(config: &Config, member: &Arc<Member>) -> Result<(), String> {
    let attributes = Attributes {
        name: config.name.clone(),
        client_urls: config::urls::strings(&config.advertise_client_urls),
    };
    let request = ClusterMemberAttrSetRequest {
        member_id: member.identity.member,
        member_attributes: Some(attributes),
    };
    let body = Bytes::from(request.encode_to_vec());
    let began = Instant::now();
    loop {
        let (sender, receiver) = oneshot::channel();
        let caller = Caller::Task(sender);
        member.inbox.push(Command::Propose(
            RequestKind::ClusterMemberAttrSet,
            body.clone(),
            caller,
        ));
        match receiver.blocking_recv().unwrap_or(Err(Error::Stopped)) {
            Ok(_) => break,
            Err(Error::Stopped) => return Err("the node has stopped".into()),
            Err(error) => {
                log_warn!(member.log, "failed to publish local member to cluster through raft", "error" => error.message());
            }
        }
    }
    member.metrics.ops.requested(Op::ClusterMemberAttrSet, true, began.elapsed());
    log_info!(member.log, "published local member to cluster through raft");
    Ok(())
}

/// The running threads.
struct Server {
    member: Arc<Member>,
    log: Logger,
    stop: watch::Sender<bool>,
    nets: Vec<JoinHandle<()>>,
    accept: Vec<JoinHandle<()>>,
    compact: (Sender<()>, JoinHandle<()>),
    core: Vec<JoinHandle<()>>,
    ended: channel::UnboundedReceiver<String>,
}

impl Server {
    fn start(
        config: &Config,
        log: &Logger,
        disk: &Arc<dyn Disk>,
        recovery: &Recovery,
        recovered: Recovered,
        listeners: Vec<Listener>,
    ) -> Result<Self, String> {
        let clock = Clock::start();
        let inbox = Arc::new(Inbox::default());
        let metrics = Arc::new(Metrics::new(config));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mailboxes: Vec<Arc<Mailbox>> = (0..threads).map(|_| Arc::default()).collect();
        let (died, ended) = channel::unbounded_channel();
        let watched = Watched { died, log: log.clone() };

        let parts = Parts::take(config, recovered);
        let member =
            Arc::new(parts.member(config, &recovery.snap_dir, &inbox, clock, log, &metrics)?);
        let (helm, core) = parts.spawn(Core {
            inbox: &inbox,
            mailboxes: &mailboxes,
            clock,
            snapshots: Snapshotter::new(Arc::clone(disk), &recovery.snap_dir),
            max_wals: usize::try_from(config.max_wals).unwrap_or(usize::MAX),
            metrics: &metrics,
            log,
            watched: &watched,
        })?;
        let (stop, stopped) = watch::channel(false);
        let limits = limits(config);
        let stats: Vec<Arc<Stats>> = mailboxes.iter().map(|_| Arc::default()).collect();
        gauges::add_sources(&member, stats.clone());
        let mut lanes = Vec::new();
        let mut nets = Vec::new();
        for (number, mailbox) in mailboxes.iter().enumerate() {
            let (sender, accepted) = channel::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            lanes.push(Lane { sender, connections: Arc::clone(&connections) });
            let net = NetThread {
                number,
                member: Arc::clone(&member),
                helm: Arc::clone(&helm),
                mailbox: Arc::clone(mailbox),
                accepted,
                stats: Arc::clone(&stats[number]),
                connections,
                limits: limits.clone(),
                stop: stopped.clone(),
            };
            nets.push(watched.spawn(&format!("net-{number}"), move || net.run())?);
        }
        // Probes and scrapers are answered from the start; clients once we are part of the cluster.
        let (early, clients): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .partition(|l| matches!(l.port.offer, Offer::Metrics | Offer::Peer));
        let mut accept = Vec::new();
        for (name, listeners) in [("accept-pages", early), ("accept", clients)] {
            if name == "accept" {
                publish(config, &member)?;
            }
            let (lanes, log, stopped) = (lanes.clone(), log.clone(), stopped.clone());
            let run = move || accept::run(listeners, lanes, log, stopped);
            accept.push(watched.spawn(name, run)?);
        }
        let mode = config.auto_compaction()?;
        let (compact_stop, compact_stopped) = mpsc::channel();
        let compacted = Arc::clone(&member);
        let compact = thread::Builder::new()
            .name("auto-compact".into())
            .spawn(move || auto_compact::run(mode, &compacted, &compact_stopped))
            .map_err(|e| e.to_string())?;
        Ok(Self {
            member,
            log: log.clone(),
            stop,
            nets,
            accept,
            compact: (compact_stop, compact),
            core,
            ended,
        })
    }

    /// Waits for a signal, then stops in order: calls first, the node and its files last.
    fn serve(mut self, served: &[Served]) -> Result<(), String> {
        bind::log_serving(served, &self.log);
        log_info!(self.log, "ready to serve client requests");
        let _ = notify::ready();
        let signal = wait_for_signal(&mut self.ended)?;
        log_info!(self.log, "received signal; shutting down", "signal" => signal);
        let _ = notify::stopping();
        // The receivers are gone only if everything has stopped already.
        let _ = self.stop.send(true);
        drop(self.compact.0);
        for thread in self.accept.into_iter().chain(self.nets) {
            let _ = thread.join();
        }
        let _ = self.compact.1.join();
        self.member.inbox.push(Command::Stop);
        for thread in self.core {
            let _ = thread.join();
        }
        log_info!(self.log, "closed etcd server");
        Ok(())
    }
}

/// What recovery has left, split up among the threads.
struct Parts {
    node: Node<Caller>,
    wal: wal::Wal,
    backend: Arc<Bolt>,
    identity: etch_node::Identity,
}

/// What the threads behind the requests share.
struct Core<'a> {
    inbox: &'a Arc<Inbox>,
    mailboxes: &'a [Arc<Mailbox>],
    clock: Clock,
    snapshots: Snapshotter,
    max_wals: usize,
    metrics: &'a Arc<Metrics>,
    log: &'a Logger,
    watched: &'a Watched,
}

impl Parts {
    fn take(config: &Config, recovered: Recovered) -> Self {
        let Recovered { identity, wal, backend, member, .. } = recovered;
        let node = Node::new(node_config(config, identity.member), member, unix_ms());
        Self { node, wal, backend, identity }
    }

    fn member(
        &self,
        config: &Config,
        snap_dir: &Path,
        inbox: &Arc<Inbox>,
        clock: Clock,
        log: &Logger,
        metrics: &Arc<Metrics>,
    ) -> Result<Member, String> {
        let guard = Guard::new(config, log)?;
        let state = self.node.state();
        state.auth().tokens().set_ttl(config.auth_token_ttl.saturating_mul(1000));
        let asked = Asked::new(self.identity, self.node.view(), inbox, state);
        Ok(Member {
            site: Site::new(asked, Arc::clone(metrics), log.clone(), Settings::new(config)),
            gateway: config.enable_grpc_gateway.then(|| gateway::common(config)),
            identity: self.identity,
            header: HeaderTemplate::new(self.identity.cluster, self.identity.member),
            view: self.node.view(),
            inbox: Arc::clone(inbox),
            store: Arc::clone(state.store()),
            lessor: Arc::clone(state.lessor()),
            hub: Arc::clone(state.hub()),
            members: Arc::clone(state.shared_members()),
            alarms: Arc::clone(state.shared_alarms()),
            auth: Arc::clone(state.auth()),
            guard,
            quota: Arc::clone(state.quota()),
            backend: Arc::clone(&self.backend),
            snap_dir: snap_dir.into(),
            defragmenting: Aside::new("defragment"),
            snapshots: Snapshots::default(),
            limits: request_limits(config),
            clock,
            log: log.clone(),
            metrics: Arc::clone(metrics),
            lease_ids: AtomicU64::new(first_lease_id(self.identity.member)),
        })
    }

    fn spawn(self, core: Core<'_>) -> Result<(Arc<SharedHelm>, Vec<JoinHandle<()>>), String> {
        let (log_writes, writes) = mpsc::channel::<LogWrite>();
        let (commit_sender, commits) = mpsc::channel::<Commit>();
        let writer = SharedWriter::new(LogWriter {
            wal: self.wal,
            snapshots: core.snapshots.clone(),
            max_wals: core.max_wals,
            metrics: Arc::clone(core.metrics),
            log: core.log.clone(),
        });
        let helm = Helm {
            node: self.node,
            mailboxes: core.mailboxes.to_vec(),
            writer: writer.clone(),
            wal: log_writes,
            backend: commit_sender,
            metrics: Arc::clone(core.metrics),
            clock: core.clock,
            log: core.log.clone(),
            kept: Kept::default(),
        };
        let helm = Arc::new(SharedHelm::new(helm, Arc::clone(core.inbox)));
        let inbox = Arc::clone(core.inbox);
        let node = NodeThread { helm: Arc::clone(&helm), inbox, clock: core.clock };
        let wal = WalThread { writer, writes, inbox: Arc::clone(core.inbox) };
        let backend = BackendThread {
            backend: self.backend,
            snapshots: core.snapshots,
            commits,
            inbox: Arc::clone(core.inbox),
            metrics: Arc::clone(core.metrics),
            log: core.log.clone(),
        };
        let watched = core.watched;
        let threads = vec![
            watched.spawn("node", move || node.run())?,
            watched.spawn("wal", move || wal.run())?,
            watched.spawn("backend", move || backend.run())?,
        ];
        Ok((helm, threads))
    }
}

/// Starts threads whose end the server notices: a panic is a broken invariant, and ends the process.
struct Watched {
    died: channel::UnboundedSender<String>,
    log: Logger,
}

impl Watched {
    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, String> {
        let died = self.died.clone();
        let log = self.log.clone();
        let named = name.to_owned();
        thread::Builder::new()
            .name(name.to_owned())
            // What a client nests deeply is checked, applied and dropped on these threads.
            .stack_size(etch_state::txn::STACK)
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(body);
                if let Err(panic) = std::panic::catch_unwind(run) {
                    let why = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("unknown");
                    log_error!(log, "a thread panicked", "thread" => named, "panic" => why);
                    std::process::abort();
                }
                // The server may have stopped listening: then it knows.
                let _ = died.send(format!("the thread {named} has ended"));
            })
            .map_err(|e| format!("cannot start a thread: {e}"))
    }
}

fn node_config(config: &Config, id: u64) -> etch_node::Config {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    etch_node::Config {
        id,
        heartbeat_ms: config.heartbeat_interval,
        election_ms: config.election_timeout,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        request_timeout_ms: REQUEST_TIMEOUT_MS + 2 * config.election_timeout,
        compaction_batch: usize::try_from(config.compaction_batch_limit).unwrap_or(1000).max(1),
        compaction_pause_ms: ms(config.compaction_sleep_interval),
        commit_interval_ms: match ms(config.backend_batch_interval) {
            0 => 100,
            given => given,
        },
        commit_changes: match usize::try_from(config.backend_batch_limit) {
            Ok(given) if given > 0 => given,
            _ => 10_000,
        },
        seed: unix_ms() ^ id,
    }
}

fn request_limits(config: &Config) -> RequestLimits {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    RequestLimits {
        max_txn_ops: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        progress_interval_ms: ms(config.watch_progress_notify_interval),
        slow_call_ms: ms(config.warning_unary_request_duration),
        max_learners: usize::try_from(config.max_learners).unwrap_or(0),
        strict_reconfig_check: config.strict_reconfig_check,
        election_ms: config.election_timeout,
        request_timeout_ms: REQUEST_TIMEOUT_MS + 2 * config.election_timeout,
    }
}

/// What a connection may cost. A message may be somewhat larger than a request, so that one that is too
/// large is told so by us and not by gRPC.
fn limits(config: &Config) -> Limits {
    let largest = usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX);
    Limits {
        max_concurrent_streams: config
            .max_concurrent_streams
            .min(Limits::default().max_concurrent_streams),
        max_recv_message: largest.saturating_add(512 << 10),
        keepalive_min_time: config.grpc_keepalive_min_time,
        keepalive_interval: Some(config.grpc_keepalive_interval).filter(|t| !t.is_zero()),
        keepalive_timeout: config.grpc_keepalive_timeout,
        drain_grace: DRAIN,
        ..Limits::default()
    }
}

/// Lease ids that we give out: two bytes of the member, then a counter from the time of the start.
fn first_lease_id(member: u64) -> u64 {
    (member & 0xffff) << 48 | (unix_ms() << 8) & 0xffff_ffff_ffff
}

/// The name of the signal that ends us, or why we end without one.
fn wait_for_signal(ended: &mut channel::UnboundedReceiver<String>) -> Result<&'static str, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime for signals: {e}"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        tokio::select! {
            _ = terminate.recv() => Ok("terminated"),
            _ = interrupt.recv() => Ok("interrupt"),
            why = ended.recv() => Err(why.unwrap_or_default()),
        }
    })
}
