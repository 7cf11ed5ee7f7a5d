//! Watches of clients. Those of the same keys share one watch of the cluster (`group`), and each keeps its own
//! id, its own beginning and its own permission: before a watch is created, the cluster is asked with the client's
//! token whether it may and where the store is. Not here: the cluster's side (`group`).
//!
//! A client that does not read has a bounded queue. When it is full its watchers leave their groups and remember
//! where they were; when it is empty they come back from there, so a slow client costs itself alone.

mod group;
mod heads;
mod hub;
mod lane;
mod members;
mod share;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_api::pb::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use etch_rpc::{CallInfo, Code, MessageStream, Payload, Status, StreamSender};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use http::HeaderMap;
use prost::Message as _;
use tokio::sync::Notify;

use super::Proxy;
use super::forward::headers;
pub(super) use group::Group;
use heads::{Head, Heads};
pub(super) use hub::Hub;
use members::Member;

/// Bytes that wait for a client at the most, besides one message.
const QUEUE: usize = 4 << 20;
/// A message up to this length is copied for each of its watchers, into a buffer that all share.
const SMALL: usize = 1 << 10;
/// Beyond so many bytes in its queue a client has no share in that buffer: it would keep it for long.
const SHARES: usize = 16 << 10;
/// Questions of one stream for where the store is, at a time.
const ASKED: usize = 256;
/// The id in answers that belong to no watcher.
const NOBODY: i64 = -1;

/// What a watch sees: watches that agree in all of it share one of the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct What {
    key: Bytes,
    end: Bytes,
    filters: Vec<i32>,
    prev_kv: bool,
    fragment: bool,
    /// Whether the stream shall end without a leader.
    leader: bool,
}

impl What {
    /// Everything that happens to these keys.
    pub(super) fn all(key: Bytes, end: Bytes) -> Self {
        Self { key, end, filters: Vec::new(), prev_kv: false, fragment: false, leader: false }
    }

    /// The same, without the message that its keys came in.
    fn compact(&self) -> Self {
        Self {
            key: Bytes::copy_from_slice(&self.key),
            end: Bytes::copy_from_slice(&self.end),
            ..self.clone()
        }
    }

    fn is_range(&self) -> bool {
        !self.end.is_empty()
    }

    /// Whether this is a range with that key in it.
    fn has(&self, key: &[u8]) -> bool {
        self.is_range() && self.key <= key && (&self.end[..] == b"\0" || key < &self.end[..])
    }

    /// Whether this is a range that has all of another in it, and sees it alike.
    fn covers(&self, other: &Self) -> bool {
        let alike = self.filters == other.filters
            && (self.prev_kv, self.fragment, self.leader)
                == (other.prev_kv, other.fragment, other.leader);
        let open = &self.end[..] == b"\0";
        let ends = !other.is_range() || open || (&other.end[..] != b"\0" && other.end <= self.end);
        alike && self != other && self.has(&other.key) && ends
    }
}

/// One client's stream.
struct Client {
    proxy: Rc<Proxy>,
    headers: HeaderMap,
    queue: RefCell<VecDeque<Payload>>,
    queued: Cell<usize>,
    wake: Notify,
    watchers: RefCell<HashMap<i64, Watcher>>,
    next_id: Cell<i64>,
    /// How many watchers there have ever been.
    created: Cell<u64>,
    /// Ids of watches whose history was gone: a member keeps them taken until they are cancelled.
    spent: RefCell<HashSet<i64>>,
    /// Whether an answer to a wish for progress is waited for, and whether there was another wish since.
    asking: Cell<bool>,
    again: Cell<bool>,
    ended: RefCell<Option<Status>>,
}

struct Watcher {
    what: Rc<What>,
    progress: bool,
    place: Place,
}

/// Where a watcher gets its events from.
enum Place {
    Group(Rc<Group>),
    /// From nowhere until the queue is empty; then from this revision on.
    Behind(i64),
}

/// A client's wish to hear how far its stream has come, once all its groups have said so.
struct Ticket {
    client: Rc<Client>,
    /// The watchers that the stream had ever had when it asked.
    created: u64,
    /// Whether its answer is given even if there was another wish since.
    is_last: bool,
    left: Cell<usize>,
    least: Cell<Option<ResponseHeader>>,
}

/// Serves one watch stream.
pub(super) async fn serve(
    proxy: Rc<Proxy>,
    call: CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    let mut headers = headers(&call);
    // The groups' streams outlive this one's time.
    headers.remove("grpc-timeout");
    let client = Rc::new(Client::new(proxy, headers));
    let _gone = Gone(Rc::clone(&client));
    let ended = tokio::select! {
        ended = client.write(&sender) => ended,
        ended = client.read(&mut messages) => ended,
    };
    ended.err().unwrap_or(Status::OK)
}

/// Takes a client's watchers out of their groups when its stream is over, however it ended.
struct Gone(Rc<Client>);

impl Drop for Gone {
    fn drop(&mut self) {
        let watchers = std::mem::take(&mut *self.0.watchers.borrow_mut());
        let hub = &self.0.proxy.hub;
        hub.watchers.set(hub.watchers.get() - watchers.len());
        let mut left = HashSet::new();
        for watcher in watchers.into_values() {
            if let Place::Group(group) = watcher.place
                && left.insert(Rc::as_ptr(&group))
            {
                group.leave_all(&self.0);
            }
        }
    }
}

impl Client {
    fn new(proxy: Rc<Proxy>, headers: HeaderMap) -> Self {
        Self {
            proxy,
            headers,
            queue: RefCell::default(),
            queued: Cell::new(0),
            wake: Notify::new(),
            watchers: RefCell::default(),
            next_id: Cell::new(0),
            created: Cell::new(0),
            spent: RefCell::default(),
            asking: Cell::new(false),
            again: Cell::new(false),
            ended: RefCell::default(),
        }
    }

    /// Sends what is queued, and brings watchers back that had to leave.
    async fn write(self: &Rc<Self>, sender: &StreamSender) -> Result<(), Status> {
        loop {
            sender.send_batch(std::iter::from_fn(|| self.pop())).await?;
            if let Some(status) = self.ended.borrow_mut().take() {
                return Err(status);
            }
            self.come_back();
            self.wake.notified().await;
        }
    }

    fn pop(&self) -> Option<Payload> {
        let payload = self.queue.borrow_mut().pop_front()?;
        self.queued.set(self.queued.get() - payload.message_len());
        self.proxy.calls.watch().sent(payload.messages());
        Some(payload)
    }

    /// Takes requests in their order. The questions that watches begin with travel side by side.
    async fn read(self: &Rc<Self>, messages: &mut MessageStream) -> Result<(), Status> {
        let mut asked = FuturesOrdered::new();
        let mut ended = false;
        loop {
            let message = tokio::select! {
                biased;
                Some((create, head)) = asked.next() => {
                    self.take(create, head)?;
                    continue;
                }
                message = messages.next(), if !ended && asked.len() < ASKED => message?,
                // Who asks no more may still listen.
                else => return std::future::pending().await,
            };
            let Some(message) = message else {
                ended = true;
                continue;
            };
            self.proxy.calls.watch().received();
            let request = WatchRequest::decode(message).map_err(|error| {
                Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}"))
            })?;
            let Some(request) = request.request_union else { continue };
            asked.push_back(async move {
                let head = match &request {
                    RequestUnion::CreateRequest(create) => Some(self.head(create).await),
                    RequestUnion::CancelRequest(_) => {
                        Heads::hear(&self.proxy, &self.headers).await;
                        None
                    }
                    RequestUnion::ProgressRequest(_) => None,
                };
                (request, head)
            });
        }
    }

    /// Carries a request out, once it is its turn.
    fn take(self: &Rc<Self>, request: RequestUnion, head: Option<Head>) -> Result<(), Status> {
        match (request, head) {
            (RequestUnion::CreateRequest(request), Some(head)) => {
                return self.create(request, head);
            }
            (RequestUnion::CancelRequest(request), _) => self.cancel(request.watch_id),
            (RequestUnion::ProgressRequest(_), _) => self.progress(),
            (RequestUnion::CreateRequest(_), None) => {}
        }
        Ok(())
    }

    fn create(self: &Rc<Self>, mut request: WatchCreateRequest, head: Head) -> Result<(), Status> {
        if request.start_revision < 0 {
            let header = head.ok().or(self.proxy.hub.head());
            self.refuse(
                header,
                "etcdserver: mvcc: required revision has been compacted".to_owned(),
            );
            return Ok(());
        }
        let header = match head {
            Ok(header) => header,
            Err(status) if is_refusal(&status) => {
                let why =
                    format!("rpc error: code = {} desc = {}", status.code.name(), status.message);
                self.refuse(self.proxy.hub.head(), why);
                return Ok(());
            }
            Err(status) => return Err(status),
        };
        let open = request.range_end.as_ref() == b"\0";
        if !request.range_end.is_empty() && !open && key(&request) >= request.range_end {
            self.refuse(Some(header), "mvcc: watcher range is empty".to_owned());
            return Ok(());
        }
        let Some(id) = self.choose_id(request.watch_id) else {
            let why = "mvcc: duplicate watch ID provided on the WatchStream".to_owned();
            self.refuse(Some(header), why);
            return Ok(());
        };
        let at_head = request.start_revision == 0;
        let from = if at_head { header.revision + 1 } else { request.start_revision };
        let created =
            WatchResponse { header: Some(header), watch_id: id, created: true, ..<_>::default() };
        self.push(created.encode_to_vec().into());
        request.key = key(&request);
        self.under_namespace(&mut request.key, &mut request.range_end)?;
        let what = What {
            key: request.key,
            end: request.range_end,
            filters: request.filters,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            leader: self.headers.contains_key("hasleader"),
        };
        let member =
            Member { client: Rc::clone(self), id, from, progress: request.progress_notify };
        let group = self.proxy.hub.join(&self.proxy, &what, member, at_head);
        let what = Rc::clone(group.what());
        let watcher =
            Watcher { what, progress: request.progress_notify, place: Place::Group(group) };
        self.watchers.borrow_mut().insert(id, watcher);
        self.created.set(self.created.get() + 1);
        let hub = &self.proxy.hub;
        hub.watchers.set(hub.watchers.get() + 1);
        Ok(())
    }

    fn under_namespace(&self, key: &mut Bytes, end: &mut Bytes) -> Result<(), Status> {
        match self.proxy.keys.namespace() {
            None => Ok(()),
            Some(namespace) => {
                namespace.add_range(key, end).map_err(|error| crate::grpc::status(&error))
            }
        }
    }

    /// Where the store is, asked with the client's own token, which must be good for the keys.
    async fn head(&self, request: &WatchCreateRequest) -> Head {
        let (mut key, mut end) = (key(request), request.range_end.clone());
        self.under_namespace(&mut key, &mut end)?;
        Heads::ask(&self.proxy, &self.headers, &key, &end).await
    }

    /// The id that was asked for, or the next one that is free; none if it is taken.
    fn choose_id(&self, asked: i64) -> Option<i64> {
        let (watchers, spent) = (self.watchers.borrow(), self.spent.borrow());
        let is_taken = |id: i64| watchers.contains_key(&id) || spent.contains(&id);
        if asked != 0 {
            return (!is_taken(asked)).then_some(asked);
        }
        let mut id = self.next_id.get();
        while is_taken(id) {
            id += 1;
        }
        self.next_id.set(id + 1);
        Some(id)
    }

    fn refuse(&self, header: Option<ResponseHeader>, why: String) {
        let refused = WatchResponse {
            header,
            watch_id: NOBODY,
            created: true,
            canceled: true,
            cancel_reason: why,
            ..WatchResponse::default()
        };
        self.push(refused.encode_to_vec().into());
    }

    fn cancel(self: &Rc<Self>, id: i64) {
        match self.remove(id) {
            Some(Watcher { place: Place::Group(group), .. }) => group.leave(self, id),
            Some(_) => {}
            None if self.spent.borrow_mut().remove(&id) => {}
            None => return,
        }
        let header = self.proxy.hub.head();
        let cancelled =
            WatchResponse { header, watch_id: id, canceled: true, ..WatchResponse::default() };
        self.push(cancelled.encode_to_vec().into());
    }

    fn remove(&self, id: i64) -> Option<Watcher> {
        let watcher = self.watchers.borrow_mut().remove(&id)?;
        let hub = &self.proxy.hub;
        hub.watchers.set(hub.watchers.get() - 1);
        Some(watcher)
    }

    /// Asks all groups of this stream how far they are. Wishes that come before the answer have one more together.
    fn progress(self: &Rc<Self>) {
        if self.asking.get() {
            return self.again.set(true);
        }
        self.ask_progress(false);
    }

    fn ask_progress(self: &Rc<Self>, is_last: bool) {
        let mut groups: Vec<Rc<Group>> = Vec::new();
        let mut known = HashSet::new();
        for watcher in self.watchers.borrow().values() {
            match &watcher.place {
                Place::Group(group) => {
                    if known.insert(Rc::as_ptr(group)) {
                        groups.push(Rc::clone(group));
                    }
                }
                // One that is behind has no progress to tell of.
                Place::Behind(_) => return,
            }
        }
        // Where nothing is watched there is no progress.
        if groups.is_empty() {
            return;
        }
        self.asking.set(true);
        let ticket = Rc::new(Ticket {
            client: Rc::clone(self),
            created: self.created.get(),
            is_last,
            left: Cell::new(groups.len()),
            least: Cell::new(None),
        });
        groups.iter().for_each(|group| group.ask(Rc::clone(&ticket)));
    }

    fn push_progress(&self, header: Option<ResponseHeader>) {
        let progress = WatchResponse { header, watch_id: NOBODY, ..WatchResponse::default() };
        self.push(progress.encode_to_vec().into());
    }

    fn push(&self, payload: Payload) {
        self.queued.set(self.queued.get() + payload.message_len());
        self.queue.borrow_mut().push_back(payload);
        self.wake.notify_one();
    }

    /// Whether so much more may wait. One answer always may, however large it is.
    fn has_room(&self, len: usize) -> bool {
        self.queued.get() == 0 || self.queued.get() + len <= QUEUE
    }

    /// Queues a message of the cluster's, which bears no id, under a watcher's. Fields may come in any order, so the
    /// id goes in front.
    fn deliver(&self, id: i64, message: &Bytes) {
        if message.len() <= SMALL && self.queued.get() <= SHARES {
            let mut buffer = self.proxy.hub.buffer.borrow_mut();
            let out = buffer.begin();
            prost::encoding::int64::encode(2, &id, out);
            out.put_slice(message);
            return self.push(buffer.end());
        }
        let mut head = BytesMut::with_capacity(11);
        prost::encoding::int64::encode(2, &id, &mut head);
        self.push(Payload::pieces(vec![head.freeze(), message.clone()]));
    }

    /// A watcher has left its group because there was no room for the events from `revision` on.
    fn fell_behind(&self, id: i64, revision: i64) {
        if let Some(watcher) = self.watchers.borrow_mut().get_mut(&id) {
            watcher.place = Place::Behind(revision);
        }
    }

    /// Brings watchers back that had fallen behind.
    fn come_back(self: &Rc<Self>) {
        for (id, watcher) in &mut *self.watchers.borrow_mut() {
            let Place::Behind(from) = watcher.place else { continue };
            let member =
                Member { client: Rc::clone(self), id: *id, from, progress: watcher.progress };
            let group = self.proxy.hub.join(&self.proxy, &watcher.what, member, false);
            watcher.place = Place::Group(group);
        }
    }

    /// Another group has taken a watcher over.
    fn moved(&self, id: i64, group: &Rc<Group>) {
        if let Some(watcher) = self.watchers.borrow_mut().get_mut(&id) {
            watcher.place = Place::Group(Rc::clone(group));
        }
    }

    /// Ends the stream once what is queued has been sent.
    fn end(&self, status: Status) {
        *self.ended.borrow_mut() = Some(status);
        self.wake.notify_one();
    }
}

impl Ticket {
    /// One group more has answered, or is no more.
    fn answered(&self, header: Option<ResponseHeader>) {
        let least = self.least.get();
        if least.is_none_or(|least| header.is_some_and(|h| h.revision < least.revision)) {
            self.least.set(header);
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() > 0 {
            return;
        }
        let client = &self.client;
        client.asking.set(false);
        let again = client.again.take();
        if client.created.get() != self.created {
            // What was said does not hold for watchers that came after the question.
            return client.ask_progress(self.is_last);
        }
        if again && !self.is_last {
            return client.ask_progress(true);
        }
        let is_behind = |watcher: &Watcher| matches!(watcher.place, Place::Behind(_));
        if !client.watchers.borrow().values().any(is_behind) {
            client.push_progress(self.least.get().or(client.proxy.hub.head()));
        }
        if again {
            client.ask_progress(false);
        }
    }
}

impl Drop for Ticket {
    /// Where nobody answers, another wish may be told of.
    fn drop(&mut self) {
        if self.left.get() > 0 {
            self.client.asking.set(false);
        }
    }
}

/// The key of a watch; none means the first there can be.
fn key(request: &WatchCreateRequest) -> Bytes {
    if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() }
}

/// Whether the cluster has said no to this client, and not merely failed to answer.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument)
}
