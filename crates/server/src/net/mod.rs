//! A net thread: one runtime, its connections, its calls under way. Outcomes come back through its
//! mailbox, all that have come in at once. Not here: what calls do (`services`), and listening (`port`).

pub mod accept;
pub mod bind;
pub mod port;
mod refusals;
pub mod secure;
pub mod stream;
mod thread;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::LeaseGrantResponse;
use etch_rpc::{
    CallInfo, Handler, LocalFuture, MessageBuf, MessageStream, Payload, Peer, PlainBody, Reply,
    Route, Stats, Status, StreamSender,
};
use etch_state::auth::{Held, View};
use etch_state::mvcc::RangeReply;
use etch_state::watch::Doorbell;
use etch_tls::{Bounds, Gate};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tokio::sync::{Notify, watch};

use crate::auth::claim::Claim;
use crate::auth::jwt::Verified;
use crate::driver::helm::SharedHelm;
use crate::driver::inbox::{Caller, Command, Outcome};
use crate::gateway::Front;
use crate::http::Secured;
use crate::member::Member;
use crate::services::lazy::{LargeAnswers, ROOT_AGE};
use crate::services::methods::{self, Method};
use crate::services::{self, status};
use port::Offer;
use refusals::Refusals;

pub use thread::NetThread;

/// A call that waits for its outcome.
struct Waiting {
    reply: Reply,
    method: Method,
    began_ms: u64,
}

/// Whether a call is one message each way or a stream, as the metrics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// One message each way.
    Unary,
    /// A stream in either direction.
    Stream,
}

impl Flow {
    fn name(self) -> &'static str {
        match self {
            Flow::Unary => "unary",
            Flow::Stream => "stream",
        }
    }
}

/// What it takes to know whether this thread may take the node's turn, and to take it.
pub struct Turns {
    /// The node.
    pub helm: Arc<SharedHelm>,
    /// How many connections the thread has.
    pub connections: Arc<AtomicUsize>,
}

/// How long a net thread may be busy with the disk: not at all where a call is under way besides those just gathered, whose
/// answer would wait. (What waits for others, such as watches, has nothing to wait for meanwhile.) A connection that is
/// alone has nothing to say until it is answered; where there are others, one of them may want to read.
fn patience(connections: usize, gathered: usize, waiting: usize) -> Option<Duration> {
    let nobody_waits = gathered > 0 && gathered == waiting;
    nobody_waits.then_some(if connections == 1 { ALONE } else { AMONG_OTHERS })
}

/// One net thread's own things. Everything on the thread shares it through `Rc`.
pub struct Net {
    /// The member.
    pub member: Arc<Member>,
    /// Which thread this is.
    number: usize,
    turns: Turns,
    /// Commands gathered in this turn of a connection.
    outbox: RefCell<Vec<Command>>,
    waiting: RefCell<Vec<Option<Waiting>>>,
    free: RefCell<Vec<usize>>,
    /// Room for what turns bring that this thread takes.
    outcomes: Cell<Vec<(usize, Outcome)>>,
    buffer: RefCell<MessageBuf>,
    doorbell: Arc<Doorbell>,
    streams: RefCell<HashMap<u64, Rc<Notify>>>,
    next_token: Cell<u64>,
    rpc: Arc<Stats>,
    /// Who may do what, as of the last look.
    permissions: RefCell<Held>,
    /// Signed tokens that were good.
    pub verified: Verified,
    /// Calls of this turn by the version that their client names, for the metrics.
    versions: RefCell<Vec<(Vec<u8>, Flow, u64)>>,
    /// Large answers that are under way.
    pub large_answers: LargeAnswers,
    /// Told of when there has been no leader for long.
    leaderless: Notify,
    /// Told of at the end of a connection's turn.
    gathered: Notify,
    /// Where handshakes enter.
    pub gate: Rc<Gate>,
    /// What is logged of connections that were not let in.
    pub refusals: Refusals,
}

/// Streams that ask for a leader end after so many election timeouts without one, as in etcd.
const LEADERLESS: u32 = 3;

/// A net thread takes the node's turn only while writes take less than this, as far as those before tell, where it has
/// one connection: what it saves is two wakes, a tenth of that.
const ALONE: Duration = Duration::from_millis(1);
/// The same where it has others, which then wait no longer than they would for those wakes.
const AMONG_OTHERS: Duration = Duration::from_micros(200);

/// Commands that are handed over at once: more at a time make none of them cheaper, and the node can begin.
const ENOUGH: usize = 64;

/// Room for encoded replies, taken anew when it is used up.
const BUFFER: usize = 64 << 10;

impl Net {
    /// The things of thread `number`.
    pub fn new(
        member: Arc<Member>,
        number: usize,
        turns: Turns,
        doorbell: Arc<Doorbell>,
        rpc: Arc<Stats>,
    ) -> Rc<Self> {
        Rc::new(Self {
            member,
            number,
            turns,
            outbox: RefCell::default(),
            waiting: RefCell::default(),
            free: RefCell::default(),
            outcomes: Cell::default(),
            buffer: RefCell::new(MessageBuf::with_capacity(BUFFER)),
            doorbell,
            streams: RefCell::default(),
            next_token: Cell::new(0),
            rpc,
            permissions: RefCell::default(),
            verified: Verified::default(),
            versions: RefCell::default(),
            large_answers: LargeAnswers::default(),
            leaderless: Notify::new(),
            gathered: Notify::new(),
            gate: Gate::new(Bounds::default()),
            refusals: Refusals::default(),
        })
    }

    /// Sends a request through the log: the client's own bytes, and the call that waits for the outcome.
    pub fn propose(&self, kind: RequestKind, body: Bytes, method: Method, reply: Reply) {
        let caller = self.wait(method, reply);
        self.outbox.borrow_mut().push(Command::Propose(kind, body, caller));
    }

    /// The same in the name of whoever calls, if somebody does.
    pub fn propose_as(
        &self,
        claim: &Claim,
        kind: RequestKind,
        body: Bytes,
        method: Method,
        reply: Reply,
    ) {
        match claim.user() {
            Ok(None) => self.propose(kind, body, method, reply),
            Ok(Some(user)) => {
                let caller = self.wait(method, reply);
                let user = user.clone();
                self.outbox.borrow_mut().push(Command::ProposeAs(user, kind, body, caller));
            }
            Err(error) => self.fail(method, self.member.clock.now_ms(), reply, status(error)),
        }
    }

    /// Asks the newest permissions.
    pub fn with_auth<T>(&self, ask: impl FnOnce(&View) -> T) -> T {
        ask(self.member.auth.hold(&mut self.permissions.borrow_mut()))
    }

    /// Keeps a call until its outcome comes back.
    pub fn wait(&self, method: Method, reply: Reply) -> Caller {
        let waiting = Waiting { reply, method, began_ms: self.member.clock.now_ms() };
        let mut slots = self.waiting.borrow_mut();
        let slot = match self.free.borrow_mut().pop() {
            Some(slot) => {
                slots[slot] = Some(waiting);
                slot
            }
            None => {
                slots.push(Some(waiting));
                slots.len() - 1
            }
        };
        Caller::Net { thread: self.number, slot }
    }

    /// Adds a command to this turn's batch.
    pub fn command(&self, command: Command) {
        self.outbox.borrow_mut().push(command);
    }

    /// Hands over what was gathered outside of a connection's turn.
    pub fn send_now(&self) {
        self.member.inbox.extend(&mut self.outbox.borrow_mut());
    }

    /// The end of a connection's turn: what it gathered is handed over once the others have had theirs.
    pub fn end_turn(&self) {
        let gathered = self.outbox.borrow().len();
        if gathered >= ENOUGH {
            self.send_now();
        } else if gathered > 0 {
            self.gathered.notify_one();
        }
        // Before the answers leave: whoever has one finds it counted.
        self.tell_versions();
    }

    /// Hands over what all connections have gathered that had something to say at the same time, whose turns come before
    /// this task's: the node is woken once for all of them, and what they ask for goes through the log together.
    pub async fn hand_over(&self) {
        loop {
            self.gathered.notified().await;
            self.take_turn();
            self.send_now();
        }
    }

    /// Takes the node's turn with what was gathered, its write of the log included, where that keeps nobody waiting. It
    /// saves a wake of the node's thread and one of this, which together cost about what a flush takes.
    fn take_turn(&self) {
        let mut outbox = self.outbox.borrow_mut();
        let waiting = self.waiting.borrow().len() - self.free.borrow().len();
        let connections = self.turns.connections.load(Ordering::Relaxed);
        let Some(patience) = patience(connections, outbox.len(), waiting) else { return };
        let mut outcomes = self.outcomes.take();
        self.turns.helm.turn_at_rest(self.number, patience, &mut outbox, &mut outcomes);
        drop(outbox);
        self.deliver(&mut outcomes);
        self.outcomes.set(outcomes);
    }

    /// Gives each outcome to the call that waits for it.
    pub fn deliver(&self, outcomes: &mut Vec<(usize, Outcome)>) {
        for (slot, outcome) in outcomes.drain(..) {
            let Some(waiting) = self.waiting.borrow_mut()[slot].take() else { continue };
            self.free.borrow_mut().push(slot);
            self.finish(waiting.method, waiting.began_ms, waiting.reply, outcome);
        }
    }

    /// Ends a call with its outcome.
    pub fn finish(&self, method: Method, began_ms: u64, reply: Reply, outcome: Outcome) {
        match outcome {
            Ok(done) => {
                let mut buffer = self.buffer.borrow_mut();
                self.member.encode(&done, buffer.begin());
                let payload = buffer.end();
                drop(buffer);
                self.handled(method, began_ms, etch_rpc::Code::Ok);
                if method == Method::LeaseGrant {
                    self.granted(&done.body);
                }
                reply.ok(payload);
            }
            Err(error) => self.fail(method, began_ms, reply, status(error)),
        }
    }

    /// Counts the time to live of a lease.
    fn granted(&self, body: &Bytes) {
        if let Ok(granted) = LeaseGrantResponse::decode(body.clone()) {
            self.member.metrics.lease.ttl.record(u64::try_from(granted.ttl).unwrap_or(0));
        }
    }

    /// Ends a call that was answered at once.
    pub fn conclude(
        &self,
        method: Method,
        began_ms: u64,
        reply: Reply,
        answer: Result<etch_state::Reply, Status>,
    ) {
        match answer {
            Ok(done) => self.finish(method, began_ms, reply, Ok(done)),
            Err(status) => self.fail(method, began_ms, reply, status),
        }
    }

    /// Header and range in one buffer, for answers that are not large.
    pub fn encode_range(&self, mut range: RangeReply) -> io::Result<Payload> {
        let mut buffer = self.buffer.borrow_mut();
        let out = buffer.begin();
        self.member.header.encode(range.revision, self.member.view.term(), out, 1);
        while range.fill(out, usize::MAX)? {}
        Ok(buffer.end())
    }

    /// Ends a call with an error.
    pub fn fail(&self, method: Method, began_ms: u64, reply: Reply, status: Status) {
        self.handled(method, began_ms, status.code);
        reply.err(status);
    }

    /// Counts a call that has ended, and logs it if it was slow.
    pub fn handled(&self, method: Method, began_ms: u64, code: etch_rpc::Code) {
        let took_ms = self.member.clock.now_ms().saturating_sub(began_ms);
        self.member.metrics.handled(method, code, took_ms);
        if let Some(op) = method.op() {
            let took = Duration::from_millis(took_ms);
            self.member.metrics.ops.requested(op, code == etch_rpc::Code::Ok, took);
        }
        if took_ms > self.member.limits.slow_call_ms {
            services::log_slow_call(&self.member, method, took_ms);
        }
    }

    /// Counts a call by its client's version; the metrics hear of it once a turn.
    pub fn requested(&self, version: &[u8], flow: Flow) {
        let mut versions = self.versions.borrow_mut();
        match versions.iter_mut().find(|(v, f, _)| v == version && *f == flow) {
            Some((.., count)) => *count += 1,
            None => versions.push((version.to_vec(), flow, 1)),
        }
    }

    fn tell_versions(&self) {
        for (version, flow, count) in self.versions.borrow_mut().drain(..) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let version = String::from_utf8_lossy(&version);
            self.member.metrics.server.requests.add([&version, flow.name()], count);
        }
    }

    /// Returns when there has been no leader for too long.
    pub async fn leader_lost(&self) {
        self.leaderless.notified().await;
    }

    /// Sees to it that no large answer holds a root of the B+tree for long, for as long as the thread runs.
    pub async fn let_go_of_roots(&self) {
        loop {
            tokio::time::sleep(ROOT_AGE).await;
            self.large_answers.let_go(&self.member.store);
        }
    }

    /// Looks for the leader once an election timeout, for as long as the thread runs.
    pub async fn watch_leader(&self) {
        let mut missed = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(self.member.limits.election_ms)).await;
            missed = if self.member.view.leader() == 0 { missed + 1 } else { 0 };
            if missed >= LEADERLESS {
                self.leaderless.notify_waiters();
            }
        }
    }

    /// A place for a watch stream: the token that the doorbell will call it by, and what it waits on.
    pub fn add_stream(&self) -> (u64, Rc<Notify>) {
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        let notify = Rc::new(Notify::new());
        self.streams.borrow_mut().insert(token, Rc::clone(&notify));
        (token, notify)
    }

    /// The stream is gone.
    pub fn remove_stream(&self, token: u64) {
        self.streams.borrow_mut().remove(&token);
    }

    /// The bell of this thread's watch streams.
    pub fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Wakes the watch streams that have something to read.
    pub fn ring_streams(&self, tokens: &mut Vec<u64>) {
        self.doorbell.take_ready(tokens);
        let streams = self.streams.borrow();
        for token in tokens.drain(..) {
            if let Some(stream) = streams.get(&token) {
                stream.notify_one();
            }
        }
    }
}

/// The handler of one connection: its thread's things, and what its port offers.
pub struct NetHandler {
    /// The thread's things.
    pub net: Rc<Net>,
    /// What the port offers.
    pub offer: Offer,
    /// What TLS says of the connection, if it is spoken.
    pub secured: Option<Secured>,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

impl Handler for NetHandler {
    fn route(&self, path: &str) -> Route {
        if self.offer.has_grpc() { methods::route(path) } else { Route::UnknownService }
    }

    fn unary(&self, method: u16, call: CallInfo, message: Bytes, reply: Reply) {
        services::unary(&self.net, Method::from_number(method), call, message, reply);
    }

    fn batch_end(&self) {
        self.net.end_turn();
    }

    fn stream(
        self: Rc<Self>,
        method: u16,
        call: CallInfo,
        messages: MessageStream,
        sender: StreamSender,
    ) -> LocalFuture<Status> {
        let net = Rc::clone(&self.net);
        Box::pin(services::stream(net, Method::from_number(method), call, messages, sender))
    }

    fn plain(
        self: Rc<Self>,
        request: http::Request<Bytes>,
        peer: Rc<Peer>,
    ) -> LocalFuture<http::Response<PlainBody>> {
        Box::pin(async move {
            let whole = |body| Box::pin(Full::new(body).map_err(Into::into)) as PlainBody;
            let stop = self.stop.clone();
            let pages = self.offer.pages();
            let front = Front::new(Rc::clone(&self.net), pages, peer, self.secured, stop);
            let (head, body) = request.map(whole).into_parts();
            match front.respond(head, body).await {
                Ok(response) => response,
                Err((head, _)) => self.net.member.site.respond(pages, &head).await.map(whole),
            }
        })
    }

    fn stats(&self) -> &Stats {
        &self.net.rpc
    }
}

#[cfg(test)]
mod tests {
    use super::{ALONE, AMONG_OTHERS, patience};

    #[test]
    fn how_long_a_thread_may_be_busy_with_the_disk() {
        assert_eq!(patience(1, 1, 1), Some(ALONE));
        assert_eq!(patience(1, 3, 3), Some(ALONE));
        assert_eq!(patience(2, 1, 1), Some(AMONG_OTHERS), "another connection may want to read");
        assert_eq!(patience(1, 0, 0), None, "there is nothing to do");
        assert_eq!(patience(1, 1, 2), None, "an earlier call is under way");
    }
}
