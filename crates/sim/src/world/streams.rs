//! Watch streams, both ends: the member's task with the real `StreamState`, driven as the server drives it, and
//! the client with its window, which reads slowly at times or not at all. Not here: what the clients watch.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use etch_api::pb::etcdserverpb::watch_create_request::FilterType;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_api::pb::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use etch_state::watch::{OutMessage, StreamState};
use prost::Message as _;

use super::member::Process;
use super::network::Place;
use super::{Event, World};
use crate::history::Watch;
use crate::params::{MS, SECOND};
use crate::rng::Rng;

/// A client that watches: one stream at a time, with several watches on it.
pub struct Watcher {
    rng: Rng,
    member: usize,
    number: u32,
    stream: Option<usize>,
    /// Where the watches of a stream that broke go on.
    resume: Vec<WatchCreateRequest>,
}

/// A stream, with both its ends.
pub struct Stream {
    member: usize,
    watcher: usize,
    /// The member's end; gone with the process.
    server: Option<StreamState>,
    /// The client's end is open.
    open: bool,
    /// Messages that were sent and not read yet.
    unread: usize,
    /// The task waits for the client to read.
    blocked: bool,
    poll_planned: Option<u64>,
    /// When the last message of either direction arrives: a connection keeps order.
    up: u64,
    down: u64,
    /// Requests that have come to the member and were not taken yet.
    asked_for: VecDeque<WatchRequest>,
    /// What has come to the client and was not read yet.
    arrived: VecDeque<WatchResponse>,
    /// The client does not read before this.
    stalled_until: u64,
    /// Watches that were asked for and not confirmed yet, by their place in the history.
    asked: VecDeque<usize>,
    by_id: BTreeMap<i64, usize>,
    /// Where each watch would go on.
    next: BTreeMap<usize, i64>,
}

/// A watcher does something again after so long, on average.
const PAUSE: u64 = 400 * MS;

impl World {
    pub(super) fn add_watchers(&mut self) {
        for watcher in 0..self.params.watchers {
            let number = self.next_client_number();
            self.watchers.push(Watcher {
                rng: Rng::new(self.options.seed, 2000 + watcher as u64),
                member: watcher % self.params.members,
                number,
                stream: None,
                resume: Vec::new(),
            });
            let client = self.params.clients + 1 + watcher;
            if self.options.clients.as_ref().is_none_or(|list| list.contains(&client)) {
                self.after(200 * MS, Event::Watcher { watcher });
            }
        }
    }

    /// A client that watches does something.
    pub(super) fn watcher_acts(&mut self, watcher: usize) {
        let w = &mut self.watchers[watcher];
        let delay = w.rng.delay(PAUSE);
        self.after(delay, Event::Watcher { watcher });
        let Some(stream) = self.watchers[watcher].stream else { return self.open_stream(watcher) };
        if self.healed {
            return;
        }
        let w = &mut self.watchers[watcher];
        match w.rng.weighted(&[(0, 30), (1, 25), (2, 25), (3, 8), (4, 4), (5, 8)]) {
            0 => {}
            1 => self.create_watch(watcher, stream),
            2 => {
                let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
                self.send_up(stream, ask);
            }
            3 => self.cancel_watch(watcher, stream),
            4 => self.close_stream(stream),
            _ => {
                let pause = w.rng.delay(3 * SECOND);
                self.streams[stream].stalled_until = self.now + pause;
                self.stats.count("readers that stopped reading");
            }
        }
    }

    fn open_stream(&mut self, watcher: usize) {
        let member = self.watchers[watcher].member;
        let m = &self.members[member];
        let Some(process) = m.process.as_ref().filter(|p| p.serving) else { return };
        let link = (Place::Watcher(watcher), Place::Member(member));
        if self.network.is_cut(link.0, link.1) || self.network.is_cut(link.1, link.0) {
            return;
        }
        let stream = self.streams.len();
        let config = self.params.stream.clone();
        let hub = process.node.state().hub();
        let now_ms = m.now_ms(self.now);
        let server = StreamState::new(hub, &process.doorbell, stream as u64, now_ms, config);
        self.streams.push(Stream {
            member,
            watcher,
            server: Some(server),
            open: true,
            unread: 0,
            blocked: false,
            poll_planned: None,
            up: self.now,
            down: self.now,
            asked_for: VecDeque::new(),
            arrived: VecDeque::new(),
            stalled_until: 0,
            asked: VecDeque::new(),
            by_id: BTreeMap::new(),
            next: BTreeMap::new(),
        });
        self.stats.count("watch streams");
        let w = &mut self.watchers[watcher];
        w.stream = Some(stream);
        let resume = std::mem::take(&mut w.resume);
        if resume.is_empty() {
            return self.create_watch(watcher, stream);
        }
        for request in resume {
            self.send_create(stream, request);
        }
    }

    /// A watch of the client's choice.
    fn create_watch(&mut self, watcher: usize, stream: usize) {
        let keys = self.params.keys;
        let seen = self.seen_revision;
        let rng = &mut self.watchers[watcher].rng;
        let (key, range_end) = super::workload::range(rng, keys);
        let start_revision = match rng.below(10) {
            0..=2 => 0,
            3 => seen + 1,
            // What lies exactly there must still come.
            4 => self.compacted.max(1),
            _ => (seen + rng.around(-100, 100)).max(1),
        };
        let filters = match rng.below(10) {
            0 => vec![FilterType::Noput.into()],
            1 => vec![FilterType::Nodelete.into()],
            2 => vec![FilterType::Nodelete.into(), FilterType::Noput.into()],
            _ => Vec::new(),
        };
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: rng.chance(400),
            filters,
            prev_kv: rng.chance(500),
            watch_id: if rng.chance(300) { rng.around(1, 9) } else { 0 },
            fragment: rng.chance(400),
        };
        self.send_create(stream, request);
    }

    fn send_create(&mut self, stream: usize, request: WatchCreateRequest) {
        let s = &mut self.streams[stream];
        let watch = self.history.watches.len();
        s.asked.push_back(watch);
        self.history.watches.push(Watch {
            client: self.watchers[s.watcher].number,
            member: self.members[s.member].row.id,
            request: request.clone(),
            sent_ns: self.now,
            responses: Vec::new(),
            drained: false,
        });
        self.stats.count("watches");
        self.send_up(stream, RequestUnion::CreateRequest(request));
    }

    fn cancel_watch(&mut self, watcher: usize, stream: usize) {
        let ids: Vec<i64> = self.streams[stream].by_id.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let watch_id = self.watchers[watcher].rng.pick(&ids);
        self.send_up(stream, RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    fn send_up(&mut self, stream: usize, ask: RequestUnion) {
        let delay = self.network.stream_delay();
        let s = &mut self.streams[stream];
        s.up = s.up.max(self.now + delay);
        let message = Box::new(WatchRequest { request_union: Some(ask) });
        let at = s.up;
        self.at(at, Event::Upstream { stream, message });
    }

    /// A request on a stream has come to the member, which takes it now, or when it goes on.
    pub(super) fn upstream(&mut self, stream: usize, message: WatchRequest) {
        self.streams[stream].asked_for.push_back(message);
        self.take_requests(stream);
    }

    /// The stream's task takes the requests that have come.
    pub(super) fn take_requests(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        let m = &self.members[s.member];
        if m.paused_until > self.now {
            return self.at(m.paused_until, Event::Requests { stream });
        }
        let (Some(server), Some(process)) = (&mut s.server, &m.process) else { return };
        let store = process.node.state().store().as_ref();
        for message in s.asked_for.drain(..) {
            match message.request_union {
                Some(RequestUnion::CreateRequest(create)) => server.create(&create, Ok(()), store),
                Some(RequestUnion::CancelRequest(cancel)) => server.cancel(cancel.watch_id, store),
                Some(RequestUnion::ProgressRequest(_)) => server.request_progress(),
                None => {}
            }
        }
        self.plan_poll(stream, 0);
    }

    fn plan_poll(&mut self, stream: usize, after: u64) {
        let delay = after + self.rng.delay(self.params.delays.wake);
        let at = self.now + delay;
        let s = &mut self.streams[stream];
        if s.server.is_some() && s.poll_planned.is_none_or(|planned| planned > at) {
            s.poll_planned = Some(at);
            self.at(at, Event::Poll { stream });
        }
    }

    /// Streams that the hub has something for.
    pub(super) fn ring_streams(&mut self, member: usize) {
        let Some(process) = &self.members[member].process else { return };
        if !process.rung.take() {
            return;
        }
        let mut ready = Vec::new();
        process.doorbell.take_ready(&mut ready);
        for token in ready {
            self.plan_poll(token as usize, 0);
        }
    }

    /// The stream's task on the member runs.
    pub(super) fn poll(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        let m = &self.members[s.member];
        if s.poll_planned.is_none_or(|at| at > self.now) {
            return;
        }
        if m.paused_until > self.now {
            s.poll_planned = Some(m.paused_until);
            return self.at(m.paused_until, Event::Poll { stream });
        }
        s.poll_planned = None;
        let (Some(server), Some(process)) = (&mut s.server, &m.process) else { return };
        s.blocked = s.unread >= self.params.stream_window;
        if s.blocked {
            return;
        }
        let now_ms = m.now_ms(self.now);
        server.tick(now_ms);
        let mut out = Vec::new();
        let store = process.node.state().store().as_ref();
        let more = match server.poll(store, self.params.stream_budget, &mut out) {
            Ok(more) => more,
            Err(error) => {
                let member = s.member;
                return self.violation(format!("member {member}: a stream ends with `{error}`"));
            }
        };
        let next_tick = server.next_tick().map(|at| at.saturating_sub(now_ms) * MS);
        let sent: Vec<_> = out.iter().map(|message| encode(process, message)).collect();
        for message in sent {
            match WatchResponse::decode(message) {
                Ok(message) => self.send_down(stream, Box::new(message)),
                Err(error) => self.violation(format!("a damaged message on a stream: {error}")),
            }
        }
        if more {
            self.plan_poll(stream, 0);
        } else if let Some(after) = next_tick {
            self.plan_poll(stream, after.max(MS));
        }
    }

    fn send_down(&mut self, stream: usize, message: Box<WatchResponse>) {
        let delay = self.network.stream_delay();
        let s = &mut self.streams[stream];
        s.unread += 1;
        s.down = s.down.max(self.now + delay);
        let at = s.down;
        self.at(at, Event::Downstream { stream, message });
    }

    /// A message has come to the client, which reads it now, or later.
    pub(super) fn downstream(&mut self, stream: usize, message: WatchResponse) {
        self.streams[stream].arrived.push_back(message);
        self.read_arrived(stream);
    }

    /// The client reads what has come, if it reads at all at present.
    pub(super) fn read_arrived(&mut self, stream: usize) {
        let s = &self.streams[stream];
        if s.stalled_until > self.now {
            return self.at(s.stalled_until, Event::Read { stream });
        }
        while self.streams[stream].open
            && let Some(message) = self.streams[stream].arrived.pop_front()
        {
            self.read(stream, message);
            let delay = self.network.stream_delay();
            self.after(delay, Event::Window { stream });
        }
    }

    /// The client reads a message, and notes it for the watch, or the watches, that it is for.
    fn read(&mut self, stream: usize, message: WatchResponse) {
        let now = self.now;
        let s = &mut self.streams[stream];
        let events = message.events.len() as u64;
        if events > 0 {
            self.last_event = now;
        }
        if let Some(header) = &message.header {
            self.seen_revision = self.seen_revision.max(header.revision);
        }
        let watch = if message.created {
            s.asked.pop_front()
        } else {
            s.by_id.get(&message.watch_id).copied()
        };
        let Some(watch) = watch else {
            // A watch may have ended by itself while the client asked for its end.
            if message.watch_id != -1 && !message.canceled {
                let id = message.watch_id;
                return self.violation(format!("a response for watch {id}, which there is not"));
            }
            if message.canceled {
                return;
            }
            self.stats.count("progress notices of streams");
            for watch in s.by_id.values() {
                self.history.watches[*watch].responses.push((now, message.clone()));
            }
            return;
        };
        if message.canceled {
            s.by_id.remove(&message.watch_id);
            s.next.remove(&watch);
        } else if message.created {
            s.by_id.insert(message.watch_id, watch);
            let start = self.history.watches[watch].request.start_revision;
            let revision = message.header.as_ref().map_or(0, |h| h.revision);
            s.next.insert(watch, if start == 0 { revision + 1 } else { start });
        } else if events == 0 {
            self.stats.count("progress notices of watches");
        }
        if let (Some(event), false) = (message.events.last(), message.fragment) {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            s.next.entry(watch).and_modify(|next| *next = revision + 1);
        }
        self.stats.add("fragments", u64::from(message.fragment));
        self.stats.add("watches ended by a compaction", u64::from(message.compact_revision > 0));
        self.stats.add("events watched", events);
        self.history.watches[watch].responses.push((now, message));
    }

    /// The member hears that the client has read one more.
    pub(super) fn window(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        s.unread = s.unread.saturating_sub(1);
        if s.blocked {
            self.plan_poll(stream, 0);
        }
    }

    /// The client ends a stream.
    fn close_stream(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        (s.open, s.server) = (false, None);
        let watcher = s.watcher;
        self.lost(watcher, stream);
    }

    /// A client has lost its stream: it opens another one, and at times goes on where it was.
    pub(super) fn stream_lost(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        if std::mem::replace(&mut s.open, false) {
            s.server = None;
            let watcher = s.watcher;
            self.lost(watcher, stream);
        }
    }

    fn lost(&mut self, watcher: usize, stream: usize) {
        let number = self.next_client_number();
        let next = std::mem::take(&mut self.streams[stream].next);
        let w = &mut self.watchers[watcher];
        w.stream = None;
        w.number = number;
        if w.rng.chance(700) {
            w.resume = next
                .into_iter()
                .map(|(watch, start_revision)| WatchCreateRequest {
                    start_revision,
                    ..self.history.watches[watch].request.clone()
                })
                .collect();
        }
    }

    /// The process at the other end is gone.
    pub(super) fn cut_streams(&mut self, member: usize) {
        for stream in 0..self.streams.len() {
            let s = &mut self.streams[stream];
            if s.member == member && s.server.take().is_some() {
                let delay = self.network.stream_delay();
                let at = (self.now + delay).max(self.streams[stream].down);
                self.at(at, Event::StreamLost { stream });
            }
        }
    }

    /// Breaks the streams of a client that was cut off for too long.
    pub(super) fn break_streams(&mut self, watcher: usize) {
        if let Some(stream) = self.watchers[watcher].stream {
            self.streams[stream].server = None;
            self.stream_lost(stream);
        }
    }

    /// The readers read again.
    pub(super) fn wake_readers(&mut self) {
        for stream in 0..self.streams.len() {
            self.streams[stream].stalled_until = 0;
            self.after(0, Event::Read { stream });
        }
    }

    /// An open stream that has more to say, or whose client has not read it all.
    pub(super) fn undrained_stream(&self) -> Option<String> {
        let drained = |s: &Stream| !s.open || s.server.is_some() && s.unread == 0 && !s.blocked;
        let at = self.streams.iter().position(|s| !drained(s))?;
        let s = &self.streams[at];
        let end =
            if s.server.is_some() { "both ends are there" } else { "its member's end is gone" };
        let blocked = if s.blocked { ", blocked" } else { "" };
        let (unread, arrived) = (s.unread, s.arrived.len());
        Some(format!("stream {at}: {end}{blocked}, {unread} unread, {arrived} of them arrived"))
    }

    /// Notes the watches that were read to the end.
    pub(super) fn mark_drained(&mut self) {
        for stream in &self.streams {
            if stream.open && stream.server.is_some() && stream.unread == 0 {
                for watch in stream.by_id.values() {
                    self.history.watches[*watch].drained = true;
                }
            }
        }
    }
}

/// A message as the server sends it: header, the message's own fields, then the events.
fn encode(process: &Process, message: &OutMessage) -> BytesMut {
    let mut bytes = BytesMut::new();
    process.header.encode(message.revision, process.node.view().term(), &mut bytes, 1);
    message.encode_fields(&mut bytes);
    message.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
    bytes
}
