//! The rows of the table: what load each is, and what is aimed at. Not here: how loads are driven (`closed`,
//! `streams`), nor rows that need etcd's own load generator (`official`).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;

use crate::call;
use crate::closed::{self, Lane, Outcome, Requests, Until};
use crate::engine::Engine;
use crate::flush::Flushes;
use crate::measure::{Measure, Sample, Window, latencies, speed};
use crate::official;
use crate::requests;
use crate::server::Server;
use crate::streams;
use crate::users;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";

/// How much is done.
pub struct Scale {
    /// How long a load lasts.
    pub time: Duration,
    /// Keys of the lists.
    pub keys: u64,
    /// Keys of the large store.
    pub many_keys: u64,
    /// Requests that etcd's own load generator sends with a thousand clients, and with one.
    pub official: [u64; 2],
    /// That program.
    pub benchmark: PathBuf,
}

/// What is aimed at: etch's figure divided by etcd's.
#[derive(Clone, Copy)]
pub enum Aim {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// etch's own figure is at most this, whatever etcd's is.
    Own(f64),
}

/// One row: a load on a server that was just started.
pub struct Row {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What is aimed at, measure by measure.
    pub aims: &'static [(Measure, Aim)],
    /// Does it.
    pub run: fn(&mut Server, &Scale) -> Result<Sample, String>,
}

use Aim::{AtLeast, AtMost, Own};
use Measure::{Anonymous, BeyondFlush, BeyondStore, Cpu, File, P50, P99, P999, Rate, Written};

/// Ten times what either server waits before it commits.
const SETTLE: Duration = Duration::from_secs(1);

/// All of them.
pub const ROWS: &[Row] = &[
    Row {
        name: "put",
        about: "durable put of 256 B, 50 connections x 20 streams",
        aims: &[(Cpu, AtMost(1.0 / 7.0)), (Rate, AtLeast(3.0)), (Written, AtMost(1.0))],
        run: |server, scale| unary(server, scale, PUT, [50, 20], requests::puts(100_000, 256, 1)),
    },
    Row {
        name: "put-official",
        about: "durable put of 256 B, etcd's `benchmark` with 100 connections, 1000 clients",
        aims: &[(Cpu, AtMost(1.0 / 7.0))],
        run: |server, scale| official::put(server, [100, 1000], scale),
    },
    Row {
        name: "put-1",
        about: "durable put of 256 B, one at a time; one of the two aims of latency is enough",
        aims: &[(P50, AtMost(0.5)), (BeyondFlush, Own(50.0)), (Cpu, AtMost(1.0 / 3.0))],
        run: put_alone,
    },
    Row {
        name: "put-1-official",
        about: "durable put of 256 B, etcd's `benchmark` with one client",
        aims: &[(Cpu, AtMost(1.0 / 3.0))],
        run: |server, scale| official::put(server, [1, 1], scale),
    },
    Row {
        name: "put-open",
        about: "durable put of 256 B, 5,000 a second whatever the server does",
        aims: &[],
        run: |server, scale| open(server, scale, PUT, requests::puts(100_000, 256, 3), 5_000.0),
    },
    Row {
        name: "get",
        about: "linearizable get of 256 B, 50 connections x 20 streams",
        aims: &[(Cpu, AtMost(1.0 / 8.0))],
        run: |server, scale| gets(server, scale, false),
    },
    Row {
        name: "get-serializable",
        about: "serializable get of 256 B, 50 connections x 20 streams",
        aims: &[(Cpu, AtMost(1.0 / 8.0))],
        run: |server, scale| gets(server, scale, true),
    },
    Row {
        name: "get-official",
        about: "linearizable get, etcd's `benchmark` with 100 connections, 1000 clients",
        aims: &[(Cpu, AtMost(1.0 / 8.0))],
        run: |server, scale| official::range(server, [100, 1000], scale),
    },
    Row {
        name: "get-open",
        about: "linearizable get of 256 B, 10,000 a second whatever the server does",
        aims: &[],
        run: |server, scale| {
            fill(server, 10_000, 256)?;
            open(server, scale, RANGE, requests::gets(10_000, false, 6), 10_000.0)
        },
    },
    Row {
        name: "txn-4",
        about: "transaction of 4 puts of 256 B, 50 connections x 20 streams",
        aims: &[(Cpu, AtMost(1.0 / 8.0))],
        run: |server, scale| unary(server, scale, TXN, [50, 20], requests::txns(100_000, 4, 256)),
    },
    Row {
        name: "reads-under-writes",
        about: "64 writers at full speed and 4 readers: the reads",
        aims: &[(P99, AtMost(0.25)), (P999, AtMost(0.25))],
        run: reads_under_writes,
    },
    Row {
        name: "fan-out-1000",
        about: "one key, 1,000 watchers on 10 connections: an operation is an event",
        aims: &[(Cpu, AtMost(0.25))],
        run: |server, scale| fan_out(server, scale, 10, 100),
    },
    Row {
        name: "fan-out-500",
        about: "one key, 500 watchers on 500 connections: an operation is an event",
        aims: &[(Cpu, AtMost(1.0 / 3.0))],
        run: |server, scale| fan_out(server, scale, 500, 1),
    },
    Row {
        name: "list-32",
        about: "a list of all keys with values of 32 B: an operation is a key",
        aims: &[(Cpu, AtMost(0.1))],
        run: |server, scale| list(server, scale, 32, scale.keys),
    },
    Row {
        name: "list-1k",
        about: "a list of all keys with values of 1 KiB: an operation is a key",
        aims: &[(Cpu, AtMost(0.2)), (BeyondStore, Own(64.0))],
        run: |server, scale| list(server, scale, 1024, scale.keys),
    },
    Row {
        name: "list-pages",
        about: "the list with values of 32 B by pages of 500: an operation is a key",
        aims: &[(Cpu, AtMost(1.0 / 50.0))],
        run: |server, scale| list(server, scale, 32, 500),
    },
    Row {
        name: "lease-grant",
        about: "lease grant, 50 connections x 20 streams",
        aims: &[(Cpu, AtMost(0.2))],
        run: |server, scale| unary(server, scale, GRANT, [50, 20], requests::grants()),
    },
    Row {
        name: "keep-alive",
        about: "keep-alives of 10,000 leases, 50 streams, 20 at once on each",
        aims: &[(Cpu, AtMost(0.2))],
        run: keep_alive,
    },
    Row {
        name: "put-auth",
        about: "durable put of 256 B by a user with a simple token, 50 connections x 20 streams",
        aims: &[(Cpu, AtMost(0.2)), (Rate, AtLeast(3.0))],
        run: |server, scale| {
            let token = users::begin(server)?;
            let requests = requests::puts(100_000, 256, 10);
            as_user(server, scale, PUT, [50, 20], requests, &token)
        },
    },
    Row {
        name: "logins",
        about: "logins by password (bcrypt, cost 10), 16 at a time",
        aims: &[(Cpu, AtMost(1.1)), (Rate, AtLeast(1.0))],
        run: |server, scale| {
            users::begin(server)?;
            let requests = requests::always(&users::login());
            unary(server, scale, users::AUTHENTICATE, [16, 1], requests)
        },
    },
    Row {
        name: "gateway-get",
        about: "linearizable get of 256 B through `gateway`, whose use is measured",
        aims: &[(Cpu, AtMost(1.0))],
        run: |server, scale| behind(server, "gateway", |server| gets(server, scale, false)),
    },
    Row {
        name: "gateway-bulk",
        about: "a list of all keys with values of 1 KiB through `gateway`: an operation is a key",
        aims: &[(Cpu, AtMost(1.0))],
        run: |server, scale| {
            behind(server, "gateway", |server| list(server, scale, 1024, scale.keys))
        },
    },
    Row {
        name: "proxy-put",
        about: "durable put of 256 B through `grpc-proxy`, whose use is measured",
        aims: &[(Cpu, AtMost(0.25))],
        run: |server, scale| {
            behind(server, "grpc-proxy", |server| {
                unary(server, scale, PUT, [50, 20], requests::puts(100_000, 256, 1))
            })
        },
    },
    Row {
        name: "proxy-get",
        about: "linearizable get of 256 B through `grpc-proxy`",
        aims: &[(Cpu, AtMost(0.25))],
        run: |server, scale| behind(server, "grpc-proxy", |server| gets(server, scale, false)),
    },
    Row {
        name: "proxy-get-cached",
        about: "serializable get of 256 B of 1,000 keys through `grpc-proxy`",
        aims: &[(Cpu, AtMost(0.25))],
        run: |server, scale| {
            behind(server, "grpc-proxy", |server| {
                fill(server, 1_000, 256)?;
                unary(server, scale, RANGE, [50, 20], requests::gets(1_000, true, 5))
            })
        },
    },
    Row {
        name: "proxy-fan-out-10000",
        about: "one key, 10,000 watchers on 100 connections through `grpc-proxy`: an operation is an event",
        aims: &[(Cpu, AtMost(0.25)), (Anonymous, AtMost(0.2))],
        run: |server, scale| {
            behind(server, "grpc-proxy", |server| fan_out(server, scale, 100, 100))
        },
    },
    Row {
        name: "proxy-keep-alive",
        about: "keep-alives of 10,000 leases through `grpc-proxy`, 50 streams",
        aims: &[(Cpu, AtMost(0.25))],
        run: |server, scale| behind(server, "grpc-proxy", |server| keep_alive(server, scale)),
    },
    Row {
        name: "many-keys",
        about: "filled with many keys of 32 B by transactions of 100, killed, started again",
        aims: &[
            (Cpu, AtMost(0.25)),
            (Anonymous, AtMost(1.0 / 3.0)),
            (Measure::Start, AtMost(1.0 / 3.0)),
        ],
        run: many_keys,
    },
    Row {
        name: "stalls",
        about: "1,000 puts a second whatever the server does, while it does something else besides",
        aims: &[
            (Measure::Compacting, Own(2.0)),
            (Measure::Snapshotting, Own(2.0)),
            (Measure::Defragmenting, Own(2.0)),
        ],
        run: stalls,
    },
];

/// A load on a proxy before the server.
fn behind(
    server: &mut Server,
    proxy: &str,
    load: impl FnOnce(&mut Server) -> Result<Sample, String>,
) -> Result<Sample, String> {
    server.put_behind(proxy)?;
    load(server)
}

/// A closed loop of one kind of unary call.
fn unary(
    server: &mut Server,
    scale: &Scale,
    path: &'static str,
    load: [usize; 2],
    requests: Requests,
) -> Result<Sample, String> {
    as_user(server, scale, path, load, requests, "")
}

/// The same by who bears this token.
fn as_user(
    server: &mut Server,
    scale: &Scale,
    path: &'static str,
    [connections, streams]: [usize; 2],
    requests: Requests,
    token: &str,
) -> Result<Sample, String> {
    let mut engine = Engine::connect(server.addr(), connections)?;
    engine.bear(token);
    let window = Window::open(server)?;
    let lane = Lane { path, connections, streams, requests };
    let outcome = closed::run(&mut engine, vec![lane], Until::Time(scale.time))?.remove(0);
    summed(window, server, &outcome, outcome.calls)
}

/// The sample of an outcome that did so many operations.
fn summed(
    window: Window,
    server: &Server,
    outcome: &Outcome,
    operations: u64,
) -> Result<Sample, String> {
    let mut sample = speed(outcome);
    sample[0].1 = operations as f64 / outcome.time.as_secs_f64();
    sample.extend(window.close(server, operations, outcome.time)?);
    Ok(sample)
}

/// One put at a time, and what the disk takes of that.
fn put_alone(server: &mut Server, scale: &Scale) -> Result<Sample, String> {
    let before = Flushes::measure(server.dir())?;
    let mut sample = unary(server, scale, PUT, [1, 1], requests::puts(100_000, 256, 2))?;
    let flush = Flushes::measure(server.dir())?.median_with(before);
    let at = sample.iter().position(|(measure, _)| *measure == P50).ok_or("no latencies")?;
    let beyond = sample[at].1 - flush;
    sample.splice(at + 1..at + 1, [(Measure::Flush, flush), (BeyondFlush, beyond)]);
    Ok(sample)
}

fn gets(server: &mut Server, scale: &Scale, serializable: bool) -> Result<Sample, String> {
    fill(server, 10_000, 256)?;
    unary(server, scale, RANGE, [50, 20], requests::gets(10_000, serializable, 5))
}

/// An open loop over 20 connections.
fn open(
    server: &mut Server,
    scale: &Scale,
    path: &'static str,
    requests: Requests,
    rate: f64,
) -> Result<Sample, String> {
    let mut engine = Engine::connect(server.addr(), 20)?;
    let window = Window::open(server)?;
    let outcome = closed::run_open(&mut engine, path, requests, rate, scale.time)?;
    summed(window, server, &outcome, outcome.calls)
}

/// Puts the first `keys` keys, a hundred in a transaction.
fn fill(server: &Server, keys: u64, size: usize) -> Result<Outcome, String> {
    let mut engine = Engine::connect(server.addr(), 4)?;
    let requests = requests::txns(keys, 100, size);
    let lane = Lane { path: TXN, connections: 4, streams: 4, requests };
    Ok(closed::run(&mut engine, vec![lane], Until::Calls(keys / 100))?.remove(0))
}

fn reads_under_writes(server: &mut Server, scale: &Scale) -> Result<Sample, String> {
    fill(server, 10_000, 256)?;
    let mut engine = Engine::connect(server.addr(), 68)?;
    let window = Window::open(server)?;
    let requests = requests::puts(10_000, 256, 7);
    let writers = Lane { path: PUT, connections: 64, streams: 1, requests };
    let requests = requests::gets(10_000, false, 8);
    let readers = Lane { path: RANGE, connections: 4, streams: 1, requests };
    let outcomes = closed::run(&mut engine, vec![writers, readers], Until::Time(scale.time))?;
    summed(window, server, &outcomes[1], outcomes[0].calls + outcomes[1].calls)
}

fn fan_out(
    server: &mut Server,
    scale: &Scale,
    connections: usize,
    each: usize,
) -> Result<Sample, String> {
    let mut engine = Engine::connect(server.addr(), connections + 1)?;
    let mut window = None;
    let begin = || window = Some(Window::open(server));
    let seen = streams::fan_out(&mut engine, each, 4, scale.time, begin)?;
    let mut sample = vec![(Rate, seen.events as f64 / seen.time.as_secs_f64())];
    sample.extend(latencies(|q| seen.latency.value_at_quantile(q / 100.0) as f64));
    let window = window.ok_or("no watch came to stand")??;
    sample.extend(window.close(server, seen.events, seen.time)?);
    Ok(sample)
}

fn list(server: &mut Server, scale: &Scale, size: usize, page: u64) -> Result<Sample, String> {
    fill(server, scale.keys, size)?;
    // What a list takes is looked for, not what the fill has not put away yet.
    thread::sleep(SETTLE);
    let mut engine = Engine::connect(server.addr(), 1)?;
    let window = Window::open(server)?;
    let requests =
        if page == scale.keys { requests::lists() } else { requests::pages(scale.keys, page) };
    let lane = Lane { path: RANGE, connections: 1, streams: 1, requests };
    let outcome = closed::run(&mut engine, vec![lane], Until::Time(scale.time))?.remove(0);
    let mut sample = summed(window, server, &outcome, outcome.calls * page)?;
    let memory = sample.iter().filter(|(measure, _)| matches!(measure, Anonymous | File));
    let memory: f64 = memory.map(|(_, mb)| mb).sum();
    sample.push((BeyondStore, memory - server.db_len()? as f64 / 1e6));
    Ok(sample)
}

fn keep_alive(server: &mut Server, scale: &Scale) -> Result<Sample, String> {
    const LEASES: i64 = 10_000;
    let mut engine = Engine::connect(server.addr(), 50)?;
    let mut next = 0;
    let requests: Requests = Box::new(move |out| {
        next += 1;
        prost::Message::encode(&pb::LeaseGrantRequest { ttl: 3600, id: next }, out)
            .expect("a vector grows");
    });
    let lane = Lane { path: GRANT, connections: 50, streams: 4, requests };
    closed::run(&mut engine, vec![lane], Until::Calls(LEASES as u64))?;
    let window = Window::open(server)?;
    let kept = streams::keep_alive(&mut engine, (1..=LEASES).collect(), 20, scale.time)?;
    let mut sample = vec![(Rate, kept.answers as f64 / kept.time.as_secs_f64())];
    sample.extend(latencies(|q| kept.latency.value_at_quantile(q / 100.0) as f64));
    sample.extend(window.close(server, kept.answers, kept.time)?);
    Ok(sample)
}

fn many_keys(server: &mut Server, scale: &Scale) -> Result<Sample, String> {
    let window = Window::open(server)?;
    let outcome = fill(server, scale.many_keys, 32)?;
    let mut sample = summed(window, server, &outcome, scale.many_keys)?;
    let start = server.restart()?;
    sample.push((Measure::Start, start.as_secs_f64() * 1e3));
    Ok(sample)
}

fn stalls(server: &mut Server, scale: &Scale) -> Result<Sample, String> {
    fill(server, scale.keys, 256)?;
    let addr = server.addr();
    let compact = move || {
        // All but the newest revisions.
        let get = pb::RangeRequest { key: b"k".as_slice().into(), ..Default::default() };
        let now: pb::RangeResponse = call::unary(addr, RANGE, &get)?;
        let revision = now.header.unwrap_or_default().revision - 10;
        let request = pb::CompactionRequest { revision, physical: true };
        call::unary::<pb::CompactionResponse>(addr, COMPACT, &request).map(drop)
    };
    let snapshot = move || call::drain(addr, SNAPSHOT, &pb::SnapshotRequest {}).map(drop);
    let defragment = move || {
        let request = pb::DefragmentRequest {};
        call::unary::<pb::DefragmentResponse>(addr, DEFRAGMENT, &request).map(drop)
    };
    // What the fill has left to the disk goes first.
    tail(server, scale.keys, scale.time / 4, || Ok(()))?;
    let idle = || tail(server, scale.keys, scale.time, || Ok(()));
    // A disk that others use too has minutes of its own: rest is looked at between all the rest.
    let mut rests = vec![idle()?];
    let compacting = tail(server, scale.keys, scale.time, compact)?;
    rests.push(idle()?);
    let snapshotting = tail(server, scale.keys, scale.time, snapshot)?;
    rests.push(idle()?);
    let defragmenting = tail(server, scale.keys, scale.time, defragment)?;
    rests.sort_by(f64::total_cmp);
    let rest = rests[rests.len() / 2];
    Ok(vec![
        (Measure::Idle, rest),
        (Measure::Compacting, compacting / rest),
        (Measure::Snapshotting, snapshotting / rest),
        (Measure::Defragmenting, defragmenting / rest),
    ])
}

/// The 99.9th percentile of puts while something else is done again and again.
fn tail(
    server: &Server,
    keys: u64,
    time: Duration,
    beside: impl Fn() -> Result<(), String> + Sync,
) -> Result<f64, String> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                beside()?;
                thread::sleep(Duration::from_millis(200));
            }
            Ok::<(), String>(())
        });
        let outcome = Engine::connect(server.addr(), 20).and_then(|mut engine| {
            let requests = requests::puts(keys, 256, 9);
            closed::run_open(&mut engine, PUT, requests, 1_000.0, time)
        });
        ended.store(true, Ordering::Relaxed);
        other.join().map_err(|_| "what went on beside has panicked")??;
        outcome.map(|o| o.percentile(99.9))
    })
}
