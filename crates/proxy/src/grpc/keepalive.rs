//! Renewals of leases: those of all clients with the same token travel on one stream of the cluster's, and the
//! same lease is asked for once at a time. Nothing is renewed that a client has not just asked for, so a lease
//! whose client goes silent expires in time. Not here: anything else of leases, which is passed on as it is.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use etch_rpc::{CallInfo, Code, MessageStream, Status, StreamSender};
use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Proxy;
use super::forward::headers;

/// Renewals of one client that wait for their answer at the most; then no more are read from it.
const WAITING: usize = 4096;
/// Before a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// In whose name a stream is: its token, and whether it shall end without a leader.
type Name = (Option<HeaderValue>, bool);

/// All streams.
#[derive(Default)]
pub(super) struct Lines {
    lines: RefCell<HashMap<Name, Rc<Line>>>,
    sent: Cell<u64>,
}

/// Who waits for an answer, and for how many of them.
type Waiting = Vec<(Rc<Client>, usize)>;

/// One stream of the cluster's.
struct Line {
    name: Name,
    headers: HeaderMap,
    /// Who waits for a lease's answer, and how many times.
    waiting: RefCell<HashMap<i64, Waiting>>,
    /// What has not been sent yet.
    unsent: RefCell<VecDeque<i64>>,
    more: Notify,
    clients: Cell<usize>,
    task: RefCell<Option<AbortHandle>>,
}

/// One client's stream.
#[derive(Default)]
struct Client {
    answers: RefCell<VecDeque<Bytes>>,
    waiting: Cell<usize>,
    wake: Notify,
    room: Notify,
    ended: RefCell<Option<Status>>,
}

/// Serves one client's stream.
pub(super) async fn serve(
    proxy: Rc<Proxy>,
    call: CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    let mut headers = headers(&call);
    headers.remove("grpc-timeout");
    let seat = Seat { line: proxy.lines.line(&proxy, headers), client: Rc::default(), proxy };
    let ended = tokio::select! {
        ended = seat.read(&mut messages) => ended,
        ended = seat.write(&sender) => ended,
    };
    ended.err().unwrap_or(Status::OK)
}

/// A client's place at a line, for as long as its stream lives.
struct Seat {
    proxy: Rc<Proxy>,
    line: Rc<Line>,
    client: Rc<Client>,
}

impl Seat {
    async fn read(&self, messages: &mut MessageStream) -> Result<(), Status> {
        while let Some(message) = messages.next().await? {
            self.proxy.calls.keep_alive().received();
            let request = LeaseKeepAliveRequest::decode(message).map_err(|error| {
                Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}"))
            })?;
            while self.client.waiting.get() >= WAITING {
                self.client.room.notified().await;
            }
            self.client.waiting.set(self.client.waiting.get() + 1);
            self.line.ask(request.id, &self.client);
        }
        // What was asked for is still answered; then the stream ends well.
        while self.client.waiting.get() > 0 || !self.client.answers.borrow().is_empty() {
            self.client.room.notified().await;
        }
        Ok(())
    }

    async fn write(&self, sender: &StreamSender) -> Result<(), Status> {
        let client = &self.client;
        loop {
            loop {
                let Some(answer) = client.answers.borrow_mut().pop_front() else { break };
                sender.send(answer).await?;
                self.proxy.calls.keep_alive().sent(1);
                client.room.notify_one();
            }
            if let Some(status) = client.ended.borrow_mut().take() {
                return Err(status);
            }
            client.wake.notified().await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // What nobody waits for any more is not asked again on the next stream.
        self.line.waiting.borrow_mut().retain(|_, waiting| {
            waiting.retain(|(client, _)| !Rc::ptr_eq(client, &self.client));
            !waiting.is_empty()
        });
        self.line.clients.set(self.line.clients.get() - 1);
        if self.line.clients.get() == 0 {
            self.proxy.lines.close(&self.line);
        }
    }
}

impl Lines {
    /// Streams of the cluster.
    pub(super) fn count(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Renewals that were sent to the cluster.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    fn line(&self, proxy: &Rc<Proxy>, headers: HeaderMap) -> Rc<Line> {
        let token = headers.get("token").or_else(|| headers.get("authorization")).cloned();
        let name = (token, headers.contains_key("hasleader"));
        let mut lines = self.lines.borrow_mut();
        let line = lines.entry(name.clone()).or_insert_with(|| {
            let line = Rc::new(Line {
                name,
                headers,
                waiting: RefCell::default(),
                unsent: RefCell::default(),
                more: Notify::new(),
                clients: Cell::new(0),
                task: RefCell::default(),
            });
            let task = tokio::task::spawn_local(run(Rc::clone(&line), Rc::clone(proxy)));
            *line.task.borrow_mut() = Some(task.abort_handle());
            line
        });
        line.clients.set(line.clients.get() + 1);
        Rc::clone(line)
    }

    fn close(&self, line: &Rc<Line>) {
        let mut lines = self.lines.borrow_mut();
        if lines.get(&line.name).is_some_and(|known| Rc::ptr_eq(known, line)) {
            lines.remove(&line.name);
        }
        if let Some(task) = line.task.borrow_mut().take() {
            task.abort();
        }
    }
}

impl Line {
    fn ask(&self, id: i64, client: &Rc<Client>) {
        let mut waiting = self.waiting.borrow_mut();
        let asked = waiting.entry(id).or_default();
        if asked.is_empty() {
            self.unsent.borrow_mut().push_back(id);
            self.more.notify_one();
        }
        match asked.iter_mut().find(|(known, _)| Rc::ptr_eq(known, client)) {
            Some((_, times)) => *times += 1,
            None => asked.push((Rc::clone(client), 1)),
        }
    }

    /// One stream, until it breaks off.
    async fn session(&self, proxy: &Proxy) -> Result<(), Status> {
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        let (mut out, mut incoming) = proxy.upstream.stream(path, &self.headers).await?;
        loop {
            tokio::select! {
                message = incoming.next() => match message? {
                    Some(message) => self.answer(&message),
                    None => return Ok(()),
                },
                () = self.more.notified() => {
                    loop {
                        let Some(id) = self.unsent.borrow_mut().pop_front() else { break };
                        let request = LeaseKeepAliveRequest { id }.encode_to_vec().into();
                        out.send(&request).await?;
                        proxy.lines.sent.set(proxy.lines.sent.get() + 1);
                    }
                }
            }
        }
    }

    fn answer(&self, message: &Bytes) {
        let Ok(response) = LeaseKeepAliveResponse::decode(message.clone()) else { return };
        let waiting = self.waiting.borrow_mut().remove(&response.id);
        for (client, times) in waiting.unwrap_or_default() {
            client.answers.borrow_mut().extend(std::iter::repeat_n(message.clone(), times));
            client.waiting.set(client.waiting.get() - times);
            client.wake.notify_one();
        }
    }

    /// The stream broke off: what somebody waits for is asked again on the next.
    fn ask_again(&self) {
        let mut again: Vec<i64> = self.waiting.borrow().keys().copied().collect();
        again.sort_unstable();
        *self.unsent.borrow_mut() = again.into();
        self.more.notify_one();
    }

    /// Ends the clients' streams: the cluster has said no.
    fn fail(&self, status: &Status) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for (client, _) in waiting.into_values().flatten() {
            *client.ended.borrow_mut() = Some(status.clone());
            client.wake.notify_one();
        }
        self.unsent.borrow_mut().clear();
    }
}

/// Keeps a line's stream. What was asked on one that broke off is asked again on the next: to renew twice does
/// no harm.
async fn run(line: Rc<Line>, proxy: Rc<Proxy>) {
    loop {
        let ended = line.session(&proxy).await;
        match ended {
            Err(status)
                if status.code != Code::Unavailable
                    || &*status.message == "etcdserver: no leader" =>
            {
                line.fail(&status);
            }
            _ => line.ask_again(),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(proxy: &Rc<Proxy>) -> Seat {
        let line = proxy.lines.line(proxy, HeaderMap::new());
        Seat { line, client: Rc::default(), proxy: Rc::clone(proxy) }
    }

    /// What goes out next.
    fn unsent(line: &Line) -> Vec<i64> {
        line.unsent.borrow_mut().drain(..).collect()
    }

    #[test]
    fn what_nobody_waits_for_is_not_renewed_on_the_next_stream() {
        Proxy::run_alone(async |proxy| {
            let (gone, stays) = (seat(&proxy), seat(&proxy));
            let line = Rc::clone(&stays.line);
            for (seat, lease) in [(&gone, 7), (&gone, 8), (&stays, 8), (&stays, 9)] {
                line.ask(lease, &seat.client);
            }
            assert_eq!(unsent(&line), [7, 8, 9], "each lease once");
            drop(gone);
            line.ask_again();
            assert_eq!(unsent(&line), [8, 9]);
        });
    }

    #[test]
    fn everybody_who_asked_is_answered_as_often_as_it_asked() {
        Proxy::run_alone(async |proxy| {
            let (one, other) = (seat(&proxy), seat(&proxy));
            for seat in [&one, &one, &other] {
                seat.client.waiting.set(seat.client.waiting.get() + 1);
                seat.line.ask(7, &seat.client);
            }
            assert_eq!(unsent(&one.line), [7]);
            let answer = LeaseKeepAliveResponse { id: 7, ttl: 5, ..<_>::default() };
            one.line.answer(&answer.encode_to_vec().into());
            assert_eq!(one.client.answers.borrow().len(), 2);
            assert_eq!(other.client.answers.borrow().len(), 1);
            assert_eq!((one.client.waiting.get(), other.client.waiting.get()), (0, 0));
            one.line.ask_again();
            assert!(unsent(&one.line).is_empty());
        });
    }
}
