//! Requests, answers and times as people read them in a violation.

use etch_api::pb::etcdserverpb as pb;

use crate::history::{Operation, Outcome, Request, Response};

/// Longer texts are cut.
const LONGEST: usize = 400;

/// A time, in seconds.
pub fn time(ns: u64) -> String {
    format!("{}.{:06}s", ns / 1_000_000_000, ns % 1_000_000_000 / 1000)
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 60 { format!("{}..({} bytes)", &text[..40], bytes.len()) } else { text }
}

fn range(key: &[u8], end: &[u8]) -> String {
    if end.is_empty() { text(key) } else { format!("[{}, {})", text(key), text(end)) }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate((0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
        text.push_str("..");
    }
    text
}

/// A request.
pub fn request(request: &Request) -> String {
    match request {
        Request::Range(r) => {
            let at = if r.revision > 0 { format!(" at {}", r.revision) } else { String::new() };
            let kind = if r.serializable { " (serializable)" } else { "" };
            format!("range {}{at}{kind}", range(&r.key, &r.range_end))
        }
        Request::Put(r) => {
            let lease = if r.lease != 0 { format!(" lease {}", r.lease) } else { String::new() };
            format!("put {}={}{lease}", text(&r.key), text(&r.value))
        }
        Request::DeleteRange(r) => format!("delete {}", range(&r.key, &r.range_end)),
        Request::Txn(r) => format!("txn {}", txn(r)),
        Request::Compact(r) => format!("compact {}", r.revision),
        Request::LeaseGrant(r) => format!("grant lease {} ttl {}", r.id, r.ttl),
        Request::LeaseRevoke(r) => format!("revoke lease {}", r.id),
        Request::LeaseKeepAlive(r) => format!("renew lease {}", r.id),
        Request::LeaseTimeToLive(r) => format!("time to live of lease {}", r.id),
        Request::Defragment => "defragment".into(),
        Request::HashKv(r) => format!("hash at {}", r.revision),
    }
}

fn txn(txn: &pb::TxnRequest) -> String {
    let ops = |ops: &[pb::RequestOp]| {
        let all: Vec<_> = ops.iter().map(op).collect();
        all.join(", ")
    };
    let compares = txn.compare.len();
    cut(format!("if {compares} hold: {}; else: {}", ops(&txn.success), ops(&txn.failure)))
}

fn op(op: &pb::RequestOp) -> String {
    use pb::request_op::Request as Asked;
    match &op.request {
        Some(Asked::RequestRange(r)) => request(&Request::Range(r.clone())),
        Some(Asked::RequestPut(r)) => request(&Request::Put(r.clone())),
        Some(Asked::RequestDeleteRange(r)) => request(&Request::DeleteRange(r.clone())),
        Some(Asked::RequestTxn(r)) => format!("({})", self::txn(r)),
        None => "nothing".into(),
    }
}

/// An answer, as its message is printed.
pub fn response(response: &Response) -> String {
    cut(format!("{response:?}"))
}

/// An operation: who, what, when, and how it ended.
pub fn operation(op: &Operation) -> String {
    let ended = match &op.outcome {
        Outcome::Ok(response) => match super::evidence::revision_of(response) {
            Some(revision) => format!("answered at revision {revision}"),
            None => "answered".into(),
        },
        Outcome::Refused(why) => format!("refused (`{why}`)"),
        Outcome::Unknown => "of unknown outcome".into(),
    };
    format!(
        "client {} at member {:x}, {}..{}: {}, {ended}",
        op.client,
        op.member,
        time(op.sent_ns),
        time(op.ended_ns),
        request(&op.request)
    )
}
