//! All groups: which one a watcher joins, and which become one. Not here: what a group does (`group`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use etch_api::pb::etcdserverpb::ResponseHeader;
use etch_rpc::MessageBuf;

use super::What;
use super::group::{Group, Member, run};
use crate::grpc::Proxy;
use crate::grpc::cache::Entry;

/// Room for small messages, taken anew when it is used up.
const BUFFER: usize = 64 << 10;

/// The proxy's watches of the cluster.
pub(in crate::grpc) struct Hub {
    groups: RefCell<HashMap<What, Vec<Rc<Group>>>>,
    head: Cell<Option<ResponseHeader>>,
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
            head: Cell::default(),
            watchers: Cell::default(),
            events: Cell::default(),
            buffer: RefCell::new(MessageBuf::with_capacity(BUFFER)),
        }
    }
}

impl Hub {
    /// Watches of the cluster.
    pub(in crate::grpc) fn upstream_watches(&self) -> usize {
        self.groups.borrow().values().map(Vec::len).sum()
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

    /// A group for something from a revision on, which it is given before the group runs.
    fn group(
        &self,
        proxy: &Rc<Proxy>,
        what: &What,
        from: i64,
        at_head: bool,
        add: impl FnOnce(&Group),
    ) -> Rc<Group> {
        let mut groups = self.groups.borrow_mut();
        let same = groups.entry(what.clone()).or_default();
        if let Some(group) = same.iter().find(|group| group.can_take(from)) {
            add(group);
            return Rc::clone(group);
        }
        let group = Rc::new(Group::new(what.clone(), from, at_head));
        add(&group);
        same.push(Rc::clone(&group));
        let task = tokio::task::spawn_local(run(Rc::clone(&group), Rc::clone(proxy)));
        group.runs(task.abort_handle());
        group
    }

    /// Takes a group off the list: nobody is in it any more, or the cluster has ended it.
    pub(super) fn remove(&self, group: &Rc<Group>) {
        let mut groups = self.groups.borrow_mut();
        if let Some(same) = groups.get_mut(group.what()) {
            same.retain(|known| !Rc::ptr_eq(known, group));
            if same.is_empty() {
                groups.remove(group.what());
            }
        }
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

    /// Remembers where the store is.
    pub(super) fn note(&self, header: Option<ResponseHeader>) {
        let known = self.head.get().map_or(0, |head| head.revision);
        if header.is_some_and(|header| header.revision >= known) {
            self.head.set(header);
        }
    }

    /// Where the store was when it was last heard of.
    pub(super) fn head(&self) -> Option<ResponseHeader> {
        self.head.get()
    }
}
