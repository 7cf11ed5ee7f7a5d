//! All groups: which one a watcher joins, which become one, which feeds which, and the streams that they are on. Not
//! here: what a group does (`group`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use etch_api::pb::etcdserverpb::ResponseHeader;
use etch_rpc::MessageBuf;
use http::HeaderMap;

use super::What;
use super::group::Group;
use super::heads::Heads;
use super::lane::{Lane, Name, run};
use super::members::Member;
use crate::grpc::Proxy;
use crate::grpc::cache::Entry;

/// Room for small messages, taken anew when it is used up.
const BUFFER: usize = 64 << 10;
/// Ranges that are looked at for one that has a new one inside. Where there are more, it is not worth it.
const WIDE: usize = 64;

/// The proxy's watches of the cluster.
pub(in crate::grpc) struct Hub {
    groups: RefCell<HashMap<Rc<What>, Vec<Rc<Group>>>>,
    /// Those of them that are ranges on a stream of the cluster's.
    wide: RefCell<Vec<Rc<Group>>>,
    lanes: RefCell<HashMap<Name, Rc<Lane>>>,
    head: Cell<Option<ResponseHeader>>,
    /// Questions where it is.
    pub(super) heads: Heads,
    /// Clients' watchers.
    pub(in crate::grpc) watchers: Cell<usize>,
    /// Events that were sent on to clients.
    pub(in crate::grpc) events: Cell<u64>,
    /// Where small messages are put together.
    pub(super) buffer: RefCell<MessageBuf>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            groups: RefCell::default(),
            wide: RefCell::default(),
            lanes: RefCell::default(),
            head: Cell::default(),
            heads: Heads::default(),
            watchers: Cell::default(),
            events: Cell::default(),
            buffer: RefCell::new(MessageBuf::with_capacity(BUFFER)),
        }
    }
}

impl Hub {
    /// Watches of the cluster.
    pub(in crate::grpc) fn upstream_watches(&self) -> usize {
        self.groups.borrow().values().flatten().filter(|group| !group.is_fed()).count()
    }

    /// Streams of the cluster that they are on.
    pub(in crate::grpc) fn upstream_streams(&self) -> usize {
        self.lanes.borrow().len()
    }

    /// Puts a watcher into a group that has not gone past its beginning, or into a new one. `at_head` says that
    /// this is where the store is now.
    pub(super) fn join(
        &self,
        proxy: &Rc<Proxy>,
        what: &What,
        member: Member,
        at_head: bool,
    ) -> Rc<Group> {
        self.group(proxy, what, member.from, at_head, |group| group.add(member))
    }

    /// Has an answer that is kept told when anything happens to its keys.
    pub(in crate::grpc) fn follow(
        &self,
        proxy: &Rc<Proxy>,
        what: What,
        entry: &Rc<Entry>,
    ) -> Rc<Group> {
        self.group(proxy, &what, entry.from, true, |group| group.add_follower(entry))
    }

    /// A group for something from a revision on, which it is given before the group is placed.
    fn group(
        &self,
        proxy: &Rc<Proxy>,
        what: &What,
        from: i64,
        at_head: bool,
        add: impl FnOnce(&Group),
    ) -> Rc<Group> {
        let mut groups = self.groups.borrow_mut();
        let known = groups.get(what).into_iter().flatten().find(|group| group.can_take(from));
        if let Some(group) = known {
            add(group);
            return Rc::clone(group);
        }
        let what = match groups.get_key_value(what) {
            Some((what, _)) => Rc::clone(what),
            None => Rc::new(what.compact()),
        };
        let group = Rc::new(Group::new(Rc::clone(&what), from, at_head));
        add(&group);
        groups.entry(what).or_default().push(Rc::clone(&group));
        drop(groups);
        self.place(proxy, &group);
        group
    }

    /// Gives a group that has none a place to get its events from, as long as anybody is in it: a wider group that
    /// is where it is, or a stream of the cluster's.
    pub(super) fn place(&self, proxy: &Rc<Proxy>, group: &Rc<Group>) {
        let Some(headers) = group.headers() else { return };
        if let Some(wider) = self.wider(group) {
            return wider.feed(group);
        }
        if group.what().is_range() {
            self.wide.borrow_mut().push(Rc::clone(group));
        }
        let name = Name::new(&headers, group.is_level());
        let lane = self.lanes.borrow().get(&name).cloned();
        let lane = lane.unwrap_or_else(|| self.open_lane(proxy, name, headers));
        group.board(&lane);
    }

    fn wider(&self, group: &Group) -> Option<Rc<Group>> {
        let wide = self.wide.borrow();
        if !group.is_level() || wide.len() > WIDE {
            return None;
        }
        wide.iter().find(|wider| wider.can_feed(group)).cloned()
    }

    fn open_lane(&self, proxy: &Rc<Proxy>, name: Name, headers: HeaderMap) -> Rc<Lane> {
        let lane = Rc::new(Lane::new(name.clone(), headers));
        self.lanes.borrow_mut().insert(name, Rc::clone(&lane));
        let task = tokio::task::spawn_local(run(Rc::clone(&lane), Rc::clone(proxy)));
        lane.runs(task.abort_handle());
        lane
    }

    /// Closes a stream that nobody is on.
    pub(super) fn close_if_empty(&self, lane: &Rc<Lane>) {
        if lane.is_empty() {
            self.lanes.borrow_mut().retain(|_, known| !Rc::ptr_eq(known, lane));
            lane.stop();
        }
    }

    /// A group is on no stream any more.
    pub(super) fn leaves(&self, group: &Rc<Group>) {
        if group.what().is_range() {
            self.wide.borrow_mut().retain(|known| !Rc::ptr_eq(known, group));
        }
    }

    /// Takes a group off the list: nobody is in it any more, or the cluster has ended it.
    pub(super) fn remove(&self, group: &Rc<Group>) {
        self.leaves(group);
        let mut groups = self.groups.borrow_mut();
        if let Some(same) = groups.get_mut(group.what()) {
            same.retain(|known| !Rc::ptr_eq(known, group));
            if same.is_empty() {
                groups.remove(group.what());
            }
        }
    }

    /// The streams of the cluster.
    #[cfg(test)]
    pub(super) fn lanes(&self) -> Vec<Rc<Lane>> {
        self.lanes.borrow().values().cloned().collect()
    }

    /// The groups that see this.
    #[cfg(test)]
    pub(super) fn groups_of(&self, what: &What) -> Vec<Rc<Group>> {
        self.groups.borrow().get(what).cloned().unwrap_or_default()
    }

    /// A group that sees the same and is exactly as far.
    pub(super) fn twin(&self, group: &Rc<Group>) -> Option<Rc<Group>> {
        let groups = self.groups.borrow();
        let same = groups.get(group.what())?;
        same.iter().find(|other| !Rc::ptr_eq(other, group) && other.is_as_far_as(group)).cloned()
    }

    /// Remembers where the store is. Another cluster's may be anywhere.
    pub(super) fn note(&self, header: Option<ResponseHeader>) {
        let known = self.head.get();
        let is_news = |new: &ResponseHeader| {
            known.is_none_or(|old| new.revision >= old.revision || new.cluster_id != old.cluster_id)
        };
        if header.as_ref().is_some_and(is_news) {
            self.head.set(header);
        }
    }

    /// Where the store was when it was last heard of.
    pub(super) fn head(&self) -> Option<ResponseHeader> {
        self.head.get()
    }
}
