//! `etcdserverpb.Watch`: one stream, many watchers. A task of the stream's own takes requests, sends what
//! the stream's state has for it, and sleeps until there is more. Not here: who watches what
//! (`etch_state::watch`).

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use etch_api::KeyRange;
use etch_api::pb::etcdserverpb::WatchRequest;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_rpc::{CallInfo, Code, MessageStream, Payload, Status, StreamSender};
use etch_state::auth::{View, Who};
use etch_state::watch::{OutMessage, StreamConfig, StreamState};
use tokio::sync::Notify;

use super::decode_streamed;
use super::methods::Method;
use crate::auth::claim::Claim;
use crate::metrics::Metrics;
use crate::net::Net;

/// Bytes of events made ready at a time; between two such steps requests are looked at.
pub(super) const BUDGET: usize = 256 << 10;
/// Messages up to this size are copied together into one piece.
const SMALL: usize = 1024;
/// Answers to requests that may wait; more requests are not read meanwhile.
const BACKLOG: usize = 64;

/// A stream's place in its thread; gone when the stream is.
pub(super) struct Place {
    pub(super) net: Rc<Net>,
    pub(super) token: u64,
    pub(super) rung: Rc<Notify>,
}

impl Place {
    pub(super) fn new(net: Rc<Net>) -> Self {
        let (token, rung) = net.add_stream();
        Self { net, token, rung }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.net.remove_stream(self.token);
    }
}

/// What holds for the stream with this token.
pub(super) fn stream_config(net: &Net, token: u64) -> StreamConfig {
    StreamConfig {
        fragment_limit: net.member.limits.max_request_bytes + (512 << 10),
        header_len: net.member.header.encoded_len(i64::MAX, net.member.view.term(), 1),
        progress_interval_ms: net.member.progress_interval_ms(token),
        ..StreamConfig::default()
    }
}

/// `Watch`.
pub async fn watch(
    net: Rc<Net>,
    call: &CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    let place = Place::new(Rc::clone(&net));
    let config = stream_config(&net, place.token);
    let now = net.member.clock.now_ms();
    let mut state = StreamState::new(&net.member.hub, net.doorbell(), place.token, now, config);
    match run(&net, call, &place, &mut state, &mut messages, &sender).await {
        Ok(()) => Status::OK,
        Err(status) => status,
    }
}

async fn run(
    net: &Rc<Net>,
    call: &CallInfo,
    place: &Place,
    state: &mut StreamState,
    messages: &mut MessageStream,
    sender: &StreamSender,
) -> Result<(), Status> {
    // Clients wait for the headers before they send their first request.
    sender.send_headers()?;
    let mut out = Vec::new();
    let mut guard = Guarded { claim: Claim::nobody(), generation: net.member.auth.generation() };
    // A client that has ended its side still gets events, as in etcd.
    let mut open = true;
    loop {
        state.tick(net.member.clock.now_ms());
        let more = state
            .poll(net.member.store.as_ref(), BUDGET, &mut out)
            .map_err(|e| Status::new(Code::Unavailable, e.to_string()))?;
        guard.recheck(net, call, state, &mut out);
        if !out.is_empty() {
            let sent = Sent::of(&out);
            let began = Instant::now();
            let payloads: Vec<Payload> = out.drain(..).map(|m| payload(net, &m)).collect();
            sender.send_batch(payloads).await?;
            sent.count(&net.member.metrics, began.elapsed());
        }
        let reads = open && state.backlog() < BACKLOG;
        if more {
            // Others on this thread get their turn, and a request that is there is taken.
            tokio::select! {
                biased;
                message = messages.next(), if reads => {
                    open = handle(net, call, &mut guard, state, message?)?;
                }
                () = tokio::task::yield_now() => {}
            }
            continue;
        }
        let patience = state.next_tick().map(|at| at.saturating_sub(net.member.clock.now_ms()));
        tokio::select! {
            message = messages.next(), if reads => {
                open = handle(net, call, &mut guard, state, message?)?;
            }
            () = place.rung.notified() => {}
            () = sleep(patience) => {}
        }
    }
}

/// What a batch of messages consists of, for the metrics.
struct Sent {
    events: u32,
    with_events: u32,
    controls: u32,
    notices: u32,
}

impl Sent {
    fn of(messages: &[OutMessage]) -> Self {
        let mut sent = Self { events: 0, with_events: 0, controls: 0, notices: 0 };
        for message in messages {
            match message.pieces().len() {
                0 if message.created || message.canceled => sent.controls += 1,
                0 => sent.notices += 1,
                events => {
                    sent.with_events += 1;
                    sent.events += u32::try_from(events).unwrap_or(u32::MAX);
                }
            }
        }
        sent
    }

    /// The time of a batch is shared out among its messages.
    fn count(&self, metrics: &Metrics, took: Duration) {
        let messages = self.with_events + self.controls + self.notices;
        let each = took / messages.max(1);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let to = &metrics.mvcc;
        metrics.grpc.sent(Method::Watch, messages.into());
        to.watch_send.record_many(nanos(each), self.with_events.into());
        to.watch_control.record_many(nanos(each), self.controls.into());
        to.watch_progress.record_many(nanos(each), self.notices.into());
        let per_event = each * self.with_events / self.events.max(1);
        to.watch_send_event.record_many(nanos(per_event), self.with_events.into());
    }
}

/// Sleeps so long, or for ever.
pub(super) async fn sleep(patience_ms: Option<u64>) {
    match patience_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms.max(1))).await,
        None => std::future::pending().await,
    }
}

/// Takes one request; false once the client has ended its side.
fn handle(
    net: &Net,
    call: &CallInfo,
    guard: &mut Guarded,
    state: &mut StreamState,
    message: Option<Bytes>,
) -> Result<bool, Status> {
    let Some(message) = message else { return Ok(false) };
    net.member.metrics.grpc.received(Method::Watch, 1);
    let request: WatchRequest = decode_streamed(&message)?;
    let store = net.member.store.as_ref();
    match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => {
            let claim = Claim::of(net, call);
            let check =
                |view: &View, who: Who<'_>| view.check_watch(who, &create.key, &create.range_end);
            let permission = claim.require(net, check);
            if permission.is_ok() {
                guard.claim = claim;
            }
            state.create(&create, permission, store);
        }
        Some(RequestUnion::CancelRequest(cancel)) => state.cancel(cancel.watch_id, store),
        Some(RequestUnion::ProgressRequest(_)) => state.request_progress(),
        // etcd passes over a request that asks for nothing.
        None => {}
    }
    Ok(true)
}

/// Under which permissions a stream's watchers were allowed.
struct Guarded {
    /// Who watches: the same for all watchers of a stream, for all come with its one token.
    claim: Claim,
    generation: u64,
}

impl Guarded {
    /// etcd looks at permissions only when a watcher is made, and lets it see everything after that. Here
    /// it ends when its user may no longer read what it watches: before anything is sent that was read
    /// since, for what is sent was gathered before the look at the permissions' number.
    fn recheck(
        &mut self,
        net: &Net,
        call: &CallInfo,
        state: &mut StreamState,
        out: &mut Vec<OutMessage>,
    ) {
        let generation = net.member.auth.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        if matches!(self.claim.user(), Ok(None)) {
            // Begun while auth was off, perhaps with a token all the same.
            self.claim = Claim::of(net, call);
        }
        let claim = self.claim.renewed(net);
        let may = |range: &KeyRange| {
            let (key, range_end) = range.to_parts();
            claim.require(net, |view, who| view.check_watch(who, &key, &range_end))
        };
        state.recheck(may, net.member.store.as_ref(), out);
    }
}

/// Header, the message's own fields, then the events, which all watchers share.
fn payload(net: &Net, message: &OutMessage) -> Payload {
    let events: usize = message.pieces().iter().map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(96 + if events <= SMALL { events } else { 0 });
    net.member.header.encode(message.revision, net.member.view.term(), &mut head, 1);
    message.encode_fields(&mut head);
    if events <= SMALL {
        message.pieces().iter().for_each(|piece| head.extend_from_slice(piece));
        return Payload::from(head.freeze());
    }
    let mut pieces = Vec::with_capacity(1 + message.pieces().len());
    pieces.push(head.freeze());
    pieces.extend(message.pieces().iter().cloned());
    Payload::pieces(pieces)
}
