//! Calls of clients, counted as Go's gRPC counts them in etcd's proxy (`grpc_server_…`): those methods that have been
//! called at all. Not here: the page that shows them (`metrics`).

use std::cell::Cell;
use std::fmt::Write as _;

use etch_rpc::Code;

use super::methods::{Kind, METHODS};

/// gRPC's codes.
const CODES: usize = 17;
/// What these families are called, and how Go's library explains them.
const STARTED: (&str, &str) = ("started", "Total number of RPCs started on the server.");
const HANDLED: (&str, &str) =
    ("handled", "Total number of RPCs completed on the server, regardless of success or failure.");
const RECEIVED: (&str, &str) =
    ("msg_received", "Total number of RPC stream messages received on the server.");
const SENT: (&str, &str) = ("msg_sent", "Total number of gRPC stream messages sent by the server.");

/// One method's counters.
#[derive(Default)]
pub(super) struct Counts {
    started: Cell<u64>,
    received: Cell<u64>,
    sent: Cell<u64>,
    handled: [Cell<u64>; CODES],
}

impl Counts {
    /// A call has begun.
    pub(super) fn started(&self) {
        add(&self.started);
    }

    /// A message of the client's has come.
    pub(super) fn received(&self) {
        add(&self.received);
    }

    /// So many messages go to the client.
    pub(super) fn sent(&self, messages: usize) {
        self.sent.set(self.sent.get() + messages as u64);
    }

    /// A call has ended.
    pub(super) fn handled(&self, code: Code) {
        if let Some(count) = self.handled.get(code as usize) {
            add(count);
        }
    }
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// All methods' counters.
pub(super) struct Calls {
    counts: Vec<Counts>,
    watch: usize,
    keep_alive: usize,
}

impl Default for Calls {
    fn default() -> Self {
        let place = |kind| METHODS.iter().position(|(_, known)| *known == kind).unwrap_or(0);
        Self {
            counts: METHODS.iter().map(|_| Counts::default()).collect(),
            watch: place(Kind::Watch),
            keep_alive: place(Kind::KeepAlive),
        }
    }
}

impl Calls {
    /// Those of the method with this number.
    pub(super) fn of(&self, method: u16) -> &Counts {
        &self.counts[usize::from(method)]
    }

    /// Those of watches.
    pub(super) fn watch(&self) -> &Counts {
        &self.counts[self.watch]
    }

    /// Those of leases' renewals.
    pub(super) fn keep_alive(&self) -> &Counts {
        &self.counts[self.keep_alive]
    }

    /// The families as text.
    pub(super) fn write(&self, out: &mut String) {
        self.family(out, HANDLED, |counts, line| {
            for (code, count) in counts.handled.iter().enumerate() {
                let name = Code::from_u32(code as u32).name();
                line(&format!("grpc_code=\"{name}\","), count.get());
            }
        });
        self.family(out, RECEIVED, |counts, line| line("", counts.received.get()));
        self.family(out, SENT, |counts, line| line("", counts.sent.get()));
        self.family(out, STARTED, |counts, line| line("", counts.started.get()));
    }

    fn family(
        &self,
        out: &mut String,
        (name, help): (&str, &str),
        show: impl Fn(&Counts, &mut dyn FnMut(&str, u64)),
    ) {
        let name = format!("grpc_server_{name}_total");
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for (counts, (path, kind)) in self.counts.iter().zip(METHODS) {
            if counts.started.get() == 0 {
                continue;
            }
            let (service, method) = path[1..].split_once('/').unwrap_or_default();
            let kind = flow(*kind);
            show(counts, &mut |code, value| {
                if value > 0 {
                    let _ = writeln!(
                        out,
                        "{name}{{{code}grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}} {value}"
                    );
                }
            });
        }
    }
}

fn flow(kind: Kind) -> &'static str {
    match kind {
        Kind::Read | Kind::Write | Kind::Wait | Kind::Members => "unary",
        Kind::Stream => "server_stream",
        Kind::Watch | Kind::KeepAlive => "bidi_stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_were_called_are_shown_with_their_codes() {
        let calls = Calls::default();
        calls.of(0).started();
        calls.of(0).received();
        calls.of(0).handled(Code::NotFound);
        calls.watch().started();
        let mut text = String::new();
        calls.write(&mut text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "grpc_server_handled_total{grpc_code=\"NotFound\",grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
                "grpc_server_msg_received_total{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
                "grpc_server_started_total{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
                "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 1",
            ]
        );
    }
}
