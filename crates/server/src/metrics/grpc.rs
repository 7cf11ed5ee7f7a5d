//! What is counted of gRPC calls, by method: started, handled by code, messages in and out. Each net thread
//! counts on cache lines of its own. Not here: the calls.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::text::Page;
use super::value::{Counter, Histogram, Number};
use crate::services::methods::Method;
use etch_rpc::Code;

/// etcd's methods: service, name, and how messages flow. All are on the page from the start, also those
/// that this server does not have, but for those of locks and elections: they are from their first call on.
#[rustfmt::skip]
const METHODS: [(&str, &str, &str); 52] = [
    ("etcdserverpb.Maintenance", "Alarm", UNARY),
    ("etcdserverpb.Auth", "AuthDisable", UNARY),
    ("etcdserverpb.Auth", "AuthEnable", UNARY),
    ("etcdserverpb.Auth", "AuthStatus", UNARY),
    ("etcdserverpb.Auth", "Authenticate", UNARY),
    ("v3electionpb.Election", "Campaign", UNARY),
    ("grpc.health.v1.Health", "Check", UNARY),
    ("etcdserverpb.KV", "Compact", UNARY),
    ("etcdserverpb.Maintenance", "Defragment", UNARY),
    ("etcdserverpb.KV", "DeleteRange", UNARY),
    ("etcdserverpb.Maintenance", "Downgrade", UNARY),
    ("etcdserverpb.Maintenance", "Hash", UNARY),
    ("etcdserverpb.Maintenance", "HashKV", UNARY),
    ("v3electionpb.Election", "Leader", UNARY),
    ("etcdserverpb.Lease", "LeaseGrant", UNARY),
    ("etcdserverpb.Lease", "LeaseKeepAlive", BIDI),
    ("etcdserverpb.Lease", "LeaseLeases", UNARY),
    ("etcdserverpb.Lease", "LeaseRevoke", UNARY),
    ("etcdserverpb.Lease", "LeaseTimeToLive", UNARY),
    ("grpc.health.v1.Health", "List", UNARY),
    ("v3lockpb.Lock", "Lock", UNARY),
    ("etcdserverpb.Cluster", "MemberAdd", UNARY),
    ("etcdserverpb.Cluster", "MemberList", UNARY),
    ("etcdserverpb.Cluster", "MemberPromote", UNARY),
    ("etcdserverpb.Cluster", "MemberRemove", UNARY),
    ("etcdserverpb.Cluster", "MemberUpdate", UNARY),
    ("etcdserverpb.Maintenance", "MoveLeader", UNARY),
    ("v3electionpb.Election", "Observe", SERVER),
    ("v3electionpb.Election", "Proclaim", UNARY),
    ("etcdserverpb.KV", "Put", UNARY),
    ("etcdserverpb.KV", "Range", UNARY),
    ("etcdserverpb.KV", "RangeStream", SERVER),
    ("v3electionpb.Election", "Resign", UNARY),
    ("etcdserverpb.Auth", "RoleAdd", UNARY),
    ("etcdserverpb.Auth", "RoleDelete", UNARY),
    ("etcdserverpb.Auth", "RoleGet", UNARY),
    ("etcdserverpb.Auth", "RoleGrantPermission", UNARY),
    ("etcdserverpb.Auth", "RoleList", UNARY),
    ("etcdserverpb.Auth", "RoleRevokePermission", UNARY),
    ("etcdserverpb.Maintenance", "Snapshot", SERVER),
    ("etcdserverpb.Maintenance", "Status", UNARY),
    ("etcdserverpb.KV", "Txn", UNARY),
    ("v3lockpb.Lock", "Unlock", UNARY),
    ("etcdserverpb.Auth", "UserAdd", UNARY),
    ("etcdserverpb.Auth", "UserChangePassword", UNARY),
    ("etcdserverpb.Auth", "UserDelete", UNARY),
    ("etcdserverpb.Auth", "UserGet", UNARY),
    ("etcdserverpb.Auth", "UserGrantRole", UNARY),
    ("etcdserverpb.Auth", "UserList", UNARY),
    ("etcdserverpb.Auth", "UserRevokeRole", UNARY),
    ("etcdserverpb.Watch", "Watch", BIDI),
    ("grpc.health.v1.Health", "Watch", SERVER),
];

const UNARY: &str = "unary";
const SERVER: &str = "server_stream";
const BIDI: &str = "bidi_stream";

/// The codes by number, as the page names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// More threads than this share.
const SHARDS: usize = 8;

/// What one thread has counted of one method. A cache line apart from the next thread's.
#[derive(Default)]
#[repr(align(64))]
struct Counts {
    started: Counter,
    received: Counter,
    sent: Counter,
    handled: [Counter; CODES.len()],
}

/// The counters of all methods.
pub struct Grpc {
    /// By shard, then by method.
    shards: Vec<Vec<Counts>>,
    /// By method; with `--metrics=extensive`.
    times: Option<Vec<Histogram>>,
    /// Where in `METHODS` the server's own methods stand, by their numbers.
    places: Vec<usize>,
}

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        shard.get().unwrap_or_else(|| {
            let own = NEXT.fetch_add(1, Relaxed) % SHARDS;
            shard.set(Some(own));
            own
        })
    })
}

impl Grpc {
    pub(super) fn new(extensive: bool) -> Grpc {
        let methods = || (0..METHODS.len()).map(|_| Counts::default()).collect();
        Grpc {
            shards: (0..SHARDS).map(|_| methods()).collect(),
            times: extensive.then(|| METHODS.iter().map(|_| Histogram::calls()).collect()),
            places: Method::ALL.iter().map(|method| place(*method)).collect(),
        }
    }

    fn counts(&self, method: Method) -> (&Counts, usize) {
        let place = self.places[method as usize];
        (&self.shards[shard()][place], place)
    }

    /// A call has come in. Of a unary one its message has come with it.
    pub fn started(&self, method: Method) {
        let (counts, place) = self.counts(method);
        counts.started.inc();
        if METHODS[place].2 == UNARY {
            counts.received.inc();
        }
    }

    /// A call has ended. A unary one that went well has sent its message.
    pub fn handled(&self, method: Method, code: Code, took: Duration) {
        let (counts, place) = self.counts(method);
        counts.handled[code as usize % CODES.len()].inc();
        if METHODS[place].2 == UNARY && code == Code::Ok {
            counts.sent.inc();
        }
        if let Some(times) = &self.times {
            times[place].observe(took);
        }
    }

    /// So many messages have come in on a stream.
    pub fn received(&self, method: Method, n: u64) {
        self.counts(method).0.received.add(n);
    }

    /// So many messages have left on a stream.
    pub fn sent(&self, method: Method, n: u64) {
        self.counts(method).0.sent.add(n);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let total = |place: usize, of: fn(&Counts) -> u64| -> f64 {
            self.shards.iter().map(|shard| of(&shard[place])).sum::<u64>() as f64
        };
        for (name, help, of) in [
            (
                "grpc_server_started_total",
                "Calls begun.",
                (|c| c.started.get()) as fn(&Counts) -> u64,
            ),
            ("grpc_server_msg_received_total", "Messages received.", |c| c.received.get()),
            ("grpc_server_msg_sent_total", "Messages sent.", |c| c.sent.get()),
        ] {
            let out = page.family(name, "counter", help);
            for place in 0..METHODS.len() {
                let total = total(place, of);
                if total > 0.0 || !is_late(place) {
                    let _ = writeln!(out, "{name}{{{}}} {}", labels(place), Number(total));
                }
            }
        }
        let name = "grpc_server_handled_total";
        let out = page.family(name, "counter", "Calls ended, by status code.");
        for (number, code) in CODES.iter().enumerate() {
            for place in 0..METHODS.len() {
                let n: u64 = self.shards.iter().map(|s| s[place].handled[number].get()).sum();
                if n == 0 && is_late(place) {
                    continue;
                }
                let labels = labels(place);
                let _ =
                    writeln!(out, "{name}{{grpc_code=\"{code}\",{labels}}} {}", Number(n as f64));
            }
        }
        if let Some(times) = &self.times {
            let name = "grpc_server_handling_seconds";
            let out = page.family(name, "histogram", "Time from a call's begin to its end.");
            for (place, histogram) in times.iter().enumerate() {
                if is_late(place) && total(place, |c| c.started.get()) == 0.0 {
                    continue;
                }
                histogram.write(out, name, &labels(place));
            }
        }
    }
}

/// Whether a method is on the page only once it was called.
fn is_late(place: usize) -> bool {
    METHODS[place].0.starts_with("v3")
}

fn place(method: Method) -> usize {
    let (service, name, _) = method.parts();
    let found = METHODS.iter().position(|(s, m, _)| (*s, *m) == (service, name));
    assert!(found.is_some(), "the metrics know every method: {service}/{name}");
    found.unwrap_or_default()
}

fn labels(place: usize) -> String {
    let (service, method, kind) = METHODS[place];
    format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(grpc: &Grpc) -> String {
        let mut page = Page::default();
        grpc.write(&mut page);
        let mut out = String::new();
        page.finish(&mut out);
        out
    }

    #[test]
    fn every_method_and_code_is_there_from_the_start() {
        let text = page(&Grpc::new(true));
        let series = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(series("grpc_server_handled_total{"), 45 * 17);
        assert_eq!(series("grpc_server_started_total{"), 45);
        assert_eq!(series("grpc_server_handling_seconds_count{"), 45);
        assert!(text.contains(
            "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
             grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0\n"
        ));
        assert!(!page(&Grpc::new(false)).contains("handling_seconds"));
    }

    #[test]
    fn threads_add_up() {
        let grpc = Grpc::new(true);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    grpc.started(Method::Put);
                    grpc.handled(Method::Put, Code::Ok, Duration::from_millis(7));
                });
            }
        });
        grpc.started(Method::Watch);
        grpc.sent(Method::Watch, 5);
        grpc.handled(Method::Watch, Code::Unavailable, Duration::ZERO);
        let text = page(&grpc);
        let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        let watch =
            "grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"";
        for line in [
            format!("grpc_server_started_total{{{put}}} 3"),
            format!("grpc_server_msg_received_total{{{put}}} 3"),
            format!("grpc_server_msg_sent_total{{{put}}} 3"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{put}}} 3"),
            format!("grpc_server_handling_seconds_bucket{{{put},le=\"0.01\"}} 3"),
            format!("grpc_server_msg_received_total{{{watch}}} 0"),
            format!("grpc_server_msg_sent_total{{{watch}}} 5"),
            format!("grpc_server_handled_total{{grpc_code=\"Unavailable\",{watch}}} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
    }
}
