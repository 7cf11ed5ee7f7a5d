//! One gRPC watch stream: its watchers, and the order in which responses leave. Owned by the net thread
//! of its connection. Here are the client's requests and progress; the queue's events are in `deliver`,
//! history in `catchup`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::WatchCreateRequest;
use etch_api::pb::etcdserverpb::watch_create_request::FilterType;
use etch_api::{Error, KeyRange, Status};
use etch_disk::mutants::{self, Mutant};

use super::hub::Hub;
use super::queue::{Delivery, Doorbell, Queue, QueueBound};
use super::{HistorySource, OutMessage};
use crate::mvcc::{Budget, Event, EventKind};

/// The id in responses that mean no single watcher.
const NO_WATCHER: i64 = -1;
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// The bounds and intervals of a stream.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Events that the queue holds before the stream's watchers fall back to history.
    pub queue_events: usize,
    /// Bytes that the queue holds.
    pub queue_bytes: usize,
    /// One read of history.
    pub history: Budget,
    /// Where responses are cut for watchers that want fragments: `max-request-bytes` + 512 KiB.
    pub fragment_limit: usize,
    /// What a response header takes, tag and length included.
    pub header_len: usize,
    /// Milliseconds between periodic progress notices, with the jitter that the server drew for this
    /// stream.
    pub progress_interval_ms: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            queue_events: 8192,
            queue_bytes: 2 << 20,
            history: Budget { events: 1000, bytes: 1 << 20, visited: 5000 },
            fragment_limit: (1536 << 10) + (512 << 10),
            header_len: 32,
            progress_interval_ms: 600_000,
        }
    }
}

/// What a watcher wants of an event; watchers that want the same share the same pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    no_put: bool,
    no_delete: bool,
    pub(super) previous: bool,
    pub(super) fragment: bool,
}

impl Shape {
    fn of(request: &WatchCreateRequest) -> Self {
        let filtered = |kind| request.filters.contains(&(kind as i32));
        Self {
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            previous: request.prev_kv,
            fragment: request.fragment,
        }
    }

    pub(super) fn wants(self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// One watcher.
pub(super) struct Watcher {
    pub id: i64,
    pub range: KeyRange,
    pub shape: Shape,
    /// The revision that the client asked for; 0 if for none.
    pub start: i64,
    /// It sees nothing before this revision: either it has seen it, or it did not ask for it. While the
    /// watcher is synced this is the revision at which it joined.
    pub next: i64,
    /// Its subscription and place among the members, if it is synced.
    pub synced: Option<(u32, u32)>,
    /// For a watcher with periodic progress: whether the next notice is due, as nothing else was sent.
    pub progress: Option<bool>,
}

/// One range of this stream that the hub knows, and the synced watchers on it.
pub(super) struct Subscription {
    pub range: KeyRange,
    /// The hub sends events from this revision on.
    pub since: i64,
    /// The members, by what they want.
    pub members: Vec<(Shape, Vec<u32>)>,
    pub count: usize,
    /// Events taken from the queue and not yet made into messages.
    pub events: Vec<Arc<Event>>,
}

/// All watchers of one gRPC stream, and the messages that wait to leave on it.
///
/// Requests go in through [`create`](Self::create), [`cancel`](Self::cancel) and
/// [`request_progress`](Self::request_progress), time through [`tick`](Self::tick); everything to send
/// comes out of [`poll`](Self::poll), in the order in which it has to leave. Dropping it takes all
/// watchers out of the hub.
pub struct StreamState {
    pub(super) hub: Arc<Hub>,
    pub(super) slot: u32,
    pub(super) queue: Arc<Queue>,
    pub(super) config: StreamConfig,
    pub(super) watchers: Vec<Option<Watcher>>,
    free: Vec<u32>,
    pub(super) ids: BTreeMap<i64, u32>,
    next_id: i64,
    /// Ids of watchers that a compaction ended, until the client cancels them too.
    pub(super) ended: BTreeSet<i64>,
    pub(super) subscriptions: Vec<Option<Subscription>>,
    pub(super) free_subscriptions: Vec<u32>,
    pub(super) by_range: HashMap<KeyRange, u32>,
    /// Watchers that read history.
    pub(super) unsynced: VecDeque<u32>,
    /// Taken from the queue, last first.
    pub(super) inbox: Vec<Delivery>,
    /// Where the queue lost track, to be handled once the inbox is empty.
    pub(super) lost: Option<i64>,
    /// The last revision that left the inbox.
    pub(super) delivered: i64,
    /// Making messages failed; some events wait at their subscriptions.
    pub(super) retry: bool,
    control: Vec<OutMessage>,
    /// Progress requests of the client that were not answered yet.
    manual: u32,
    /// Watchers whose periodic progress notice is due.
    due: Vec<i64>,
    next_tick: u64,
    /// How many watchers want periodic progress.
    notifying: usize,
}

impl StreamState {
    /// A new stream on a hub. `token` is what the doorbell will call it.
    pub fn new(
        hub: &Arc<Hub>,
        doorbell: &Arc<Doorbell>,
        token: u64,
        now_ms: u64,
        config: StreamConfig,
    ) -> Self {
        let bound = QueueBound { events: config.queue_events, bytes: config.queue_bytes };
        let queue = Arc::new(Queue::new(bound, Arc::clone(doorbell), token));
        Self {
            slot: hub.add_stream(Arc::clone(&queue)),
            hub: Arc::clone(hub),
            queue,
            next_tick: now_ms + config.progress_interval_ms,
            config,
            watchers: Vec::new(),
            free: Vec::new(),
            ids: BTreeMap::new(),
            next_id: 0,
            ended: BTreeSet::new(),
            subscriptions: Vec::new(),
            free_subscriptions: Vec::new(),
            by_range: HashMap::new(),
            unsynced: VecDeque::new(),
            inbox: Vec::new(),
            lost: None,
            delivered: 0,
            retry: false,
            control: Vec::new(),
            manual: 0,
            due: Vec::new(),
            notifying: 0,
        }
    }

    /// A client's request for a watcher. `permission` is what authorization says about the request's key
    /// and range end.
    pub fn create(
        &mut self,
        request: &WatchCreateRequest,
        permission: Result<(), Error>,
        source: &dyn HistorySource,
    ) {
        if request.start_revision < 0 {
            return self.refuse(Error::Compacted.message().to_owned(), source);
        }
        if let Err(error) = permission {
            return self.refuse(Status::from(error).to_string(), source);
        }
        let zero = Bytes::from_static(b"\0");
        let key = if request.key.is_empty() { zero } else { request.key.clone() };
        let range = KeyRange::new(key, request.range_end.clone());
        if range.is_empty() {
            return self.refuse(EMPTY_RANGE.to_owned(), source);
        }
        let id = match request.watch_id {
            0 => self.automatic_id(),
            id if self.knows(id) => return self.refuse(DUPLICATE_ID.to_owned(), source),
            id => id,
        };
        let watcher = Watcher {
            id,
            range,
            shape: Shape::of(request),
            start: request.start_revision,
            next: request.start_revision,
            synced: None,
            progress: request.progress_notify.then_some(true),
        };
        let revision = self.place(watcher, source);
        self.control.push(OutMessage {
            revision,
            watch_id: id,
            created: true,
            ..OutMessage::default()
        });
    }

    /// A client's request to end a watcher; nothing happens if there is none with this id.
    pub fn cancel(&mut self, id: i64, source: &dyn HistorySource) {
        let known = match self.ids.remove(&id) {
            Some(at) => {
                self.remove(at);
                true
            }
            None => self.ended.remove(&id),
        };
        if known {
            self.control.push(OutMessage {
                revision: source.revision(),
                watch_id: id,
                canceled: true,
                ..OutMessage::default()
            });
        }
    }

    /// A client's request for progress. It is answered once all watchers are synced; not at all if there
    /// are none, or if one still waits for its first revision to come.
    pub fn request_progress(&mut self) {
        self.manual = self.manual.saturating_add(1);
    }

    /// Lets time pass: makes periodic progress notices due.
    pub fn tick(&mut self, now_ms: u64) {
        if now_ms < self.next_tick {
            return;
        }
        self.next_tick = now_ms + self.config.progress_interval_ms;
        self.due.clear();
        for (&id, &at) in &self.ids {
            let watcher = self.watchers[at as usize].as_mut().expect("an id leads to a watcher");
            if watcher.progress == Some(true) {
                self.due.push(id);
            }
            watcher.progress = watcher.progress.map(|_| true);
        }
    }

    /// When [`tick`](Self::tick) has something to do, if some watcher wants periodic progress.
    pub fn next_tick(&self) -> Option<u64> {
        (self.notifying > 0).then_some(self.next_tick)
    }

    /// Messages that wait for [`poll`](Self::poll) because the client asked for them. The server reads no
    /// more requests while there are many.
    pub fn backlog(&self) -> usize {
        self.control.len()
    }

    /// How many watchers there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no watcher.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Appends what can be sent now to `out`: about `budget` bytes of it, and at least something if there
    /// is anything. Says whether there is more to do without waiting for the doorbell.
    ///
    /// # Errors
    ///
    /// If history or a previous value cannot be read. Nothing was skipped; it may be called again.
    pub fn poll(
        &mut self,
        source: &dyn HistorySource,
        budget: usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<bool> {
        out.append(&mut self.control);
        let mut left = budget.max(1);
        let horizon = self.drain(source, &mut left, out)?;
        if horizon.is_some() {
            self.catch_up(source, &mut left, out)?;
        }
        let waits = self.progress(horizon, out);
        Ok(horizon.is_none() || !self.unsynced.is_empty() || waits)
    }

    /// Sends what waits in the queue. Returns the revision up to which nothing is left, if nothing is.
    fn drain(
        &mut self,
        source: &dyn HistorySource,
        left: &mut usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<Option<i64>> {
        loop {
            self.deliver(source, left, out)?;
            if !self.inbox.is_empty() || *left == 0 {
                return Ok(None);
            }
            if let Some(lost) = self.lost.take() {
                self.fall_back(lost);
            }
            // The hub's revision is read first: what it covers is in the queue by then.
            let horizon = self.hub.notified();
            self.lost = self.queue.take(&mut self.inbox);
            let taken = self.inbox.len() as i64;
            self.hub.counters().pending_events.fetch_sub(taken, Ordering::Relaxed);
            self.inbox.reverse();
            if self.inbox.is_empty() && self.lost.is_none() {
                return Ok(Some(horizon));
            }
        }
    }

    /// Sends the progress notices that may leave; says whether some have to wait.
    fn progress(&mut self, horizon: Option<i64>, out: &mut Vec<OutMessage>) -> bool {
        if self.manual == 0 && self.due.is_empty() {
            return false;
        }
        let Some(revision) = horizon else {
            return true;
        };
        let notice = |watch_id| OutMessage { revision, watch_id, ..OutMessage::default() };
        let mut waits = Vec::new();
        for id in std::mem::take(&mut self.due) {
            match self.ids.get(&id).map(|&at| self.standing(at, revision)) {
                Some(Standing::Ready) => out.push(notice(id)),
                Some(Standing::Shortly) => waits.push(id),
                Some(Standing::Behind | Standing::Future) | None => {}
            }
        }
        self.due = waits;
        let mut worst = Standing::Ready;
        if self.manual > 0 {
            worst = self
                .ids
                .values()
                .map(|&at| self.standing(at, revision))
                .max()
                .unwrap_or(Standing::Future);
        }
        match worst {
            Standing::Ready => {
                out.extend((0..self.manual).map(|_| notice(NO_WATCHER)));
                self.manual = 0;
            }
            Standing::Shortly | Standing::Behind => self.manual = 1,
            Standing::Future => self.manual = 0,
        }
        self.manual > 0 || !self.due.is_empty()
    }

    /// How a watcher stands to a progress notice for this revision.
    fn standing(&self, at: u32, revision: i64) -> Standing {
        let watcher = self.watcher(at);
        if mutants::on(Mutant::I15220) {
            Standing::Ready
        } else if watcher.synced.is_none() {
            Standing::Behind
        } else if watcher.start > revision {
            Standing::Future
        } else if watcher.next > revision + 1 {
            Standing::Shortly
        } else {
            Standing::Ready
        }
    }

    /// Answers a create request that fails.
    fn refuse(&mut self, reason: String, source: &dyn HistorySource) {
        if mutants::on(Mutant::I14562) {
            self.cancel(0, source);
        }
        self.control.push(OutMessage {
            revision: source.revision(),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason.into(),
            ..OutMessage::default()
        });
    }

    fn knows(&self, id: i64) -> bool {
        self.ids.contains_key(&id) || self.ended.contains(&id)
    }

    fn automatic_id(&mut self) -> i64 {
        while self.knows(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Puts a new watcher among the synced ones, or among those that read history. Returns the store's
    /// revision as the watcher was created.
    fn place(&mut self, mut watcher: Watcher, source: &dyn HistorySource) -> i64 {
        let (start, id) = (watcher.start, watcher.id);
        self.hub.counters().watchers.fetch_add(1, Ordering::Relaxed);
        self.notifying += usize::from(watcher.progress.is_some());
        let live = start == 0 && !mutants::on(Mutant::I11496) || start > source.revision();
        let subscription = live.then(|| self.subscribe(&watcher.range));
        // Read after the subscription stands: whatever comes later goes through the queue.
        let revision = source.revision();
        if live && (start == 0 || mutants::on(Mutant::I20221)) {
            watcher.next = revision + 1;
        }
        let next = watcher.next;
        let at = self.free.pop().unwrap_or(self.watchers.len() as u32);
        match self.watchers.get_mut(at as usize) {
            Some(place) => *place = Some(watcher),
            None => self.watchers.push(Some(watcher)),
        }
        self.ids.insert(id, at);
        match subscription {
            Some(subscription) if next > revision => self.enlist(at, subscription),
            other => {
                self.defer(at);
                if let Some(subscription) = other {
                    self.release(subscription);
                }
            }
        }
        revision
    }

    pub(super) fn watcher(&self, at: u32) -> &Watcher {
        self.watchers[at as usize].as_ref().expect("a watcher in use is in its place")
    }

    pub(super) fn watcher_mut(&mut self, at: u32) -> &mut Watcher {
        self.watchers[at as usize].as_mut().expect("a watcher in use is in its place")
    }

    /// Takes out a watcher whose id is out already.
    pub(super) fn remove(&mut self, at: u32) {
        match self.watcher(at).synced {
            Some((subscription, place)) => self.dismiss(subscription, at, place),
            None => {
                if let Some(position) = self.unsynced.iter().position(|&other| other == at) {
                    self.unsynced.remove(position);
                }
                self.hub.left_history();
            }
        }
        self.notifying -= usize::from(self.watcher(at).progress.is_some());
        self.watchers[at as usize] = None;
        self.free.push(at);
        self.hub.counters().watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts a watcher among those that read history.
    pub(super) fn defer(&mut self, at: u32) {
        self.unsynced.push_back(at);
        self.hub.counters().slow_watchers.fetch_add(1, Ordering::Relaxed);
    }
}

/// How far a watcher is from a progress notice, nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// All up to the revision was sent.
    Ready,
    /// It has read history beyond the hub's revision, which the hub is about to reach.
    Shortly,
    /// It reads history.
    Behind,
    /// The revision that it starts at is yet to come.
    Future,
}

impl Drop for StreamState {
    fn drop(&mut self) {
        let all = self.subscriptions.iter().enumerate();
        let all = all.filter_map(|(at, s)| s.as_ref().map(|s| (at as u32, &s.range)));
        self.hub.unsubscribe(self.slot, all);
        self.hub.remove_stream(self.slot);
        for _ in 0..self.unsynced.len() {
            self.hub.left_history();
        }
        self.inbox.clear();
        self.queue.take(&mut self.inbox);
        let counters = self.hub.counters();
        counters.watchers.fetch_sub(self.ids.len() as i64, Ordering::Relaxed);
        counters.pending_events.fetch_sub(self.inbox.len() as i64, Ordering::Relaxed);
    }
}
