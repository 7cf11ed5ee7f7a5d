//! Watchers: streams opened somewhere around the newest revision, with all options, some read slowly, opened
//! again when they end, and drained at the end of the run. Not here: what is right (the judges).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::watch_create_request::FilterType;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_sim::history::Watch;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use crate::ask;
use crate::client::Link;
use crate::rng::Rng;
use crate::world::{Phase, World};

const PATH: &str = "/etcdserverpb.Watch/Watch";
/// After this, a watcher that is still not at the end is stuck.
const DRAIN: Duration = Duration::from_secs(20);
/// Time to open a stream. Longer than a request's: what is not opened is not judged.
const OPEN: Duration = Duration::from_secs(2);

struct Watcher {
    world: Arc<World>,
    rng: Rng,
    prefix: &'static str,
    phase: watch::Receiver<Phase>,
    /// Read as slowly as this, per message.
    slow: Option<Duration>,
    /// Where a watch that goes on begins.
    next: i64,
}

/// How a stream ended.
enum End {
    /// All was read.
    Drained,
    /// Another one is to be opened.
    Again,
}

/// Watches until all is read.
pub async fn run(world: Arc<World>, mut rng: Rng, prefix: &'static str) {
    let phase = world.phase.subscribe();
    let slow = rng.percent(25).then(|| Duration::from_millis(rng.between(20, 300)));
    let mut watcher = Watcher { world, rng, prefix, phase, slow, next: 0 };
    let mut deadline = None;
    loop {
        if let Phase::Drain(to) = *watcher.phase.borrow() {
            let until = *deadline.get_or_insert_with(|| Instant::now() + DRAIN);
            if Instant::now() > until {
                let what = format!(
                    "a watch from revision {} did not reach {to} within {DRAIN:?}",
                    watcher.next
                );
                watcher.world.complain(what);
                return;
            }
        }
        match watcher.once(&mut deadline).await {
            Ok(End::Drained) => return,
            Ok(End::Again) => {}
            Err(_) => sleep(Duration::from_millis(watcher.rng.between(10, 50))).await,
        }
    }
}

impl Watcher {
    /// One stream with one watch, from its creation to its end.
    async fn once(&mut self, deadline: &mut Option<Instant>) -> Result<End, String> {
        let client = self.world.client_number();
        let request = self.request();
        let mut link = Link::connect(&self.world.endpoint, OPEN).await?;
        let sent_ns = self.world.now_ns();
        let create =
            pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request.clone())) };
        let (sender, mut stream) =
            link.stream(PATH, create, OPEN).await.map_err(|s| s.to_string())?;
        let member = self.world.member();
        let mut watch =
            Watch { client, member, request, sent_ns, responses: Vec::new(), drained: false };
        let end = self.read(&mut watch, &sender, &mut stream, deadline).await;
        watch.drained = matches!(end, End::Drained);
        self.world.record_watch(watch);
        Ok(end)
    }

    fn request(&mut self) -> pb::WatchCreateRequest {
        let rng = &mut self.rng;
        let newest = self.world.newest();
        let start = match (*self.phase.borrow(), rng.between(0, 9)) {
            // As etcd does, a server tells no progress to a watch that begins later.
            (Phase::Drain(to), _) => self.next.min(to),
            (_, 0) => 0,
            (_, 1 | 2) => newest + rng.range(1, 100),
            (_, 3 | 4) => newest - rng.range(0, 100),
            _ if self.next > 0 => self.next,
            _ => newest - rng.range(0, 20),
        };
        let mut filters = Vec::new();
        match rng.between(0, 9) {
            0 => filters.push(FilterType::Noput.into()),
            1 => filters.push(FilterType::Nodelete.into()),
            _ => {}
        }
        let (key, range_end) = if rng.percent(20) {
            (Bytes::from(format!("{}{}", self.prefix, rng.between(0, 9))), Bytes::new())
        } else {
            (Bytes::from_static(self.prefix.as_bytes()), ask::prefix_end(self.prefix))
        };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: start.max(0),
            progress_notify: rng.percent(50),
            filters,
            prev_kv: rng.percent(50),
            watch_id: 0,
            fragment: rng.percent(50),
        }
    }

    async fn read(
        &mut self,
        watch: &mut Watch,
        sender: &mpsc::Sender<pb::WatchRequest>,
        stream: &mut Streaming<pb::WatchResponse>,
        deadline: &mut Option<Instant>,
    ) -> End {
        // Some are given up while all is well, and opened again elsewhere.
        let patience =
            self.rng.percent(40).then(|| Duration::from_millis(self.rng.between(100, 2500)));
        let begun = Instant::now();
        loop {
            let phase = *self.phase.borrow_and_update();
            if let Phase::Drain(to) = phase {
                if watch.request.start_revision > to {
                    return End::Again;
                }
                if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + DRAIN) {
                    return End::Again;
                }
                self.slow = None;
            } else if patience.is_some_and(|p| begun.elapsed() > p) {
                return End::Again;
            }
            if self.slow.is_none() && (phase != Phase::Load || self.rng.percent(10)) {
                let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                // A full channel has such requests in it already.
                let _ = sender.try_send(pb::WatchRequest { request_union: Some(progress) });
            }
            let message = tokio::select! {
                message = timeout(Duration::from_millis(100), stream.message()) => message,
                _ = self.phase.changed() => continue,
            };
            let Ok(message) = message else { continue };
            let Ok(Some(response)) = message else { return End::Again };
            let revision = response.header.as_ref().map_or(0, |h| h.revision);
            let (canceled, compacted) = (response.canceled, response.compact_revision);
            let is_progress = response.events.is_empty() && !response.created && !canceled;
            self.advance(&response);
            watch.responses.push((self.world.now_ns(), response));
            if canceled {
                self.next = if compacted > 0 { compacted } else { 0 };
                return End::Again;
            }
            if let Phase::Drain(to) = phase
                && is_progress
                && revision >= to
            {
                return End::Drained;
            }
            if let Some(slow) = self.slow {
                sleep(slow).await;
            }
        }
    }

    /// Where the next watch may begin without missing anything.
    fn advance(&mut self, response: &pb::WatchResponse) {
        let last = response.events.last().and_then(|e| e.kv.as_ref()).map(|kv| kv.mod_revision);
        if let Some(last) = last {
            // Of a fragment more of the same revision may come.
            self.next = if response.fragment { last } else { last + 1 };
        }
    }
}
