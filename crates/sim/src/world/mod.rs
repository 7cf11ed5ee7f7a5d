//! The world: one clock, one queue of what happens next, and everything that lives in it. Here: what it is made
//! of, and how time passes. Below: members and their threads (`member`, `threads`), what the server would do
//! with a request (`door`), watches (`streams`), clients, faults (`nemesis`, `flip`), the end (`healing`), and the log
//! as it truly came about (`record`). Not here: real time, threads, and what is right (`judge`).

mod client;
mod door;
mod flip;
mod healing;
mod member;
mod nemesis;
mod network;
mod record;
mod streams;
#[cfg(test)]
mod tests;
mod threads;
mod workload;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use etch_api::pb::etcdserverpb as pb;
use etch_node::Message;

use crate::history::{History, Outcome};
use crate::params::{MS, Options, Params};
use crate::rng::Rng;
use crate::stats::Stats;

use client::Client;
use member::Member;
use nemesis::Fault;
use network::Network;
use record::Record;
use streams::{Stream, Watcher};

/// What happens next. The numbers name members, clients, operations, streams; an `epoch` is the life of a
/// process that it belongs to: in a later one it is nobody's.
#[derive(Debug)]
enum Event {
    /// A member's process starts.
    Start { member: usize, epoch: u64 },
    /// The node's thread runs.
    Turn { member: usize, epoch: u64 },
    /// The WAL's thread takes what waits, and writes it.
    LogWrite { member: usize, epoch: u64 },
    /// The WAL's thread flushes.
    LogSync { member: usize, epoch: u64 },
    /// The B+tree's thread commits.
    Commit { member: usize, epoch: u64 },
    /// The B+tree's thread saves a raft snapshot.
    SaveSnapshot { member: usize, epoch: u64 },
    /// A step of a defragmentation.
    Shrink { member: usize, epoch: u64, operation: usize },
    /// A message of raft's arrives.
    Raft { member: usize, message: Box<Message> },
    /// A client does something.
    Client { client: usize },
    /// A request arrives.
    Arrive { operation: usize },
    /// A large answer goes on.
    Continue { member: usize, epoch: u64, operation: usize },
    /// An answer arrives, or word that there will be none.
    Answer { operation: usize, outcome: Box<Outcome> },
    /// A client gives up.
    GiveUp { operation: usize },
    /// A client that watches does something.
    Watcher { watcher: usize },
    /// A message on a stream arrives at the member.
    Upstream { stream: usize, message: Box<pb::WatchRequest> },
    /// A stream's task takes the requests that have come.
    Requests { stream: usize },
    /// A stream's task runs.
    Poll { stream: usize },
    /// A message on a stream arrives at the client.
    Downstream { stream: usize, message: Box<pb::WatchResponse> },
    /// The client reads again.
    Read { stream: usize },
    /// The member hears that a message was read.
    Window { stream: usize },
    /// A stream is gone, and its client hears of it.
    StreamLost { stream: usize },
    /// A fault begins, or ends.
    Fault { number: usize },
    /// A fault ends.
    FaultEnds { number: usize },
    /// All faults end.
    Heal,
    /// Somebody makes room where it has run out.
    Keep,
    /// Somebody looks whether all is well by now.
    Look,
}

struct Planned {
    at: u64,
    number: u64,
    event: Event,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

/// What a world leaves behind.
#[derive(Debug)]
pub struct Outcomes {
    /// What clients asked and saw, and the log.
    pub history: History,
    /// What the world itself found wrong.
    pub violations: Vec<String>,
    /// What happened to members, if that was asked for.
    pub journal: Vec<String>,
    /// Counts.
    pub stats: Stats,
    /// How many faults the plan has, the ones passed over included.
    pub planned_faults: usize,
    /// How many clients there were.
    pub clients: usize,
}

/// A world, and where it stands.
pub struct World {
    params: Params,
    options: Options,
    now: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    members: Vec<Member>,
    clients: Vec<Client>,
    client_numbers: u32,
    watchers: Vec<Watcher>,
    streams: Vec<Stream>,
    network: Network,
    faults: Vec<Fault>,
    open: BTreeMap<usize, Open>,
    record: Record,
    history: History,
    violations: Vec<String>,
    journal: Vec<String>,
    stats: Stats,
    /// The highest revision that any client has seen.
    seen_revision: i64,
    /// The last revision that a client has compacted to.
    compacted: i64,
    /// When a client last read an event of a watch.
    last_event: u64,
    healed: bool,
    probe: healing::Probe,
    done: bool,
    /// Chance for delays; every part that decides has a stream of its own.
    rng: Rng,
}

/// An operation that has not ended for its client.
struct Open {
    client: usize,
    /// A large answer, on its way.
    answer: Option<door::Answering>,
}

/// A world that goes on for longer than this after its faults have ended will never be well.
const EVENTS_MAX: u64 = 20_000_000;

impl World {
    /// The world of this seed, before its first moment.
    pub fn new(options: Options) -> Self {
        let params = Params::draw(&options);
        let seed = options.seed;
        let mut world = Self {
            now: MS,
            queue: BinaryHeap::new(),
            planned: 0,
            members: Vec::new(),
            clients: Vec::new(),
            client_numbers: 0,
            watchers: Vec::new(),
            streams: Vec::new(),
            network: Network::new(seed, &params),
            faults: nemesis::plan(&options, &params),
            open: BTreeMap::new(),
            record: Record::default(),
            history: History::default(),
            violations: Vec::new(),
            journal: Vec::new(),
            stats: Stats::default(),
            seen_revision: 1,
            compacted: 0,
            last_event: 0,
            healed: false,
            probe: healing::Probe::default(),
            done: false,
            rng: Rng::new(seed, 2),
            params,
            options,
        };
        world.history.min_ttl = world.params.state.leases.min_ttl;
        world.add_members();
        world.add_clients();
        world.add_watchers();
        world.plan_faults();
        world.at(0, Event::Keep);
        world.at(world.options.load_ms * MS, Event::Heal);
        world
    }

    /// Lets it run to its end.
    pub fn run(mut self) -> Outcomes {
        while !self.done && self.violations.is_empty() {
            self.step();
        }
        self.finish()
    }

    /// The next thing happens.
    fn step(&mut self) {
        let Some(Reverse(next)) = self.queue.pop() else {
            return self.violation("nothing is to happen any more".into());
        };
        debug_assert!(next.at >= self.now);
        self.now = next.at;
        self.stats.events += 1;
        if self.stats.events > EVENTS_MAX {
            self.violation("more happens than can be".into());
        }
        self.happen(next.event);
    }

    fn finish(mut self) -> Outcomes {
        self.end_members();
        self.stats.virtual_ns = self.now;
        self.history.log = self.record.take_log();
        Outcomes {
            planned_faults: self.faults.len(),
            clients: self.params.clients + 1 + self.watchers.len(),
            history: self.history,
            violations: self.violations,
            journal: self.journal,
            stats: self.stats,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start { member, epoch } => self.start(member, epoch),
            Event::Turn { member, epoch } => self.on_thread(member, epoch, event, Self::turn),
            Event::LogWrite { member, epoch } => {
                self.on_thread(member, epoch, event, Self::log_write)
            }
            Event::LogSync { member, epoch } => {
                self.on_thread(member, epoch, event, Self::log_sync)
            }
            Event::Commit { member, epoch } => self.on_thread(member, epoch, event, Self::commit),
            Event::SaveSnapshot { member, epoch } => {
                self.on_thread(member, epoch, event, Self::save_snapshot);
            }
            Event::Shrink { member, epoch, operation } => {
                self.on_thread(member, epoch, event, |w, m| w.shrink(m, operation));
            }
            Event::Continue { member, epoch, operation } => {
                self.on_thread(member, epoch, event, |w, m| w.continue_answer(m, operation));
            }
            Event::Raft { member, message } => self.raft_arrives(member, *message),
            Event::Client { client } => self.client_acts(client),
            Event::Arrive { operation } => self.arrive(operation),
            Event::Answer { operation, outcome } => self.answered(operation, *outcome),
            Event::GiveUp { operation } => self.give_up(operation),
            Event::Watcher { watcher } => self.watcher_acts(watcher),
            Event::Upstream { stream, message } => self.upstream(stream, *message),
            Event::Requests { stream } => self.take_requests(stream),
            Event::Poll { stream } => self.poll(stream),
            Event::Downstream { stream, message } => self.downstream(stream, *message),
            Event::Read { stream } => self.read_arrived(stream),
            Event::Window { stream } => self.window(stream),
            Event::StreamLost { stream } => self.stream_lost(stream),
            Event::Fault { number } => self.fault(number),
            Event::FaultEnds { number } => self.fault_ends(number),
            Event::Heal => self.heal(),
            Event::Keep => self.keep(),
            Event::Look => self.look(),
        }
    }

    /// What a thread of a process does: not if the process is gone, and later if it is paused.
    fn on_thread(
        &mut self,
        member: usize,
        epoch: u64,
        event: Event,
        step: impl FnOnce(&mut Self, usize),
    ) {
        let m = &self.members[member];
        if m.epoch != epoch || m.process.is_none() {
            return;
        }
        if m.paused_until > self.now {
            return self.at(m.paused_until, event);
        }
        step(self, member);
    }

    /// Puts something into the queue. What is planned for one moment happens in the order of planning.
    fn at(&mut self, at: u64, event: Event) {
        self.planned += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Planned { at, number: self.planned, event }));
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// A line for who looks into what happened.
    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.journal {
            self.journal.push(format!("{:>9.3} ms  {}", self.now as f64 / MS as f64, line()));
        }
    }

    fn violation(&mut self, what: String) {
        self.violations.push(format!("at {} ms: {what}", self.now / MS));
    }
}
