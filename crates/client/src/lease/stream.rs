//! One stream for many leases: the task that asks, listens, and opens the stream again when it breaks or is stuck.

use std::sync::{Arc, Weak};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::handle::{KeepAlive, Slot};
use super::keeper::Keeper;
use crate::call::hub::Hub;
use crate::call::link::{Link, Opened, Turn};
use crate::call::method::LEASE_KEEP_ALIVE;
use crate::call::token::RENEWALS;
use crate::call::{CallOptions, Core};
use crate::error::{Error, EtcdError};
use crate::net::endpoint::Endpoint;

/// How long to wait between attempts to open the stream.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the first answer may take where the configuration has no dial timeout. Go's client adds a second as well.
const FIRST: Duration = Duration::from_secs(5);

/// What holders tell the task.
pub(super) enum Command {
    Keep(i64, Arc<Slot>),
    /// A holder is gone.
    Release(i64),
}

/// Begins to keep a lease, without waiting for the first answer.
pub(super) fn keep(
    hub: &Arc<Hub<Command>>,
    core: &Arc<Core>,
    options: CallOptions,
    id: i64,
) -> KeepAlive {
    let slot = Slot::new();
    let (core, own) = (core.clone(), hub.clone());
    let run = |options, commands| Task::new(core, own, options, commands).run();
    hub.tell(options, "leases", run, |sender| {
        let _ = sender.send(Command::Keep(id, slot.clone()));
        KeepAlive {
            id,
            slot: Some(slot),
            commands: sender.clone(),
            ended: false,
            first: pb::LeaseKeepAliveResponse::default(),
        }
    })
}

struct Task {
    core: Arc<Core>,
    hub: Arc<Hub<Command>>,
    options: CallOptions,
    commands: mpsc::UnboundedReceiver<Command>,
    keeper: Keeper,
    out: Option<mpsc::UnboundedSender<pb::LeaseKeepAliveRequest>>,
    link: Link<pb::LeaseKeepAliveResponse>,
    endpoint: Option<Weak<Endpoint>>,
    generation: u64,
    renewals: u32,
}

impl Task {
    fn new(
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
            keeper: Keeper::default(),
            out: None,
            link: Link::new(),
            endpoint: None,
            generation: 0,
            renewals: 0,
        }
    }

    async fn run(mut self) {
        let core = self.core.clone();
        let closed = core.until_closed();
        tokio::pin!(closed);
        loop {
            if self.keeper.is_empty() && self.hub.leave(&self.options, &mut self.commands) {
                return;
            }
            // While the stream is down, leases run out all the same; nothing is asked.
            let due = self.keeper.next();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
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
                    Turn::Message(Ok(response)) => self.answer(response),
                    Turn::Message(Err(error)) => self.broke(error).await,
                },
                () = due => self.due(),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Keep(id, slot) => {
                let limit = self.core.config.dial_timeout;
                let first = if limit.is_zero() { FIRST } else { limit } + Duration::from_secs(1);
                self.keeper.add(id, &slot, Instant::now(), first);
            }
            Command::Release(id) => self.keeper.release(id),
        }
    }

    fn due(&mut self) {
        let now = Instant::now();
        let due = self.keeper.due(now);
        if let Some(out) = &self.out {
            for id in due.ask {
                let _ = out.send(pb::LeaseKeepAliveRequest { id });
            }
            if due.stuck {
                self.down("no answer in time");
            }
        } else {
            // Not sent after all: it is when the stream is open again.
            self.keeper.broke(now + PAUSE);
        }
    }

    fn open(&mut self) {
        let (out, requests) = mpsc::unbounded_channel();
        self.out = Some(out);
        self.keeper.broke(Instant::now());
        let avoid = self.endpoint.take();
        self.link = Link::open(&self.core, &self.options, &LEASE_KEEP_ALIVE, requests, avoid);
    }

    async fn opened(&mut self, opened: Opened<pb::LeaseKeepAliveResponse>) {
        self.endpoint = opened.endpoint;
        self.generation = opened.generation;
        match opened.result {
            Ok(messages) => self.link = Link::Up(messages),
            Err(error) => self.broke(error).await,
        }
    }

    fn answer(&mut self, response: pb::LeaseKeepAliveResponse) {
        if let Err(error) = self.core.check_cluster(response.header.as_ref()) {
            return self.keeper.lose_all(&error);
        }
        self.renewals = 0;
        self.keeper.answer(response, Instant::now(), fastrand::f64());
    }

    async fn broke(&mut self, error: Error) {
        self.down(&error.to_string());
        if error.wants_token() && self.renewals < RENEWALS {
            self.renewals += 1;
            if let Ok(true) = self.core.renew_token(&self.options, self.generation).await {
                return;
            }
        }
        // Without a leader the lease may live on: only who asked to be told is. All else is tried again until the
        // leases run out.
        let told = self.options.require_leader && error.is(EtcdError::NoLeader);
        let helpless = !error.is_transient() && !error.wants_token();
        if told || helpless {
            self.keeper.lose_all(&error);
        }
    }

    fn down(&mut self, why: &str) {
        tracing::debug!(why, "the keep-alive stream broke");
        metrics::counter!("etch_client_keep_alive_streams_broken_total").increment(1);
        if let Some(endpoint) = self.endpoint.as_ref().and_then(Weak::upgrade) {
            endpoint.suspect();
        }
        self.out = None;
        self.keeper.broke(Instant::now());
        self.link = Link::Down(Instant::now() + PAUSE);
    }

    /// The client is closed.
    fn close(mut self) {
        loop {
            self.keeper.lose_all(&Error::Closed);
            if self.hub.leave(&self.options, &mut self.commands) {
                return;
            }
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
        }
    }
}
