//! One stream of the cluster's, with the watches of many groups on it: those in whose name the same token speaks.
//! Groups that still read history are on a stream of their own kind, because a member does not tell how far a stream
//! is while any watch on it is behind. Not here: what a group makes of its messages (`group`).
//!
//! A watch bears an id of ours, which is never used again. A create that is refused is answered without it, but
//! creates are answered in their order.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_api::pb::etcdserverpb::{
    WatchCancelRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use etch_rpc::{Code, Status};
use http::HeaderMap;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::group::{Batch, Group};
use super::{NOBODY, is_refusal};
use crate::grpc::Proxy;
use crate::grpc::cache::{Token, token};
use crate::grpc::wire::{Incoming, Outgoing};

/// Between attempts to open a stream again, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Before a member is asked again how far a stream is, and how often in all.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASK_TIMES: u32 = 20;

/// What watches on one stream have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    token: Token,
    /// Whether the stream shall end without a leader.
    leader: bool,
    /// Whether they are where the store is.
    level: bool,
}

impl Name {
    /// Whether it is that of who calls with these headers.
    pub(super) fn is_of(&self, headers: &HeaderMap) -> bool {
        self.token == token(headers)
    }

    /// For who calls with these headers.
    pub(super) fn new(headers: &HeaderMap, level: bool) -> Self {
        Self { token: token(headers), leader: headers.contains_key("hasleader"), level }
    }
}

/// One stream of the cluster's.
pub(super) struct Lane {
    name: Name,
    headers: HeaderMap,
    slots: RefCell<HashMap<i64, Slot>>,
    next_id: Cell<i64>,
    /// What has not been sent yet.
    orders: RefCell<VecDeque<Order>>,
    more: Notify,
    /// Creates that were sent and not answered, in their order.
    opening: RefCell<VecDeque<i64>>,
    /// Groups that want to hear how far they are, and how often was asked for them in vain.
    asking: RefCell<Vec<Rc<Group>>>,
    asked: Cell<u32>,
    /// Questions how far the stream is, and answers.
    questions: Cell<u64>,
    answers: Cell<u64>,
    task: RefCell<Option<AbortHandle>>,
}

/// A group's place on a stream.
struct Slot {
    group: Rc<Group>,
    /// The parts of an answer that has not come in whole.
    parts: Vec<Batch>,
    /// Only answers beyond so many are surely about this watch, too: it was created behind those questions.
    later_than: u64,
    /// Whether the create was sent, and whether it was answered.
    sent: bool,
    open: bool,
}

enum Order {
    Create(i64),
    Cancel(i64),
    /// Again, if what was asked stays without an answer.
    Ask {
        again: bool,
    },
}

impl Lane {
    /// Without watches, and without a stream.
    pub(super) fn new(name: Name, headers: HeaderMap) -> Self {
        Self {
            name,
            headers,
            slots: RefCell::default(),
            next_id: Cell::new(1),
            orders: RefCell::default(),
            more: Notify::new(),
            opening: RefCell::default(),
            asking: RefCell::default(),
            asked: Cell::new(0),
            questions: Cell::new(0),
            answers: Cell::new(0),
            task: RefCell::default(),
        }
    }

    /// What runs it.
    pub(super) fn runs(&self, task: AbortHandle) {
        *self.task.borrow_mut() = Some(task);
    }

    /// Stops it.
    pub(super) fn stop(&self) {
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
    }

    /// Whether nobody is on it.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }

    /// Watches for a group; the number is its place.
    pub(super) fn add(&self, group: &Rc<Group>) -> i64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let slot = Slot {
            group: Rc::clone(group),
            parts: Vec::new(),
            later_than: 0,
            sent: false,
            open: false,
        };
        self.slots.borrow_mut().insert(id, slot);
        self.order(Order::Create(id));
        id
    }

    /// Watches for a group no more.
    pub(super) fn remove(&self, id: i64) {
        let Some(slot) = self.slots.borrow_mut().remove(&id) else { return };
        self.asking.borrow_mut().retain(|group| !Rc::ptr_eq(group, &slot.group));
        if slot.sent {
            self.order(Order::Cancel(id));
        }
    }

    /// Asks how far the stream is, in the name of a group on it, or of one that a group on it feeds.
    pub(super) fn ask(&self, group: &Rc<Group>) {
        self.wait_with(group);
        self.asked.set(0);
        self.order(Order::Ask { again: false });
    }

    fn wait_with(&self, group: &Rc<Group>) {
        let mut asking = self.asking.borrow_mut();
        if !asking.iter().any(|known| Rc::ptr_eq(known, group)) {
            asking.push(Rc::clone(group));
        }
    }

    /// Takes a group off those that are asked for.
    pub(super) fn forget(&self, group: &Rc<Group>) {
        self.asking.borrow_mut().retain(|known| !Rc::ptr_eq(known, group));
    }

    fn order(&self, order: Order) {
        self.orders.borrow_mut().push_back(order);
        self.more.notify_one();
    }

    /// One stream, until it breaks off.
    async fn session(self: &Rc<Self>, proxy: &Rc<Proxy>) -> Status {
        let path = "/etcdserverpb.Watch/Watch";
        let (out, incoming) = match proxy.upstream.stream(path, &self.headers).await {
            Ok(both) => both,
            Err(status) => return status,
        };
        // Both at once: a member that cannot get rid of its answers takes no requests.
        let ended = tokio::select! {
            ended = self.send(out) => ended,
            ended = self.receive(proxy, incoming) => ended,
        };
        ended.err().unwrap_or(Status::new(Code::Unavailable, "the watch has ended"))
    }

    async fn send(&self, mut out: Outgoing) -> Result<(), Status> {
        loop {
            loop {
                let Some(order) = self.orders.borrow_mut().pop_front() else { break };
                if let Some(message) = self.carry_out(&order) {
                    out.send(&message).await?;
                }
            }
            tokio::select! {
                () = self.more.notified() => {}
                // A member says nothing while a watch still reads history.
                () = tokio::time::sleep(ASK_AGAIN), if !self.asking.borrow().is_empty() => {
                    self.ask_again();
                }
            }
        }
    }

    fn ask_again(&self) {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() < ASK_TIMES {
            return self.orders.borrow_mut().push_back(Order::Ask { again: true });
        }
        let given_up = std::mem::take(&mut *self.asking.borrow_mut());
        given_up.iter().for_each(|group| group.give_up_progress());
    }

    /// The request that an order stands for, if it still stands for any.
    fn carry_out(&self, order: &Order) -> Option<Bytes> {
        let union = match order {
            Order::Create(id) => {
                let mut slots = self.slots.borrow_mut();
                let slot = slots.get_mut(id)?;
                slot.sent = true;
                slot.later_than = self.questions.get();
                self.opening.borrow_mut().push_back(*id);
                RequestUnion::CreateRequest(slot.group.create_request(*id))
            }
            Order::Cancel(id) => RequestUnion::CancelRequest(WatchCancelRequest { watch_id: *id }),
            Order::Ask { again } => {
                let asking = self.asking.borrow();
                // One question is for all who have one.
                if asking.is_empty() || !(*again || asking.iter().any(|g| g.has_question())) {
                    return None;
                }
                asking.iter().for_each(|group| group.progress_asked());
                self.questions.set(self.questions.get() + 1);
                RequestUnion::ProgressRequest(WatchProgressRequest {})
            }
        };
        Some(WatchRequest { request_union: Some(union) }.encode_to_vec().into())
    }

    async fn receive(&self, proxy: &Rc<Proxy>, mut incoming: Incoming) -> Result<(), Status> {
        while let Some(raw) = incoming.next().await? {
            self.take(proxy, raw)?;
        }
        Ok(())
    }

    /// A message of the cluster's.
    fn take(&self, proxy: &Rc<Proxy>, raw: Bytes) -> Result<(), Status> {
        let response = WatchResponse::decode(raw.clone())
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        proxy.hub.note(response.header);
        let mut id = response.watch_id;
        if response.created {
            let first = self.opening.borrow_mut().pop_front();
            id = first.ok_or_else(|| Status::new(Code::Internal, "an answer without a request"))?;
        } else if id == NOBODY {
            self.progress(&response);
            return Ok(());
        }
        let (group, mut parts) = {
            let mut slots = self.slots.borrow_mut();
            // It was given up meanwhile.
            let Some(slot) = slots.get_mut(&id) else { return Ok(()) };
            slot.open = true;
            (Rc::clone(&slot.group), std::mem::take(&mut slot.parts))
        };
        group.take(proxy, raw, response, &mut parts);
        if !parts.is_empty()
            && let Some(slot) = self.slots.borrow_mut().get_mut(&id)
        {
            slot.parts = parts;
        }
        Ok(())
    }

    /// All watches on the stream have seen what was there at that revision.
    fn progress(&self, response: &WatchResponse) {
        self.answers.set(self.answers.get() + 1);
        let revision = response.header.map_or(0, |header| header.revision);
        let holds = |group: &Rc<Group>| {
            let slots = self.slots.borrow();
            let slot = group.source().and_then(|(_, id)| slots.get(&id));
            let is_later = |slot: &Slot| {
                self.answers.get() > slot.later_than || slot.group.is_younger(revision)
            };
            slot.is_some_and(|slot| slot.open && is_later(slot))
        };
        let asking = std::mem::take(&mut *self.asking.borrow_mut());
        for group in asking {
            let answered = holds(&group);
            if answered {
                group.progressed_to(response.header);
            }
            if !answered || group.has_question() {
                self.wait_with(&group);
            }
        }
    }

    /// The stream is over: its groups, the oldest first, are on no stream.
    fn clear(&self) -> Vec<Rc<Group>> {
        self.orders.borrow_mut().clear();
        self.opening.borrow_mut().clear();
        self.asking.borrow_mut().clear();
        self.questions.set(0);
        self.answers.set(0);
        let mut slots: Vec<(i64, Slot)> = self.slots.borrow_mut().drain().collect();
        slots.sort_by_key(|(id, _)| *id);
        slots.into_iter().map(|(_, slot)| slot.group).collect()
    }
}

/// Keeps a stream for as long as anybody is on it.
pub(super) async fn run(lane: Rc<Lane>, proxy: Rc<Proxy>) {
    let mut pause = PAUSE.0;
    loop {
        let before = tokio::time::Instant::now();
        let status = lane.session(&proxy).await;
        let leaderless = lane.name.leader && &*status.message == "etcdserver: no leader";
        for group in lane.clear() {
            group.broke_off(&proxy);
            if leaderless {
                // Each client's stream hears it as it would from a member, and asks again as it likes.
                group.refuse_all(&proxy, &status);
            } else if is_refusal(&status) {
                // It is meant for those in whose name was asked; the next one may do better.
                group.refuse_those(&proxy, &lane.name, &status);
            }
            proxy.hub.place(&proxy, &group);
        }
        if lane.is_empty() {
            return proxy.hub.close_if_empty(&lane);
        }
        if before.elapsed() > PAUSE.1 {
            pause = PAUSE.0;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
