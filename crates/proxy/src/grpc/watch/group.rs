//! One watch of the cluster, and the watchers that share it. It is made again wherever it broke off, from the
//! first event that nobody has seen. Not here: what becomes of a client's queue (`mod`), the stream that the watch is
//! on (`lane`), and which group feeds which (`share`).

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use etch_api::pb::mvccpb::Event;
use etch_client::Namespace;
use etch_rpc::{Run, Status};
use http::HeaderMap;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use super::lane::{Lane, Name};
use super::members::{Member, Members, Seat, Telling};
use super::share::Children;
use super::{Client, Ticket, What};
use crate::grpc::Proxy;
use crate::grpc::cache::Entry;

/// A message up to this length is made once for all watchers of all clients.
const SHORT: usize = 1 << 10;

type Tickets = Vec<Rc<Ticket>>;

/// One watch of the cluster.
pub(in crate::grpc) struct Group {
    what: Rc<What>,
    start: i64,
    /// Whether it began where the store was.
    at_head: bool,
    /// All events before this revision have been given to the members.
    next: Cell<i64>,
    /// Whether it has caught up with where the store was when it began.
    level: Cell<bool>,
    /// Where the store was then.
    target: Cell<i64>,
    members: RefCell<Members>,
    /// Answers that are kept as long as nothing happens here.
    followers: RefCell<Vec<Rc<Entry>>>,
    /// Whether the cluster has said that it watches, and the stream has not broken off.
    live: Cell<bool>,
    /// Wishes for progress: not yet sent, and sent.
    tickets: RefCell<(Tickets, Tickets)>,
    source: RefCell<Source>,
    /// Groups inside this one, which get their events here.
    children: RefCell<Children>,
}

/// Where a group gets its events from.
#[derive(Default)]
enum Source {
    /// From nowhere, for the moment.
    #[default]
    Nowhere,
    /// From a stream of the cluster's, where it has this place.
    Lane(Rc<Lane>, i64),
    /// From a wider group.
    Group(Rc<Group>),
}

/// A message for all members: as it came, and whose revisions it holds.
pub(super) struct Batch {
    raw: Bytes,
    pub(super) response: WatchResponse,
    first: i64,
    last: i64,
}

impl Group {
    /// From this revision on, for nobody yet.
    pub(super) fn new(what: Rc<What>, from: i64, at_head: bool) -> Self {
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
            source: RefCell::default(),
            children: RefCell::default(),
        }
    }

    /// What it sees.
    pub(super) fn what(&self) -> &Rc<What> {
        &self.what
    }

    /// All events before this revision have been given to the members.
    pub(super) fn next(&self) -> i64 {
        self.next.get()
    }

    /// Whether it has no history left to read.
    pub(super) fn is_level(&self) -> bool {
        self.level.get()
    }

    /// The stream that its events come from, and the place there: its own, or that of the group that feeds it.
    pub(super) fn source(&self) -> Option<(Rc<Lane>, i64)> {
        match &*self.source.borrow() {
            Source::Nowhere => None,
            Source::Lane(lane, id) => Some((Rc::clone(lane), *id)),
            Source::Group(wider) => wider.source(),
        }
    }

    /// Whether another group feeds it.
    pub(super) fn is_fed(&self) -> bool {
        matches!(&*self.source.borrow(), Source::Group(_))
    }

    /// Whether it can feed another from there on.
    pub(super) fn can_feed(&self, other: &Group) -> bool {
        let stands = self.live.get() && self.can_take(other.next.get());
        stands && self.what.covers(&other.what) && self.children.borrow().has_room(&other.what)
    }

    /// Feeds another from now on.
    pub(super) fn feed(self: &Rc<Self>, other: &Rc<Group>) {
        self.children.borrow_mut().add(other);
        other.level.set(true);
        *other.source.borrow_mut() = Source::Group(Rc::clone(self));
        other.ask_again();
    }

    /// Gets its events from a stream from now on.
    pub(super) fn board(self: &Rc<Self>, lane: &Rc<Lane>) {
        *self.source.borrow_mut() = Source::Lane(Rc::clone(lane), lane.add(self));
        self.ask_again();
        self.children.borrow().all().iter().for_each(Group::ask_again);
    }

    /// What was asked on a stream that is no more, is asked on the next.
    fn ask_again(self: &Rc<Self>) {
        let waits = {
            let (new, sent) = &mut *self.tickets.borrow_mut();
            new.append(sent);
            !new.is_empty()
        };
        if let Some((lane, _)) = self.source().filter(|_| waits) {
            lane.ask(self);
        }
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
        match &*self.source.borrow() {
            Source::Group(wider) => wider.is_live(),
            _ => self.live.get(),
        }
    }

    /// An answer is not kept any more.
    pub(in crate::grpc) fn unfollow(self: &Rc<Self>, proxy: &Rc<Proxy>, entry: &Rc<Entry>) {
        self.followers.borrow_mut().retain(|known| !Rc::ptr_eq(known, entry));
        self.end_if_empty(proxy);
    }

    /// Those answers do not hold any more that were made before a revision.
    fn tell_followers(&self, proxy: &Rc<Proxy>, before: i64) {
        let followers = std::mem::take(&mut *self.followers.borrow_mut());
        let (stale, rest): (Vec<_>, Vec<_>) =
            followers.into_iter().partition(|entry| entry.from <= before);
        *self.followers.borrow_mut() = rest;
        stale.iter().for_each(|entry| proxy.cache.forget(proxy, entry));
    }

    /// A client's watcher leaves.
    pub(super) fn leave(self: &Rc<Self>, client: &Rc<Client>, id: i64) {
        self.members.borrow_mut().remove(client, id);
        self.end_if_empty(&client.proxy);
    }

    /// All of a client's watchers leave.
    pub(super) fn leave_all(self: &Rc<Self>, client: &Rc<Client>) {
        self.members.borrow_mut().remove_all(client);
        self.end_if_empty(&client.proxy);
    }

    fn is_empty(&self) -> bool {
        self.members.borrow().is_empty() && self.followers.borrow().is_empty()
    }

    fn end_if_empty(self: &Rc<Self>, proxy: &Rc<Proxy>) {
        if self.is_empty() {
            self.end(proxy);
        }
    }

    fn end(self: &Rc<Self>, proxy: &Rc<Proxy>) {
        proxy.hub.remove(self);
        if let Some((lane, _)) = self.source() {
            lane.forget(self);
            self.children.borrow().all().iter().for_each(|child| lane.forget(child));
        }
        match self.source.take() {
            Source::Nowhere => {}
            Source::Lane(lane, id) => {
                lane.remove(id);
                proxy.hub.close_if_empty(&lane);
            }
            Source::Group(wider) => wider.children.borrow_mut().remove(self),
        }
        self.live.set(false);
        self.tell_followers(proxy, i64::MAX);
        // Nobody waits for a group that is no more.
        let (new, sent) = std::mem::take(&mut *self.tickets.borrow_mut());
        new.into_iter().chain(sent).for_each(|ticket| ticket.answered(None));
        self.let_go(proxy);
    }

    /// Those that it has fed get their events elsewhere, from the first that they have not seen.
    fn let_go(&self, proxy: &Rc<Proxy>) {
        let children = self.children.take();
        for child in children.all() {
            child.next.set(child.next.get().max(self.next.get()));
            child.source.take();
            child.tell_followers(proxy, i64::MAX);
            proxy.hub.place(proxy, &child);
        }
    }

    /// Asks the cluster how far this watch is.
    pub(super) fn ask(self: &Rc<Self>, ticket: Rc<Ticket>) {
        self.tickets.borrow_mut().0.push(ticket);
        if let Some((lane, _)) = self.source() {
            lane.ask(self);
        }
    }

    /// The question has been sent.
    pub(super) fn progress_asked(&self) {
        let (new, sent) = &mut *self.tickets.borrow_mut();
        sent.append(new);
    }

    /// Whether there is a question that has not been sent.
    pub(super) fn has_question(&self) -> bool {
        !self.tickets.borrow().0.is_empty()
    }

    /// The question has been answered.
    pub(super) fn progressed_to(&self, header: Option<ResponseHeader>) {
        let answered = std::mem::take(&mut self.tickets.borrow_mut().1);
        answered.iter().for_each(|ticket| ticket.answered(header));
    }

    /// Whether an answer about a revision can only have been given since this watch was created.
    pub(super) fn is_younger(&self, revision: i64) -> bool {
        revision > self.target.get()
    }

    /// Nobody answers.
    pub(super) fn give_up_progress(&self) {
        let (new, sent) = std::mem::take(&mut *self.tickets.borrow_mut());
        drop((new, sent));
    }

    /// In whose name the cluster is asked: each member has shown that it may.
    pub(super) fn headers(&self) -> Option<HeaderMap> {
        let members = self.members.borrow();
        let first = members.first().map(|client| client.headers.clone());
        first.or_else(|| self.followers.borrow().first().map(|entry| entry.headers.clone()))
    }

    /// The stream that it was on is over.
    pub(super) fn broke_off(self: &Rc<Self>, proxy: &Rc<Proxy>) {
        proxy.hub.leaves(self);
        self.source.take();
        self.live.set(false);
        self.tell_followers(proxy, i64::MAX);
        for child in self.children.borrow().all() {
            child.tell_followers(proxy, i64::MAX);
        }
    }

    /// Ends the streams of all clients that have watchers here, or in a group that this one feeds.
    pub(super) fn refuse_all(self: &Rc<Self>, proxy: &Rc<Proxy>, status: &Status) {
        let children = self.children.borrow().all();
        for group in children.iter().chain([self]) {
            let members = std::mem::take(&mut *group.members.borrow_mut());
            members.seats().iter().for_each(|seat| seat.client.end(status.clone()));
            group.end_if_empty(proxy);
        }
    }

    /// Ends the streams of those clients that call in this name.
    pub(super) fn refuse_those(self: &Rc<Self>, proxy: &Rc<Proxy>, name: &Name, status: &Status) {
        let mut theirs: Vec<Rc<Client>> = Vec::new();
        for seat in self.members.borrow().seats() {
            if name.is_of(&seat.client.headers) {
                theirs.push(Rc::clone(&seat.client));
            }
        }
        for client in theirs {
            self.members.borrow_mut().remove_all(&client);
            client.end(status.clone());
        }
        self.end_if_empty(proxy);
    }

    /// What the cluster is asked for, under this id.
    pub(super) fn create_request(&self, id: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.what.key.clone(),
            range_end: self.what.end.clone(),
            start_revision: self.place(),
            progress_notify: true,
            filters: self.what.filters.clone(),
            prev_kv: self.what.prev_kv,
            watch_id: id,
            fragment: self.what.fragment,
        }
    }

    /// Where the cluster is asked to begin. A member does not tell how far a watch is that begins in its future, so
    /// one that has caught up begins with the last revision that it has seen, which is then passed over.
    fn place(&self) -> i64 {
        let next = self.next.get();
        if next > self.start || self.at_head { next - 1 } else { next }
    }

    /// A message of the cluster's about this watch.
    pub(super) fn take(
        self: &Rc<Self>,
        proxy: &Rc<Proxy>,
        raw: Bytes,
        response: WatchResponse,
        parts: &mut Vec<Batch>,
    ) {
        let revision = response.header.map_or(0, |header| header.revision);
        if response.canceled {
            return self.cancelled(proxy, &response);
        }
        if response.created {
            self.live.set(true);
            self.target.set(revision);
            self.level.set(self.level.get() || self.next.get() > revision);
        } else if response.events.is_empty() {
            let raw = without_id(&raw);
            self.progressed(revision, &raw);
            self.children.borrow().all().iter().for_each(|child| child.progressed(revision, &raw));
        } else {
            let more_follows = response.fragment;
            parts.push(Batch::new(proxy.keys.namespace(), self.next.get(), raw, response));
            // All parts of an answer are given out together, so that a break between them repeats none.
            if !more_follows {
                self.give_out(proxy, &std::mem::take(parts));
            }
        }
        self.become_one(proxy);
    }

    /// Nothing has happened up to a revision.
    fn progressed(&self, revision: i64, raw: &Bytes) {
        self.next.set(self.next.get().max(revision + 1));
        self.level.set(true);
        for seat in self.members.borrow().seats() {
            for watching in seat.watchers.iter().filter(|watching| watching.progress) {
                // One that has no room needs no word that there is nothing.
                if seat.client.has_room(raw.len()) {
                    seat.client.deliver(watching.id, raw);
                }
            }
        }
    }

    /// Gives an answer, in its parts, to all members: each gets all of it or, if it has no room, none.
    fn give_out(&self, proxy: &Rc<Proxy>, parts: &[Batch]) {
        let len = parts.iter().map(|part| part.raw.len()).sum();
        let all = parts;
        // All of a part may have been seen before.
        let parts = || all.iter().filter(|part| part.last > 0);
        let first = parts().map(|part| part.first).min().unwrap_or_default();
        let last = parts().map(|part| part.last).max().unwrap_or_default();
        let events: usize = parts().map(|part| part.response.events.len()).sum();
        if events == 0 {
            return;
        }
        let mut behind = Vec::new();
        let mut given = 0;
        // What is short and all that there is, is made once for all who want all of it.
        let mut short = match all {
            [part] if part.raw.len() <= SHORT => Some(Telling::new(&part.raw)),
            _ => None,
        };
        for seat in self.members.borrow().seats() {
            match &mut short {
                Some(short) if seat.latest <= first => {
                    let runs = short.runs(seat);
                    if seat.client.has_room(runs.iter().map(Run::len).sum()) {
                        runs.iter().for_each(|run| seat.client.push(run.clone().into()));
                        given += seat.watchers.len() as u64;
                    } else {
                        let all = seat.watchers.iter().map(|watching| watching.id);
                        behind.extend(all.map(|id| (Rc::clone(&seat.client), id, first)));
                    }
                }
                _ => given += tell(seat, all, (first, last), len, &mut behind),
            }
        }
        for (client, id, revision) in behind {
            self.members.borrow_mut().remove(&client, id);
            client.fell_behind(id, revision);
        }
        self.next.set(self.next.get().max(last + 1));
        self.level.set(self.level.get() || last >= self.target.get());
        proxy.hub.events.set(proxy.hub.events.get() + given * events as u64);
        let shares = self.children.borrow().share(proxy.keys.namespace(), all);
        shares.iter().for_each(|(child, parts)| child.give_out(proxy, parts));
        self.tell_followers(proxy, last);
    }

    /// Takes over the members of a group that is exactly as far.
    fn become_one(self: &Rc<Self>, proxy: &Rc<Proxy>) {
        if self.is_empty() {
            return self.end(proxy);
        }
        while let Some(twin) = proxy.hub.twin(self) {
            // One that has read history shares its stream with others that still do.
            if !self.at_head {
                return twin.take_over(self, proxy);
            }
            self.take_over(&twin, proxy);
        }
    }

    fn take_over(self: &Rc<Self>, other: &Rc<Self>, proxy: &Rc<Proxy>) {
        let members = std::mem::take(&mut *other.members.borrow_mut());
        for member in members.into_each() {
            member.client.moved(member.id, self);
            self.members.borrow_mut().push(member);
        }
        let (new, sent) = std::mem::take(&mut *other.tickets.borrow_mut());
        new.into_iter().chain(sent).for_each(|ticket| self.ask(ticket));
        other.end(proxy);
    }

    /// The cluster has ended this watch. Who is past what was compacted goes on; who was refused although its
    /// client may read, is told so, and the others try in their own name.
    fn cancelled(self: &Rc<Self>, proxy: &Rc<Proxy>, response: &WatchResponse) {
        let members = std::mem::take(&mut *self.members.borrow_mut());
        let compacted = response.compact_revision;
        let refused = response.created && compacted == 0;
        self.end(proxy);
        for (at, mut member) in members.into_each().enumerate() {
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

/// Watchers that are to be taken out of a group, and the first revision that each has not seen.
type Behind = Vec<(Rc<Client>, i64, i64)>;

/// Gives an answer of these revisions and so many bytes to the watchers of a seat, each by itself; says to how many.
fn tell(seat: &Seat, all: &[Batch], revisions: (i64, i64), len: usize, behind: &mut Behind) -> u64 {
    let (first, last) = revisions;
    let mut given = 0;
    for watching in seat.watchers.iter().filter(|watching| last >= watching.from) {
        if !seat.client.has_room(len) {
            behind.push((Rc::clone(&seat.client), watching.id, first.max(watching.from)));
            continue;
        }
        given += 1;
        for part in all.iter().filter(|part| part.last >= watching.from && part.last > 0) {
            if part.first >= watching.from {
                seat.client.deliver(watching.id, &part.raw);
            } else {
                seat.client.deliver(watching.id, &part.since(watching.from));
            }
        }
    }
    given
}

impl Batch {
    /// The raw message is sent on, so it must bear no id. What is before `from` has been seen already.
    fn new(
        namespace: Option<&Namespace>,
        from: i64,
        raw: Bytes,
        mut response: WatchResponse,
    ) -> Self {
        if namespace.is_none() && response.events.iter().all(|event| revision(event) >= from) {
            return Self::made(without_id(&raw), response);
        }
        if let Some(namespace) = namespace {
            for event in &mut response.events {
                namespace.strip_all(event.kv.as_mut_slice());
                namespace.strip_all(event.prev_kv.as_mut_slice());
            }
        }
        Self::of(from, response)
    }

    /// Of what a group is fed with.
    pub(super) fn of(from: i64, mut response: WatchResponse) -> Self {
        response.watch_id = 0;
        response.events.retain(|event| revision(event) >= from);
        Self::made(response.encode_to_vec().into(), response)
    }

    fn made(raw: Bytes, response: WatchResponse) -> Self {
        let revisions = || response.events.iter().map(revision);
        let (first, last) = (revisions().min(), revisions().max());
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        Self { raw, response, first, last }
    }

    /// The same without what is before a revision.
    fn since(&self, from: i64) -> Bytes {
        let mut response = self.response.clone();
        response.watch_id = 0;
        response.events.retain(|event| revision(event) >= from);
        response.encode_to_vec().into()
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// A message without the id that it bears.
fn without_id(raw: &Bytes) -> Bytes {
    const ID: u32 = 2;
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let at = raw.len() - rest.len();
        let skipped = decode_key(&mut rest).and_then(|(tag, wire)| {
            skip_field(wire, tag, &mut rest, DecodeContext::default()).map(|()| tag)
        });
        match skipped {
            Ok(ID) => return [&raw[..at], rest].concat().into(),
            Ok(_) => {}
            // It has been decoded before.
            Err(_) => break,
        }
    }
    raw.clone()
}
