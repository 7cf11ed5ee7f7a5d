//! Tests of the whole of `watch`: rules one by one here, everything at random in `model`. Not here: the
//! parts, which are tested beside their code.

mod model;
mod world;

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::{WatchCreateRequest, WatchResponse};
use etch_api::{Error, KeyRange};

use super::{Doorbell, HistoryError, HistorySource, Hub, StreamConfig, StreamState};
use crate::mvcc::{Budget, Event, History};
pub(crate) use world::Dice;
use world::{Bell, World, decode};

/// A hub, a world and one stream.
struct Bench {
    world: World,
    hub: Arc<Hub>,
    bell: Arc<Bell>,
    doorbell: Arc<Doorbell>,
    stream: StreamState,
}

impl Bench {
    fn new(config: StreamConfig) -> Self {
        let world = World::new();
        let hub = Hub::new(world.revision());
        let bell = Arc::new(Bell::default());
        let doorbell = Doorbell::new(bell.clone());
        let stream = StreamState::new(&hub, &doorbell, 5, 0, config);
        Self { world, hub, bell, doorbell, stream }
    }

    fn put(&mut self, key: &str) {
        let events = self.world.put(key);
        self.hub.notify(&events, self.world.revision());
    }

    fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.stream.create(&request, Ok(()), &self.world);
        let mut all = self.poll();
        all.remove(0)
    }

    fn poll(&mut self) -> Vec<WatchResponse> {
        let mut out = Vec::new();
        while self.stream.poll(&self.world, 1 << 20, &mut out).unwrap() {}
        out.iter().map(|message| decode(message, 77)).collect()
    }
}

fn watch(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..WatchCreateRequest::default()
    }
}

fn revisions(response: &WatchResponse) -> Vec<i64> {
    response.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision).collect()
}

#[test]
fn ids_count_from_zero_and_step_over_those_taken() {
    let mut b = Bench::new(StreamConfig::default());
    let ids = [0, 1, 0, 7, -1].map(|id| {
        let created = b.create(WatchCreateRequest { watch_id: id, ..watch("a", "") });
        assert!(created.created && !created.canceled);
        created.watch_id
    });
    assert_eq!(ids, [0, 1, 2, 7, -1]);
    let again = b.create(WatchCreateRequest { watch_id: 7, ..watch("a", "") });
    assert!(again.created && again.canceled);
    assert_eq!(again.watch_id, -1);
    assert_eq!(again.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    assert_eq!(b.hub.counters().watchers.load(std::sync::atomic::Ordering::Relaxed), 5);
}

#[test]
fn what_cannot_be_watched_is_created_and_cancelled_at_once() {
    let mut b = Bench::new(StreamConfig::default());
    b.put("a");
    let negative = b.create(WatchCreateRequest { start_revision: -1, ..watch("a", "") });
    let empty = b.create(watch("b", "a"));
    let equal = b.create(watch("b", "b"));
    b.stream.create(&watch("a", ""), Err(Error::PermissionDenied), &b.world);
    let denied = b.poll().remove(0);
    for (refused, why) in [
        (negative, "etcdserver: mvcc: required revision has been compacted"),
        (empty, "mvcc: watcher range is empty"),
        (equal, "mvcc: watcher range is empty"),
        (denied, "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
    ] {
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, refused.compact_revision), (-1, 0));
        assert_eq!(refused.header.unwrap().revision, 2);
        assert_eq!(refused.cancel_reason, why);
    }
    assert!(b.stream.is_empty());
}

#[test]
fn the_empty_key_is_the_smallest_and_a_zero_end_is_no_end() {
    let mut b = Bench::new(StreamConfig::default());
    b.create(watch("", "\0"));
    b.create(watch("", ""));
    b.create(watch("b", "\0"));
    b.put("a");
    b.put("c");
    b.put("\0");
    let mut seen: Vec<_> = b.poll().iter().map(|r| (r.watch_id, revisions(r))).collect();
    seen.sort();
    assert_eq!(seen, [(0, vec![2, 3, 4]), (1, vec![4]), (2, vec![3])]);
}

#[test]
fn i11496_revision_zero_means_from_now_and_an_older_one_is_read_back() {
    let mut b = Bench::new(StreamConfig::default());
    b.put("a");
    b.put("a");
    assert_eq!(b.create(watch("a", "")).header.unwrap().revision, 3);
    b.create(WatchCreateRequest { start_revision: 2, ..watch("a", "") });
    b.put("a");
    let seen: Vec<_> = b.poll().iter().map(|r| (r.watch_id, revisions(r))).collect();
    assert_eq!(seen, [(0, vec![4]), (1, vec![4])]);
}

#[test]
fn history_comes_after_created_and_before_what_is_new() {
    let mut b = Bench::new(StreamConfig::default());
    b.put("a");
    b.put("a");
    b.stream.create(&WatchCreateRequest { start_revision: 1, ..watch("a", "") }, Ok(()), &b.world);
    b.put("a");
    let all = b.poll();
    assert!(all[0].created);
    let seen: Vec<i64> = all[1..].iter().flat_map(revisions).collect();
    assert_eq!(seen, [2, 3, 4]);
}

#[test]
fn compacted_history_ends_the_watcher_and_its_cancel_is_still_answered() {
    let mut b = Bench::new(StreamConfig::default());
    for _ in 0..4 {
        b.put("a");
    }
    b.world.compact(4);
    let request = WatchCreateRequest { start_revision: 3, ..watch("a", "") };
    b.stream.create(&request, Ok(()), &b.world);
    let all = b.poll();
    assert!(all[0].created && !all[0].canceled);
    assert!(all[1].canceled && !all[1].created);
    assert_eq!((all[1].watch_id, all[1].compact_revision), (0, 4));
    assert_eq!(all[1].cancel_reason, "");
    b.stream.cancel(0, &b.world);
    b.stream.cancel(0, &b.world);
    let all = b.poll();
    assert_eq!(all.len(), 1);
    assert!(all[0].canceled);
    assert_eq!(all[0].compact_revision, 0);
    // Exactly the compacted revision is still there.
    b.stream.create(&WatchCreateRequest { start_revision: 4, ..watch("a", "") }, Ok(()), &b.world);
    assert_eq!(revisions(&b.poll()[1]), [4, 5]);
}

#[test]
fn cancel_says_so_once_and_nothing_for_the_unknown() {
    let mut b = Bench::new(StreamConfig::default());
    b.create(watch("a", ""));
    b.put("a");
    b.stream.cancel(0, &b.world);
    b.stream.cancel(9, &b.world);
    let all = b.poll();
    assert_eq!(all.len(), 1, "what was queued for it is not sent after the cancel");
    assert!(all[0].canceled && all[0].watch_id == 0);
}

#[test]
fn a_watcher_that_is_no_longer_allowed_ends_with_what_waits_for_it() {
    let mut b = Bench::new(StreamConfig::default());
    b.create(watch("a", ""));
    b.create(watch("b", "\0"));
    b.put("a");
    b.put("b");
    let mut out = Vec::new();
    b.stream.poll(&b.world, usize::MAX, &mut out).unwrap();
    assert_eq!(out.len(), 2);
    let only_b = |range: &KeyRange| match range {
        KeyRange::Single(_) => Err(Error::PermissionDenied),
        _ => Ok(()),
    };
    b.stream.recheck(only_b, &b.world, &mut out);
    let shown: Vec<_> = out.iter().map(|m| (m.watch_id, m.canceled, m.events.is_some())).collect();
    assert_eq!(shown, [(1, false, true), (0, true, false)]);
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    assert_eq!(out[1].cancel_reason, denied);
    assert_eq!(b.stream.len(), 1);
    b.put("a");
    assert!(b.poll().is_empty());
    b.put("b");
    assert_eq!(b.poll().len(), 1);
}

#[test]
fn progress_is_answered_once_when_all_are_synced_and_behind_the_events() {
    let mut b = Bench::new(StreamConfig::default());
    b.stream.request_progress();
    assert!(b.poll().is_empty(), "a stream without watchers has no progress");
    b.create(watch("a", ""));
    b.create(watch("b", ""));
    b.put("a");
    b.put("x");
    b.stream.request_progress();
    let all = b.poll();
    assert_eq!(all.len(), 2);
    assert_eq!(revisions(&all[0]), [2]);
    assert_eq!((all[1].watch_id, all[1].header.as_ref().unwrap().revision), (-1, 3));
    assert!(b.poll().is_empty());
    // One that waits for the future silences the stream.
    b.create(WatchCreateRequest { start_revision: 50, ..watch("a", "") });
    b.stream.request_progress();
    assert!(b.poll().is_empty());
}

#[test]
fn i15220_progress_never_passes_what_the_hub_has_not_handed_over() {
    let mut b = Bench::new(StreamConfig::default());
    b.create(watch("a", ""));
    let events = b.world.put("a");
    b.stream.request_progress();
    let all = b.poll();
    assert_eq!(all[0].header.as_ref().unwrap().revision, 1, "published, not yet handed over");
    b.hub.notify(&events, 2);
    b.stream.request_progress();
    let all = b.poll();
    assert_eq!(revisions(&all[0]), [2]);
    assert_eq!(all[1].header.as_ref().unwrap().revision, 2);
}

#[test]
fn periodic_progress_is_left_out_after_events() {
    let config = StreamConfig { progress_interval_ms: 100, ..StreamConfig::default() };
    let mut b = Bench::new(config);
    b.create(WatchCreateRequest { progress_notify: true, ..watch("a", "") });
    b.create(watch("a", ""));
    b.stream.tick(99);
    assert!(b.poll().is_empty());
    b.stream.tick(100);
    let all = b.poll();
    assert_eq!((all.len(), all[0].watch_id, all[0].events.len()), (1, 0, 0));
    b.put("a");
    assert_eq!(b.poll().len(), 2);
    b.stream.tick(200);
    assert!(b.poll().is_empty(), "events were sent since the last");
    b.stream.tick(300);
    assert_eq!(b.poll().len(), 1);
    assert_eq!(b.stream.next_tick(), Some(400));
    b.stream.cancel(0, &b.world);
    assert_eq!(b.stream.next_tick(), None);
}

#[test]
fn i20221_a_watcher_of_the_future_sees_nothing_older_even_after_a_restore() {
    let mut b = Bench::new(StreamConfig::default());
    b.create(WatchCreateRequest { start_revision: 5, progress_notify: true, ..watch("a", "") });
    b.put("a");
    b.world.put("a");
    b.hub.restored(b.world.revision());
    b.stream.tick(1 << 40);
    assert!(b.poll().is_empty());
    b.put("a");
    b.put("a");
    assert_eq!(b.poll().iter().flat_map(revisions).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_full_queue_sends_its_watchers_to_history_without_a_gap() {
    let config = StreamConfig { queue_events: 3, ..StreamConfig::default() };
    let mut b = Bench::new(config);
    b.create(watch("a", ""));
    b.create(watch("a", "b"));
    for _ in 0..10 {
        b.put("a");
    }
    let pending = b.hub.counters().pending_events.load(std::sync::atomic::Ordering::Relaxed);
    assert!(pending <= 3, "the queue is bounded");
    let mut seen = [Vec::new(), Vec::new()];
    for response in b.poll() {
        seen[response.watch_id as usize].extend(revisions(&response));
    }
    let all: Vec<i64> = (2..12).collect();
    assert_eq!(seen, [all.clone(), all]);
    b.put("a");
    assert_eq!(b.poll().len(), 2, "they are synced again");
}

#[test]
fn i17529_a_slow_watcher_that_a_compaction_passes_is_told() {
    let config = StreamConfig { queue_events: 2, ..StreamConfig::default() };
    let mut b = Bench::new(config);
    b.create(watch("a", ""));
    for _ in 0..6 {
        b.put("a");
    }
    b.world.compact(6);
    let all = b.poll();
    assert_eq!(revisions(&all[0]), [2, 3], "what the queue held");
    assert_eq!((all.len(), all[1].compact_revision), (2, 6));
}

#[test]
fn many_events_of_one_watcher_leave_as_one_response() {
    let mut b = Bench::new(StreamConfig::default());
    b.create(watch("a", ""));
    for _ in 0..100 {
        b.put("a");
    }
    let all = b.poll();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].events.len(), 100);
    assert_eq!(all[0].header.as_ref().unwrap().revision, 101);
}

#[test]
fn a_thread_is_woken_once_for_all_its_streams_and_batches() {
    let mut b = Bench::new(StreamConfig::default());
    let mut other = StreamState::new(&b.hub, &b.doorbell, 6, 0, StreamConfig::default());
    b.create(watch("a", ""));
    other.create(&watch("a", "c"), Ok(()), &b.world);
    b.put("a");
    b.put("a");
    b.put("b");
    assert_eq!(b.bell.count(), 1);
    let mut ready = Vec::new();
    b.doorbell.take_ready(&mut ready);
    assert_eq!(ready, [5, 6]);
    b.put("unwatched");
    assert_eq!(b.bell.count(), 1);
    // The first has not looked yet, so it is not named again; the second has.
    other.poll(&b.world, 1 << 20, &mut Vec::new()).unwrap();
    b.put("a");
    assert_eq!(b.bell.count(), 2);
    ready.clear();
    b.doorbell.take_ready(&mut ready);
    assert_eq!(ready, [6]);
}

#[test]
fn watchers_share_the_encoded_event() {
    let mut b = Bench::new(StreamConfig::default());
    for _ in 0..3 {
        b.stream.create(&watch("a", ""), Ok(()), &b.world);
    }
    let mut other = StreamState::new(&b.hub, &b.doorbell, 6, 0, StreamConfig::default());
    other.create(&watch("a", "c"), Ok(()), &b.world);
    b.poll();
    b.put("a");
    let mut out = Vec::new();
    b.stream.poll(&b.world, 1 << 20, &mut out).unwrap();
    other.poll(&b.world, 1 << 20, &mut out).unwrap();
    let pieces: Vec<_> = out.iter().flat_map(|m| m.pieces()).map(|p| p.as_ptr()).collect();
    assert_eq!(pieces.len(), 4);
    assert!(pieces.iter().all(|&p| p == pieces[0]));
}

#[test]
fn a_dropped_stream_leaves_nothing_behind() {
    let mut b = Bench::new(StreamConfig::default());
    b.put("a");
    b.create(watch("a", ""));
    b.create(watch("a", "c"));
    b.stream.create(&WatchCreateRequest { start_revision: 1, ..watch("b", "") }, Ok(()), &b.world);
    b.put("a");
    let Bench { stream, hub, .. } = b;
    drop(stream);
    let c = hub.counters();
    for gauge in [&c.streams, &c.watchers, &c.slow_watchers, &c.pending_events] {
        assert_eq!(gauge.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
    assert!(hub.has_no_subscribers());
}

#[test]
fn i19441_ten_thousand_events_of_one_revision_stay_together() {
    let keys: Vec<String> = (0..10_000).map(|n| format!("k{n:05}")).collect();
    let changes: Vec<_> = keys.iter().map(|key| (key.as_str(), true)).collect();
    for queue_events in [20_000, 100] {
        let config =
            StreamConfig { queue_events, fragment_limit: 100_000, ..StreamConfig::default() };
        let mut b = Bench::new(config);
        b.create(watch("k", "l"));
        b.create(WatchCreateRequest { fragment: true, ..watch("k", "l") });
        let events = b.world.transact(&changes);
        b.hub.notify(&events, b.world.revision());
        let all = b.poll();
        let (parts, whole): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| r.watch_id == 1);
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].events.len(), 10_000);
        assert!(parts.len() > 3);
        assert_eq!(parts.iter().map(|p| p.events.len()).sum::<usize>(), 10_000);
        assert!(parts.iter().all(|p| prost::Message::encoded_len(p) < 100_000));
        let flags: Vec<bool> = parts.iter().map(|p| p.fragment).collect();
        let last = flags.len() - 1;
        assert!(flags.iter().enumerate().all(|(n, &more)| more == (n != last)));
    }
}

#[test]
fn a_disk_that_fails_once_costs_no_event() {
    for queue_events in [100, 1] {
        let config = StreamConfig { queue_events, ..StreamConfig::default() };
        let mut b = Bench::new(config);
        b.create(watch("a", ""));
        b.create(WatchCreateRequest { prev_kv: true, ..watch("a", "") });
        b.create(WatchCreateRequest { prev_kv: true, ..watch("a", "b") });
        for _ in 0..4 {
            b.put("a");
        }
        let (mut out, mut failed) = (Vec::new(), 0);
        loop {
            b.world.failures.set(u32::from(failed < 3));
            match b.stream.poll(&b.world, 1 << 20, &mut out) {
                Ok(false) => break,
                Ok(true) => {}
                Err(_) => failed += 1,
            }
        }
        assert_eq!(failed, 3);
        let mut seen = vec![Vec::new(); 3];
        for response in out.iter().map(|message| decode(message, 1)) {
            seen[response.watch_id as usize].extend(revisions(&response));
        }
        assert_eq!(seen, vec![vec![2, 3, 4, 5]; 3]);
    }
}

/// A world in which an event is published and handed over right after somebody has asked for the revision.
struct Racing {
    world: RefCell<World>,
    hub: Arc<Hub>,
    races: Cell<u32>,
}

impl HistorySource for Racing {
    fn revision(&self) -> i64 {
        let revision = self.world.borrow().revision();
        if self.races.get() > 0 {
            self.races.set(self.races.get() - 1);
            let events = self.world.borrow_mut().put("a");
            self.hub.notify(&events, revision + 1);
        }
        revision
    }

    fn compact_revision(&self) -> i64 {
        self.world.borrow().compacted()
    }

    fn history(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        budget: Budget,
    ) -> Result<History, HistoryError> {
        self.world.borrow().history(range, from, to, budget)
    }

    fn previous_kv(&self, event: &Event) -> io::Result<Option<Bytes>> {
        self.world.borrow().previous_kv(event)
    }
}

#[test]
fn events_that_come_while_a_watcher_joins_are_neither_lost_nor_doubled() {
    for races in 0..12 {
        for start_revision in 0..5 {
            let Bench { mut world, hub, mut stream, .. } = Bench::new(StreamConfig::default());
            hub.notify(&world.put("a"), 2);
            let races = Cell::new(races);
            let source = Racing { world: RefCell::new(world), hub, races };
            let (mut out, request) = (Vec::new(), watch("a", "b"));
            stream.create(&WatchCreateRequest { start_revision, ..request }, Ok(()), &source);
            while stream.poll(&source, 1 << 20, &mut out).unwrap() {}
            let created = decode(&out[0], 1).header.unwrap().revision;
            let first = if start_revision == 0 { created + 1 } else { start_revision.max(2) };
            let seen: Vec<i64> = out[1..].iter().flat_map(|m| revisions(&decode(m, 1))).collect();
            let last = source.world.borrow().revision();
            assert_eq!(seen, (first..=last).collect::<Vec<_>>());
        }
    }
}
