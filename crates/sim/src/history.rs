//! What clients asked and saw, and what the log says really happened: the one form that a simulated world and
//! a driver of real processes both fill in, and that the judges read. Not here: how it came about, nor what
//! is right (`judge`).
//!
//! What whoever fills it in has to keep, for without it nobody can tell a write of unknown outcome in the log:
//! **every value that is put is unique in the history**, those in transactions too, and a lease id is not 0 and
//! is asked for by one grant only. Whoever makes clients of its own that write (to wait for a start, say) puts
//! them into the history as well.

use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb;

/// A request, as the client sent it.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `KV.Range`.
    Range(pb::RangeRequest),
    /// `KV.Put`.
    Put(pb::PutRequest),
    /// `KV.DeleteRange`.
    DeleteRange(pb::DeleteRangeRequest),
    /// `KV.Txn`.
    Txn(pb::TxnRequest),
    /// `KV.Compact`.
    Compact(pb::CompactionRequest),
    /// `Lease.LeaseGrant`; the id is never 0 here, so that a grant of unknown outcome can be told.
    LeaseGrant(pb::LeaseGrantRequest),
    /// `Lease.LeaseRevoke`.
    LeaseRevoke(pb::LeaseRevokeRequest),
    /// One renewal on `Lease.LeaseKeepAlive`.
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    /// `Lease.LeaseTimeToLive`.
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    /// `Maintenance.Defragment`: changes nothing that a client can see.
    Defragment,
    /// `Maintenance.HashKV`.
    HashKv(pb::HashKvRequest),
}

/// The response to a [`Request`] of the same name.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the response to the request of that name")]
pub enum Response {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    Defragment,
    HashKv(pb::HashKvResponse),
}

impl Response {
    /// The header, which all answers have but that of a defragmentation.
    pub fn header(&self) -> Option<&pb::ResponseHeader> {
        let header = match self {
            Response::Range(r) => &r.header,
            Response::Put(r) => &r.header,
            Response::DeleteRange(r) => &r.header,
            Response::Txn(r) => &r.header,
            Response::Compact(r) => &r.header,
            Response::LeaseGrant(r) => &r.header,
            Response::LeaseRevoke(r) => &r.header,
            Response::LeaseKeepAlive(r) => &r.header,
            Response::LeaseTimeToLive(r) => &r.header,
            Response::HashKv(r) => &r.header,
            Response::Defragment => &None,
        };
        header.as_ref()
    }
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Ok(Response),
    /// It was refused, for certain: it had no effect and never will have. The text is the server's.
    Refused(String),
    /// The client does not know: it may have had its effect at any time since it was sent, may have it later, or
    /// never. Time limits, lost connections and errors such as `request timed out` end here.
    Unknown,
}

impl Outcome {
    /// How a request ended whose answer was an error, by the error's text. Unknown is what a member says when it
    /// gives up waiting, and whatever is not in the table; a full quota too, for the write that crosses it is
    /// refused and applied all the same.
    pub fn failed(text: &str) -> Outcome {
        match Error::from_message(text) {
            None
            | Some(
                Error::NoSpace
                | Error::NoLeader
                | Error::LeaderChanged
                | Error::Stopped
                | Error::Timeout
                | Error::TimeoutDueToLeaderFail
                | Error::TimeoutDueToConnectionLost
                | Error::TimeoutWaitAppliedIndex
                | Error::Unhealthy
                | Error::WatchCanceled
                | Error::Canceled
                | Error::DeadlineExceeded,
            ) => Outcome::Unknown,
            Some(_) => Outcome::Refused(text.to_owned()),
        }
    }
}

/// One request of one client. A client has at most one at a time, and after one of unknown outcome it takes a
/// new number, so that the order within a client is the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// The member that was asked.
    pub member: u64,
    /// When it was sent, in nanoseconds of the one clock that the whole history is written by.
    pub sent_ns: u64,
    /// When its outcome was known to the client, by the same clock.
    pub ended_ns: u64,
    /// What was asked.
    pub request: Request,
    /// How it ended.
    pub outcome: Outcome,
}

/// What came over one watch, from its creation to its end; a client that resumes opens a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Who watched.
    pub client: u32,
    /// The member that was asked.
    pub member: u64,
    /// What was asked. A start revision of 0 means from the revision after the one of `created`.
    pub request: pb::WatchCreateRequest,
    /// When it was asked, by the history's clock.
    pub sent_ns: u64,
    /// What came, in order, with the time of each by the history's clock. Fragments are as they came, not joined.
    pub responses: Vec<(u64, pb::WatchResponse)>,
    /// Whether the stream was still open and the client had read all there was when the history ended: then
    /// all events up to the end must have come (`reliable` is judged to the end, not to the last one seen).
    pub drained: bool,
}

/// What a member said of itself once it had restarted or come to rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The member.
    pub member: u64,
    /// When, by the history's clock.
    pub at_ns: u64,
    /// Its store's revision.
    pub revision: i64,
    /// Its compacted revision.
    pub compact_revision: i64,
    /// `HashKV` at some revision, with the compacted revision that it was taken over.
    pub hash: Option<(i64, i64, u32)>,
    /// Every live key at `revision`, if it was read whole.
    pub keys: Option<Vec<mvccpb::KeyValue>>,
}

/// One committed entry of the log, as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// When it was first applied anywhere, by the history's clock, where the driver can know it (a simulated
    /// world can, a driver of processes cannot).
    pub applied_ns: Option<u64>,
    /// The bytes of an `InternalRaftRequest`; empty for a leader's first entry. Configuration changes are
    /// left out by the driver.
    pub data: Bytes,
}

/// All that the judges read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Every request, by the time it was sent.
    pub operations: Vec<Operation>,
    /// Every watch.
    pub watches: Vec<Watch>,
    /// What members said of themselves, by time.
    pub observations: Vec<Observation>,
    /// The committed log from its first entry on, without a gap, as it truly persisted.
    pub log: Vec<LogEntry>,
    /// When the faults ended and the world healed, by the history's clock; from here on liveness is due.
    pub healed_ns: Option<u64>,
    /// By how much members' clocks jumped ahead of the history's, all jumps together: so much earlier a lease
    /// may end.
    pub clock_ahead_ns: u64,
    /// The TTL to which shorter ones are raised; 0 where nobody has said it, and the answers must tell.
    pub min_ttl: i64,
    /// When members' processes started, by time. A member of several may come back behind what it had shown.
    pub starts: Vec<(u64, u64)>,
}
