//! One stream for many watches: the task that opens it, hands out what comes, and opens it again when it breaks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::place::{Place, Step, revision_of, why_canceled};
use super::queue::{Queue, Reader};
use super::{Overflow, WatchResponse, WatchSpec, WatchStream};
use crate::call::hub::Hub;
use crate::call::link::{Link, Opened, Turn};
use crate::call::method::WATCH;
use crate::call::token::RENEWALS;
use crate::call::{CallOptions, Core};
use crate::error::{Error, EtcdError, Result};
use crate::net::endpoint::Endpoint;

/// The longest pause between attempts to open the stream again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What readers and callers tell the task.
pub(super) enum Command {
    Watch(Box<New>),
    /// The reader is gone.
    Cancel(u64),
    /// The reader has read all that was there while nothing more fitted.
    Unpark(u64),
    Progress,
}

/// A watch to set up.
pub(super) struct New {
    pub spec: WatchSpec,
    pub made: oneshot::Sender<Result<WatchStream>>,
    pub commands: mpsc::UnboundedSender<Command>,
}

/// A watch.
struct Entry {
    place: Place,
    queue: Arc<Queue>,
    buffer: usize,
    overflow: Overflow,
    state: State,
    /// Whoever waits for the watch to be set up the first time.
    made: Option<(oneshot::Sender<Result<WatchStream>>, mpsc::UnboundedSender<Command>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not on the server; asked for when the stream is opened.
    Wanted,
    /// Asked for; the answer is to come.
    Asked,
    /// On the server, by this number.
    Live(i64),
    /// Taken off the server until its reader has read.
    Parked,
}

pub(super) struct Task {
    core: Arc<Core>,
    hub: Arc<Hub<Command>>,
    options: CallOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    entries: BTreeMap<u64, Entry>,
    next_key: u64,
    /// The server's numbers.
    ids: HashMap<i64, u64>,
    /// Those whose answer is to come, in the order in which they were asked for.
    asked: VecDeque<u64>,
    out: Option<mpsc::UnboundedSender<pb::WatchRequest>>,
    link: Link<pb::WatchResponse>,
    /// Where the stream is, or was last: not held, so that an endpoint that is taken out ends.
    endpoint: Option<Weak<Endpoint>>,
    generation: u64,
    /// Failures since the last message.
    failures: u32,
    renewals: u32,
}

impl Task {
    pub fn new(
        core: Arc<Core>,
        hub: Arc<Hub<Command>>,
        options: CallOptions,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Task {
        Task {
            core,
            hub,
            options,
            commands,
            entries: BTreeMap::new(),
            next_key: 0,
            ids: HashMap::new(),
            asked: VecDeque::new(),
            out: None,
            link: Link::new(),
            endpoint: None,
            generation: 0,
            failures: 0,
            renewals: 0,
        }
    }

    /// Runs until nobody watches, or the client is closed.
    pub async fn run(mut self) {
        let core = self.core.clone();
        let closed = core.until_closed();
        tokio::pin!(closed);
        loop {
            if self.entries.is_empty() && self.hub.leave(&self.options, &mut self.commands) {
                return;
            }
            tokio::select! {
                biased;
                () = &mut closed => return self.close(),
                command = self.commands.recv() => match command {
                    None => return self.close(),
                    Some(command) => self.command(command),
                },
                turn = self.link.next() => match turn {
                    Turn::Open => self.open(),
                    Turn::Opened(opened) => self.opened(opened).await,
                    Turn::Message(Ok(response)) => self.response(response).await,
                    Turn::Message(Err(error)) => self.broke(error).await,
                },
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Watch(new) => self.add(*new),
            Command::Cancel(key) => {
                if let Some(Entry { state: State::Live(id), .. }) = self.entries.remove(&key) {
                    self.cancel(id);
                }
            }
            Command::Unpark(key) => {
                if let Some(entry) = self.entries.get_mut(&key)
                    && entry.state == State::Parked
                {
                    entry.state = State::Wanted;
                    self.ask(key);
                }
            }
            Command::Progress => {
                self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
            }
        }
    }

    fn add(&mut self, new: New) {
        let key = self.next_key;
        self.next_key += 1;
        let entry = Entry {
            place: Place::new(&new.spec),
            queue: Arc::default(),
            buffer: new.spec.buffer,
            overflow: new.spec.overflow,
            state: State::Wanted,
            made: Some((new.made, new.commands)),
        };
        self.entries.insert(key, entry);
        self.ask(key);
    }

    fn send(&self, request: RequestUnion) {
        if let Some(out) = &self.out {
            let _ = out.send(pb::WatchRequest { request_union: Some(request) });
        }
    }

    /// Asks for a watch, if there is a stream; otherwise opening it does.
    fn ask(&mut self, key: u64) {
        if self.out.is_none() {
            return;
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.state = State::Asked;
        let request = entry.place.request();
        self.asked.push_back(key);
        self.send(RequestUnion::CreateRequest(request));
    }

    fn cancel(&mut self, id: i64) {
        self.ids.remove(&id);
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id }));
    }

    fn open(&mut self) {
        let (out, requests) = mpsc::unbounded_channel();
        self.out = Some(out);
        let wanted: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, e)| e.state != State::Parked)
            .map(|(k, _)| *k)
            .collect();
        for key in wanted {
            self.ask(key);
        }
        let avoid = self.endpoint.take();
        self.link = Link::open(&self.core, &self.options, &WATCH, requests, avoid);
    }

    async fn opened(&mut self, opened: Opened<pb::WatchResponse>) {
        self.endpoint = opened.endpoint;
        self.generation = opened.generation;
        match opened.result {
            Ok(messages) => self.link = Link::Up(messages),
            Err(error) => self.broke(error).await,
        }
    }

    /// The stream is gone: it is opened again if that may help, otherwise all watches end.
    async fn broke(&mut self, error: Error) {
        self.out = None;
        self.asked.clear();
        self.ids.clear();
        for entry in self.entries.values_mut().filter(|e| e.state != State::Parked) {
            entry.state = State::Wanted;
        }
        self.link = Link::Down(Instant::now());
        if error.wants_token() && self.renewals < RENEWALS {
            self.renewals += 1;
            match self.core.renew_token(&self.options, self.generation).await {
                Ok(true) => return,
                Ok(false) => return self.end_all(&error),
                Err(error) => return self.end_all(&error),
            }
        }
        if !error.is_transient() || error.is(EtcdError::NoLeader) {
            return self.end_all(&error);
        }
        if let Error::NoEndpoint(_) = error {
            self.end_new(&error);
        }
        if let Some(endpoint) = self.endpoint.as_ref().and_then(Weak::upgrade) {
            endpoint.suspect();
        }
        self.failures += 1;
        tracing::debug!(%error, watches = self.entries.len(), "the watch stream broke");
        metrics::counter!("etch_client_watch_streams_broken_total").increment(1);
        // At once the first time: another member is most likely ready.
        let doublings = self.failures.min(10) - 1;
        let pause = Duration::from_millis(10) * ((1 << doublings) - 1);
        self.link = Link::Down(Instant::now() + pause.min(PAUSE_MAX));
    }

    async fn response(&mut self, response: pb::WatchResponse) {
        if let Err(error) = self.core.check_cluster(response.header.as_ref()) {
            return self.end_all(&error);
        }
        self.failures = 0;
        if response.created {
            return self.created(response).await;
        }
        if response.watch_id == -1 && !response.canceled {
            let header = response.header.unwrap_or_default();
            return self.progress(&header);
        }
        let Some(&key) = self.ids.get(&response.watch_id) else { return };
        let id = response.watch_id;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match entry.place.take(response) {
            Step::Nothing => {}
            Step::Give(response) => self.give(key, response),
            Step::Over(error) => {
                self.ids.remove(&id);
                self.end(key, error);
            }
        }
    }

    /// The server's answer to the oldest request.
    async fn created(&mut self, response: pb::WatchResponse) {
        let Some(key) = self.asked.pop_front() else { return };
        if response.canceled || response.watch_id == -1 {
            let error = why_canceled(&response);
            if error.wants_token() && self.renewals < RENEWALS {
                return self.broke(error).await;
            }
            return self.end(key, error);
        }
        self.renewals = 0;
        let id = response.watch_id;
        let Some(entry) = self.entries.get_mut(&key) else {
            // Its reader did not wait for it.
            return self.cancel(id);
        };
        let header = response.header.unwrap_or_default();
        entry.place.created(&header);
        entry.state = State::Live(id);
        self.ids.insert(id, key);
        if let Some((made, commands)) = entry.made.take() {
            let reader = Reader { queue: entry.queue.clone(), key, commands, ended: false };
            // If nobody takes it, dropping it cancels the watch.
            let _ = made.send(Ok(WatchStream::new(header, reader)));
        }
    }

    fn progress(&mut self, header: &pb::ResponseHeader) {
        let live = |(key, entry): (&u64, &mut Entry)| {
            let is_live = matches!(entry.state, State::Live(_));
            match is_live.then(|| entry.place.progress(*header)) {
                Some(Step::Give(response)) => Some((*key, response)),
                _ => None,
            }
        };
        let given: Vec<_> = self.entries.iter_mut().filter_map(live).collect();
        for (key, response) in given {
            self.give(key, response);
        }
    }

    /// Gives a response to its reader, if it fits.
    fn give(&mut self, key: u64, response: WatchResponse) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let last = response.events.last().map(revision_of);
        let fits = entry.queue.fits(response.events.len(), entry.buffer);
        if !fits && last.is_none() {
            // A reader that is behind needs no sign of progress.
            return;
        }
        if fits || (entry.overflow == Overflow::Wait && !entry.queue.park()) {
            entry.place.gave(last, response.header.revision);
            return entry.queue.push(response);
        }
        let State::Live(id) = entry.state else { return };
        match entry.overflow {
            Overflow::Wait => entry.state = State::Parked,
            Overflow::Fail => self.end(key, Error::SlowConsumer),
        }
        self.cancel(id);
    }

    /// Ends a watch.
    fn end(&mut self, key: u64, error: Error) {
        let Some(entry) = self.entries.remove(&key) else { return };
        match entry.made {
            Some((made, _)) => {
                let _ = made.send(Err(error));
            }
            None => entry.queue.end(error),
        }
    }

    fn end_all(&mut self, error: &Error) {
        for key in self.entries.keys().copied().collect::<Vec<_>>() {
            self.end(key, error.clone());
        }
    }

    /// Ends those that were never set up: somebody waits for them.
    fn end_new(&mut self, error: &Error) {
        let new: Vec<u64> =
            self.entries.iter().filter(|(_, e)| e.made.is_some()).map(|(k, _)| *k).collect();
        for key in new {
            self.end(key, error.clone());
        }
    }

    /// The client is closed.
    fn close(mut self) {
        loop {
            self.end_all(&Error::Closed);
            if self.hub.leave(&self.options, &mut self.commands) {
                return;
            }
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
        }
    }
}
