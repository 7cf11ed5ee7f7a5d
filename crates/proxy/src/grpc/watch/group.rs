//! One watch of the cluster, and the watchers that share it. It is made again wherever it broke off, from the
//! first event that nobody has seen. Not here: what becomes of a client's queue (`mod`).

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_api::pb::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use etch_api::pb::mvccpb::Event;
use etch_client::Namespace;
use etch_rpc::{Code, Status};
use http::HeaderMap;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Client, NOBODY, Ticket, What, is_refusal};
use crate::grpc::Proxy;
use crate::grpc::cache::Entry;
use crate::grpc::wire::{Incoming, Outgoing};

/// Between attempts to watch again, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Before a member is asked again how far a watch is, and how often in all.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASK_TIMES: u32 = 20;

type Tickets = Vec<Rc<Ticket>>;

/// A watcher in a group.
pub(super) struct Member {
    /// Whose it is.
    pub(super) client: Rc<Client>,
    /// What its client calls it.
    pub(super) id: i64,
    /// The first revision that it wants.
    pub(super) from: i64,
    /// Whether it wants to hear of progress from time to time.
    pub(super) progress: bool,
}

/// One watch of the cluster.
pub(in crate::grpc) struct Group {
    what: What,
    start: i64,
    /// Whether it began where the store was.
    at_head: bool,
    /// All events before this revision have been given to the members.
    next: Cell<i64>,
    /// Whether it has caught up with where the store was when it began.
    level: Cell<bool>,
    /// Where the store was then.
    target: Cell<i64>,
    members: RefCell<Vec<Member>>,
    /// Answers that are kept as long as nothing happens here.
    followers: RefCell<Vec<Rc<Entry>>>,
    /// Whether the cluster has said that it watches, and the stream has not broken off.
    live: Cell<bool>,
    /// Wishes for progress: not yet sent, and sent.
    tickets: RefCell<(Tickets, Tickets)>,
    asked: Notify,
    task: RefCell<Option<AbortHandle>>,
}

/// A message for all members: as it came, and whose revisions it holds.
struct Batch {
    raw: Bytes,
    response: WatchResponse,
    first: i64,
    last: i64,
}

impl Group {
    /// From this revision on, for nobody yet.
    pub(super) fn new(what: What, from: i64, at_head: bool) -> Self {
        Self {
            what,
            start: from,
            at_head,
            next: Cell::new(from),
            level: Cell::new(at_head),
            target: Cell::new(0),
            members: RefCell::default(),
            followers: RefCell::default(),
            live: Cell::new(false),
            tickets: RefCell::default(),
            asked: Notify::new(),
            task: RefCell::default(),
        }
    }

    /// What runs it.
    pub(super) fn runs(&self, task: AbortHandle) {
        *self.task.borrow_mut() = Some(task);
    }

    /// What it sees.
    pub(super) fn what(&self) -> &What {
        &self.what
    }

    /// Whether one that begins there misses nothing here, and does not have to wait for others' history.
    pub(super) fn can_take(&self, from: i64) -> bool {
        self.next.get() <= from && (self.level.get() || self.start == from)
    }

    /// Whether both are at the same place and have no history left.
    pub(super) fn is_as_far_as(&self, other: &Group) -> bool {
        self.next.get() == other.next.get() && self.level.get() && other.level.get()
    }

    /// One more.
    pub(super) fn add(&self, member: Member) {
        self.members.borrow_mut().push(member);
    }

    /// An answer that is kept.
    pub(super) fn add_follower(&self, entry: &Rc<Entry>) {
        self.followers.borrow_mut().push(Rc::clone(entry));
    }

    /// Whether what is kept is true as long as nothing happens.
    pub(in crate::grpc) fn is_live(&self) -> bool {
        self.live.get()
    }

    /// An answer is not kept any more.
    pub(in crate::grpc) fn unfollow(self: &Rc<Self>, proxy: &Proxy, entry: &Rc<Entry>) {
        self.followers.borrow_mut().retain(|known| !Rc::ptr_eq(known, entry));
        self.end_if_empty(proxy);
    }

    /// Those answers do not hold any more that were made before a revision.
    fn tell_followers(&self, proxy: &Proxy, before: i64) {
        let followers = std::mem::take(&mut *self.followers.borrow_mut());
        let (stale, rest): (Vec<_>, Vec<_>) =
            followers.into_iter().partition(|entry| entry.from <= before);
        *self.followers.borrow_mut() = rest;
        stale.iter().for_each(|entry| proxy.cache.forget(proxy, entry));
    }

    /// A client's watcher leaves.
    pub(super) fn leave(self: &Rc<Self>, client: &Rc<Client>, id: i64) {
        self.members.borrow_mut().retain(|m| m.id != id || !Rc::ptr_eq(&m.client, client));
        self.end_if_empty(&client.proxy);
    }

    /// All of a client's watchers leave.
    pub(super) fn leave_all(self: &Rc<Self>, client: &Rc<Client>) {
        self.members.borrow_mut().retain(|m| !Rc::ptr_eq(&m.client, client));
        self.end_if_empty(&client.proxy);
    }

    fn end_if_empty(self: &Rc<Self>, proxy: &Proxy) {
        if self.members.borrow().is_empty() && self.followers.borrow().is_empty() {
            self.end(proxy);
        }
    }

    fn end(self: &Rc<Self>, proxy: &Proxy) {
        proxy.hub.remove(self);
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
        self.live.set(false);
        self.tell_followers(proxy, i64::MAX);
        // Nobody waits for a group that is no more.
        let (new, sent) = std::mem::take(&mut *self.tickets.borrow_mut());
        new.into_iter().chain(sent).for_each(|ticket| ticket.answered(None));
    }

    /// Asks the cluster how far this watch is.
    pub(super) fn ask(&self, ticket: Rc<Ticket>) {
        self.tickets.borrow_mut().0.push(ticket);
        self.asked.notify_one();
    }

    /// In whose name the cluster is asked: each member has shown that it may.
    fn headers(&self) -> Option<HeaderMap> {
        let members = self.members.borrow();
        let first = members.first().map(|member| member.client.headers.clone());
        first.or_else(|| self.followers.borrow().first().map(|entry| entry.headers.clone()))
    }

    /// One watch, until it breaks off.
    async fn session(self: &Rc<Self>, proxy: &Rc<Proxy>, headers: &HeaderMap) -> Status {
        let path = "/etcdserverpb.Watch/Watch";
        let (mut out, mut incoming) = match proxy.upstream.stream(path, headers).await {
            Ok(both) => both,
            Err(status) => return status,
        };
        match self.watch(proxy, &mut out, &mut incoming).await {
            Ok(()) => Status::new(Code::Unavailable, "the watch has ended"),
            Err(status) => status,
        }
    }

    async fn watch(
        self: &Rc<Self>,
        proxy: &Rc<Proxy>,
        out: &mut Outgoing,
        incoming: &mut Incoming,
    ) -> Result<(), Status> {
        out.send(&self.create_request()).await?;
        let mut parts = Vec::new();
        let mut asked = 0;
        loop {
            tokio::select! {
                message = incoming.next() => {
                    let Some(raw) = message? else { return Ok(()) };
                    self.take(proxy, raw, &mut parts)?;
                }
                () = self.asked.notified() => {
                    {
                        let (new, sent) = &mut *self.tickets.borrow_mut();
                        sent.append(new);
                    }
                    asked = 1;
                    out.send(&progress_request()).await?;
                }
                // A member says nothing while it still reads history.
                () = tokio::time::sleep(ASK_AGAIN), if !self.tickets.borrow().1.is_empty() => {
                    asked += 1;
                    if asked <= ASK_TIMES {
                        out.send(&progress_request()).await?;
                    } else {
                        drop(std::mem::take(&mut self.tickets.borrow_mut().1));
                    }
                }
            }
        }
    }

    fn create_request(&self) -> Bytes {
        let create = WatchCreateRequest {
            key: self.what.key.clone(),
            range_end: self.what.end.clone(),
            start_revision: self.place(),
            progress_notify: true,
            filters: self.what.filters.clone(),
            prev_kv: self.what.prev_kv,
            watch_id: 0,
            fragment: self.what.fragment,
        };
        let union = Some(RequestUnion::CreateRequest(create));
        WatchRequest { request_union: union }.encode_to_vec().into()
    }

    /// Where the cluster is asked to begin. A member does not tell how far a watch is that begins in its future, so
    /// one that has caught up begins with the last revision that it has seen, which is then passed over.
    fn place(&self) -> i64 {
        let next = self.next.get();
        if next > self.start || self.at_head { next - 1 } else { next }
    }

    /// A message of the cluster's.
    fn take(
        self: &Rc<Self>,
        proxy: &Rc<Proxy>,
        raw: Bytes,
        parts: &mut Vec<Batch>,
    ) -> Result<(), Status> {
        let response = WatchResponse::decode(raw.clone())
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        proxy.hub.note(response.header);
        let revision = response.header.map_or(0, |header| header.revision);
        if response.canceled {
            self.cancelled(proxy, &response);
        } else if response.created {
            self.live.set(true);
            self.target.set(revision);
            self.level.set(self.level.get() || self.next.get() > revision);
        } else if response.watch_id == NOBODY {
            let answered = std::mem::take(&mut self.tickets.borrow_mut().1);
            answered.iter().for_each(|ticket| ticket.answered(response.header));
        } else if response.events.is_empty() {
            self.next.set(self.next.get().max(revision + 1));
            self.level.set(true);
            let members = self.members.borrow();
            for member in members.iter().filter(|member| member.progress) {
                // One that has no room needs no word that there is nothing.
                if member.client.has_room(raw.len()) {
                    member.client.deliver(member.id, &raw);
                }
            }
        } else {
            let more_follows = response.fragment;
            parts.push(Batch::new(proxy.keys.namespace(), self.next.get(), raw, response));
            // All parts of an answer are given out together, so that a break between them repeats none.
            if !more_follows {
                self.give_out(proxy, &std::mem::take(parts));
            }
        }
        self.become_one(proxy);
        Ok(())
    }

    /// Gives an answer, in its parts, to all members: each gets all of it or, if it has no room, none.
    fn give_out(&self, proxy: &Proxy, parts: &[Batch]) {
        let len = parts.iter().map(|part| part.raw.len()).sum();
        // All of a part may have been seen before.
        let parts = || parts.iter().filter(|part| part.last > 0);
        let first = parts().map(|part| part.first).min().unwrap_or_default();
        let last = parts().map(|part| part.last).max().unwrap_or_default();
        let events: usize = parts().map(|part| part.response.events.len()).sum();
        if events == 0 {
            return;
        }
        let mut behind = Vec::new();
        let mut given = 0;
        for (at, member) in self.members.borrow().iter().enumerate() {
            if last < member.from {
                continue;
            }
            if !member.client.has_room(len) {
                behind.push((at, first.max(member.from)));
                continue;
            }
            given += events as u64;
            for part in parts().filter(|part| part.last >= member.from) {
                if part.first >= member.from {
                    member.client.deliver(member.id, &part.raw);
                } else {
                    member.client.deliver(member.id, &part.since(member.from));
                }
            }
        }
        self.tell_followers(proxy, last);
        proxy.hub.events.set(proxy.hub.events.get() + given);
        for (at, revision) in behind.into_iter().rev() {
            let member = self.members.borrow_mut().swap_remove(at);
            member.client.fell_behind(member.id, revision);
        }
        self.next.set(self.next.get().max(last + 1));
        self.level.set(self.level.get() || last >= self.target.get());
    }

    /// Takes over the members of a group that is exactly as far.
    fn become_one(self: &Rc<Self>, proxy: &Proxy) {
        if self.members.borrow().is_empty() && self.followers.borrow().is_empty() {
            return self.end(proxy);
        }
        while let Some(twin) = proxy.hub.twin(self) {
            for member in twin.members.borrow_mut().drain(..) {
                member.client.moved(member.id, self);
                self.members.borrow_mut().push(member);
            }
            let (new, sent) = std::mem::take(&mut *twin.tickets.borrow_mut());
            new.into_iter().chain(sent).for_each(|ticket| self.ask(ticket));
            twin.end(proxy);
        }
    }

    /// The cluster has ended this watch. Who is past what was compacted goes on; who was refused although its
    /// client may read, is told so, and the others try in their own name.
    fn cancelled(self: &Rc<Self>, proxy: &Rc<Proxy>, response: &WatchResponse) {
        let members = std::mem::take(&mut *self.members.borrow_mut());
        let compacted = response.compact_revision;
        let refused = response.created && compacted == 0;
        self.end(proxy);
        for (at, mut member) in members.into_iter().enumerate() {
            let place = member.from.max(self.next.get());
            if (compacted > 0 && place >= compacted) || (refused && at > 0) {
                member.from = place;
                let (client, id) = (Rc::clone(&member.client), member.id);
                let group = proxy.hub.join(proxy, &self.what, member, false);
                client.moved(id, &group);
                continue;
            }
            let told = WatchResponse {
                header: response.header,
                watch_id: member.id,
                canceled: true,
                compact_revision: compacted,
                cancel_reason: response.cancel_reason.clone(),
                ..WatchResponse::default()
            };
            member.client.remove(member.id);
            if compacted > 0 {
                member.client.spent.borrow_mut().insert(member.id);
            }
            member.client.push(told.encode_to_vec().into());
        }
    }
}

impl Batch {
    /// The raw message is sent on, so it must bear no id: ours is the only watch on its stream, whose id is 0.
    /// What is before `from` has been seen already.
    fn new(
        namespace: Option<&Namespace>,
        from: i64,
        raw: Bytes,
        mut response: WatchResponse,
    ) -> Self {
        let is_new = response.events.iter().all(|event| revision(event) >= from);
        let raw = if response.watch_id == 0 && namespace.is_none() && is_new {
            raw
        } else {
            response.watch_id = 0;
            response.events.retain(|event| revision(event) >= from);
            if let Some(namespace) = namespace {
                for event in &mut response.events {
                    namespace.strip_all(event.kv.as_mut_slice());
                    namespace.strip_all(event.prev_kv.as_mut_slice());
                }
            }
            response.encode_to_vec().into()
        };
        let revisions = || response.events.iter().map(revision);
        let (first, last) = (revisions().min(), revisions().max());
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        Self { raw, response, first, last }
    }

    /// The same without what is before a revision.
    fn since(&self, from: i64) -> Bytes {
        let mut response = self.response.clone();
        response.events.retain(|event| revision(event) >= from);
        response.encode_to_vec().into()
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn progress_request() -> Bytes {
    let union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    WatchRequest { request_union: union }.encode_to_vec().into()
}

/// Keeps a group's watch for as long as anybody is in it.
pub(super) async fn run(group: Rc<Group>, proxy: Rc<Proxy>) {
    let mut pause = PAUSE.0;
    while let Some(headers) = group.headers() {
        let before = group.next.get();
        let status = group.session(&proxy, &headers).await;
        group.live.set(false);
        group.tell_followers(&proxy, i64::MAX);
        group.end_if_empty(&proxy);
        let leaderless = group.what.leader && &*status.message == "etcdserver: no leader";
        if leaderless {
            // Each client's stream hears it as it would from a member, and asks again as it likes.
            let members = std::mem::take(&mut *group.members.borrow_mut());
            members.iter().for_each(|member| member.client.end(status.clone()));
            return group.end(&proxy);
        }
        if is_refusal(&status) {
            // It is meant for the one in whose name was asked; the next one may do better.
            let refused = group.members.borrow().first().map(|member| Rc::clone(&member.client));
            if let Some(client) = refused {
                client.end(status);
                group.leave_all(&client);
                continue;
            }
        }
        {
            let (new, sent) = &mut *group.tickets.borrow_mut();
            new.append(sent);
            if !new.is_empty() {
                group.asked.notify_one();
            }
        }
        tokio::time::sleep(pause).await;
        pause = if group.next.get() > before { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
    }
}
