//! From the stream's queue to its watchers: subscriptions, their members, and the messages made of the
//! events that came. Not here: history (`catchup`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etch_api::KeyRange;

use super::message::{EventBatch, OutMessage, fragments};
use super::stream::{Shape, StreamState, Subscription, Watcher};
use super::{HistorySource, StreamConfig};
use crate::mvcc::Event;

/// The least that an event counts against the budget, so that filtered ones do not come for free.
const LEAST_WEIGHT: usize = 16;

impl StreamState {
    /// Makes messages of what is in the inbox, as far as the budget goes; stops between revisions.
    pub(super) fn deliver(
        &mut self,
        source: &dyn HistorySource,
        left: &mut usize,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<()> {
        // A failed read of a previous value left events behind: they go first.
        let mut touched: Vec<u32> = Vec::new();
        if self.retry {
            let all = self.subscriptions.iter().enumerate();
            let staged = all.filter(|(_, s)| s.as_ref().is_some_and(|s| !s.events.is_empty()));
            touched.extend(staged.map(|(at, _)| at as u32));
            self.flush(&touched, source, out)?;
            touched.clear();
        }
        while *left > 0 && !self.inbox.is_empty() {
            let used = self.stage(*left, &mut touched);
            *left = left.saturating_sub(used);
            self.flush(&touched, source, out)?;
            touched.clear();
        }
        Ok(())
    }

    /// Moves whole revisions from the inbox to their subscriptions until they make up `limit` bytes of
    /// messages; returns how many they make up.
    fn stage(&mut self, limit: usize, touched: &mut Vec<u32>) -> usize {
        let mut used = 0;
        while let Some(delivery) = self.inbox.last() {
            let revision = delivery.event.revision.main;
            if used >= limit && revision != self.delivered {
                break;
            }
            let delivery = self.inbox.pop().expect("the last was just looked at");
            self.delivered = revision;
            used += LEAST_WEIGHT;
            // The subscription may be gone, or another one may have its number by now.
            let at = delivery.subscription;
            let Some(subscription) = &mut self.subscriptions[at as usize] else { continue };
            if revision < subscription.since {
                continue;
            }
            if subscription.events.is_empty() {
                touched.push(at);
            }
            used += delivery.event.weight() * subscription.count;
            subscription.events.push(delivery.event);
        }
        used
    }

    /// Makes messages of what was staged.
    fn flush(
        &mut self,
        touched: &[u32],
        source: &dyn HistorySource,
        out: &mut Vec<OutMessage>,
    ) -> io::Result<()> {
        self.retry = true;
        for &at in touched {
            let subscription = self.subscriptions[at as usize].as_mut();
            let subscription = subscription.expect("a touched subscription is in its place");
            let mut sent = 0;
            // All pieces are made before the first message is, so that a failure leaves nothing half sent.
            let mut batches = Vec::with_capacity(subscription.members.len());
            for (shape, _) in &subscription.members {
                batches.push(batch(subscription.events.iter(), *shape, source)?);
            }
            let first = subscription.events[0].revision.main;
            for ((shape, members), batch_of_all) in subscription.members.iter().zip(&batches) {
                for &member in members {
                    let watcher = self.watchers[member as usize].as_mut();
                    let watcher = watcher.expect("a member is in its place");
                    let own;
                    let batch = if watcher.next <= first {
                        batch_of_all
                    } else {
                        let next = watcher.next;
                        let seen = |event: &&Arc<Event>| event.revision.main >= next;
                        own = batch(subscription.events.iter().filter(seen), *shape, source)?;
                        &own
                    };
                    if let Some(batch) = batch {
                        sent += batch.pieces.len();
                        send(watcher, Arc::clone(batch), batch.last, &self.config, out);
                    }
                }
            }
            subscription.events.clear();
            self.hub.counters().events_total.fetch_add(sent as u64, Ordering::Relaxed);
        }
        self.retry = false;
        Ok(())
    }

    /// The subscription to a range, made if there is none.
    pub(super) fn subscribe(&mut self, range: &KeyRange) -> u32 {
        if let Some(&at) = self.by_range.get(range) {
            return at;
        }
        let fresh = self.subscriptions.len() as u32;
        let at = self.free_subscriptions.pop().unwrap_or(fresh);
        let subscription = Subscription {
            range: range.clone(),
            since: self.hub.subscribe(self.slot, at, range),
            members: Vec::new(),
            count: 0,
            events: Vec::new(),
        };
        if at == fresh {
            self.subscriptions.push(Some(subscription));
        } else {
            self.subscriptions[at as usize] = Some(subscription);
        }
        self.by_range.insert(range.clone(), at);
        at
    }

    /// Drops a subscription that nobody uses.
    pub(super) fn release(&mut self, at: u32) {
        let place = &mut self.subscriptions[at as usize];
        let Some(subscription) = place.take_if(|s| s.count == 0) else { return };
        self.hub.unsubscribe(self.slot, std::iter::once((at, &subscription.range)));
        self.by_range.remove(&subscription.range);
        self.free_subscriptions.push(at);
    }

    /// Makes a watcher a member: it is synced from now on.
    pub(super) fn enlist(&mut self, at: u32, subscription: u32) {
        let shape = self.watcher(at).shape;
        let joined = self.subscriptions[subscription as usize].as_mut();
        let joined = joined.expect("a subscription in use is in its place");
        joined.count += 1;
        let group = match joined.members.iter().position(|(other, _)| *other == shape) {
            Some(group) => group,
            None => {
                joined.members.push((shape, Vec::new()));
                joined.members.len() - 1
            }
        };
        let members = &mut joined.members[group].1;
        members.push(at);
        let place = (members.len() - 1) as u32;
        self.watcher_mut(at).synced = Some((subscription, place));
    }

    /// Takes a member out of its subscription.
    pub(super) fn dismiss(&mut self, subscription: u32, at: u32, place: u32) {
        let shape = self.watcher(at).shape;
        let left = self.subscriptions[subscription as usize].as_mut();
        let left = left.expect("a subscription in use is in its place");
        left.count -= 1;
        let group = left.members.iter().position(|(other, _)| *other == shape);
        let group = group.expect("a member's shape has a group");
        let members = &mut left.members[group].1;
        members.swap_remove(place as usize);
        let moved = members.get(place as usize).copied();
        if members.is_empty() {
            left.members.swap_remove(group);
        }
        if let Some(moved) = moved {
            self.watcher_mut(moved).synced = Some((subscription, place));
        }
        self.release(subscription);
    }

    /// Sends all watchers back to history, from the first revision that the queue could not hold.
    pub(super) fn fall_back(&mut self, lost: i64) {
        let all = self.subscriptions.iter().enumerate();
        let all = all.filter_map(|(at, s)| s.as_ref().map(|s| (at as u32, &s.range)));
        self.hub.forsake(self.slot, all);
        self.by_range.clear();
        self.free_subscriptions.clear();
        let subscriptions = std::mem::take(&mut self.subscriptions);
        for subscription in subscriptions.into_iter().flatten() {
            for at in subscription.members.into_iter().flat_map(|(_, members)| members) {
                let watcher = self.watcher_mut(at);
                watcher.synced = None;
                watcher.next = watcher.next.max(lost);
                self.defer(at);
            }
        }
    }
}

/// The pieces of the events that a shape wants, if there are any.
pub(super) fn batch<'a>(
    events: impl Iterator<Item = &'a Arc<Event>>,
    shape: Shape,
    source: &dyn HistorySource,
) -> io::Result<Option<Arc<EventBatch>>> {
    let mut batch = EventBatch::default();
    for event in events.filter(|event| shape.wants(event)) {
        let piece = if shape.previous { event.field_with_previous(source)? } else { event.field() };
        batch.len += piece.len();
        batch.last = event.revision.main;
        batch.pieces.push(piece.clone());
    }
    Ok((!batch.pieces.is_empty()).then(|| Arc::new(batch)))
}

/// Sends events to one watcher.
pub(super) fn send(
    watcher: &mut Watcher,
    batch: Arc<EventBatch>,
    revision: i64,
    config: &StreamConfig,
    out: &mut Vec<OutMessage>,
) {
    if watcher.progress.is_some() {
        watcher.progress = Some(false);
    }
    let (watch_id, fragment) = (watcher.id, watcher.shape.fragment);
    let message = OutMessage { revision, watch_id, events: Some(batch), ..OutMessage::default() };
    if fragment {
        fragments(message, config.header_len, config.fragment_limit, out);
    } else {
        out.push(message);
    }
}
