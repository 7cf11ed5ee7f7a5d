//! From what has come in to calls: each request is checked and, once its
//! message is whole, handed to the handler. Not here: frames (`codec`), and
//! what a call's headers mean (`http2`).

use std::rc::Rc;

use bytes::Bytes;
use http::HeaderValue;

use crate::call::{CallInfo, Handler, Route};
use crate::codec::Event;
use crate::codec::frame::Reason;
use crate::codec::head::Head;
use crate::codec::streams::Key;
use crate::deframe::Deframer;
use crate::http2::{check_encoding, check_head, unknown_path};
use crate::payload::PREFIX;
use crate::plain::Plain;
use crate::reply::{Inner, Reply};
use crate::shared::{Held, Shared};
use crate::status::{Code, Status};
use crate::stream::{MessageStream, StreamTask};

/// The requests of one connection, on their way to the handler.
pub(crate) struct Intake<H> {
    handler: Rc<H>,
    shared: Rc<Shared>,
    /// The unary calls whose message is not there yet, each where its stream stands.
    waiting: Vec<Option<Call>>,
    /// Calls were given to the handler and `batch_end` not yet said.
    handed_over: bool,
    /// Bytes used that the client was not told of.
    used: u32,
}

/// A unary call whose message is not there yet.
struct Call {
    key: Key,
    method: u16,
    gzip: bool,
    info: CallInfo,
    reply: Reply,
    /// Once a part of it is there.
    parts: Option<Box<Parts>>,
}

struct Parts {
    deframer: Deframer,
    held: Held,
}

/// Places are kept up to so many when nobody waits.
const KEPT: usize = 256;

impl<H: Handler> Intake<H> {
    pub(crate) fn new(handler: Rc<H>, shared: Rc<Shared>) -> Intake<H> {
        Intake { handler, shared, waiting: Vec::new(), handed_over: false, used: 0 }
    }

    /// Takes what has come in.
    pub(crate) fn take(&mut self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            match event {
                Event::Request { key, head, timeout, ended } => {
                    self.request(key, head, timeout, ended);
                }
                Event::Data { key, data, ended } => self.data(key, data, ended),
                Event::Gone { key } => self.gone(key),
            }
        }
        let used = std::mem::take(&mut self.used);
        if used > 0 {
            self.shared.mux(|mux| mux.release(used));
        }
    }

    /// All that came in this turn is handed over.
    pub(crate) fn end_turn(&mut self) {
        if std::mem::take(&mut self.handed_over) {
            self.handler.batch_end();
        }
        if self.waiting.len() > KEPT && self.waiting.iter().all(Option::is_none) {
            self.waiting = Vec::new();
        }
    }

    fn request(&mut self, key: Key, head: Rc<Head>, timeout: Option<HeaderValue>, ended: bool) {
        let shared = self.shared.clone();
        // It may have been reset since.
        if !shared.mux(|mux| mux.is_open(key)) {
            return;
        }
        if shared.calls() >= shared.limits.max_concurrent_streams {
            return shared.mux(|mux| mux.reset(key, Reason::REFUSED_STREAM));
        }
        if head.content.is_none() {
            self.attach(key, ended);
            let plain = Plain { shared, key };
            tokio::task::spawn_local(plain.run(self.handler.clone(), head, timeout));
            return;
        }
        shared.call_began();
        let inner = Inner { shared, key, head, deadline: None, sending: None };
        self.begin(inner, timeout, ended);
    }

    /// From now on the stream's data waits with it to be read.
    fn attach(&mut self, key: Key, ended: bool) {
        self.shared.mux(|mux| {
            mux.attach(key);
            if ended {
                mux.put_unread(key, Bytes::new(), true);
            }
        });
    }

    fn begin(&mut self, mut inner: Inner, timeout: Option<HeaderValue>, ended: bool) {
        let head = inner.head.clone();
        match check_head(&head.method, timeout.as_ref()) {
            Ok(deadline) => inner.deadline = deadline,
            Err((http, status)) => return inner.refuse_with(http, &status),
        }
        let (route, gzip) = match self.check(&head) {
            Ok(good) => good,
            Err(status) => return inner.refuse(&status),
        };
        let key = inner.key;
        let peer = self.shared.peer.clone();
        let info = CallInfo { head, peer, deadline: inner.deadline };
        match route {
            Route::Unary(_) if ended => inner.refuse(&no_message(0)),
            Route::Unary(method) => {
                let reply = Reply::new(inner);
                self.wait(Call { key, method, gzip, info, reply, parts: None });
            }
            Route::Stream(method) => {
                self.attach(key, ended);
                let deframer = Deframer::new(self.shared.limits.max_recv_message, gzip);
                let messages = MessageStream::new(key, deframer, self.shared.clone());
                let (task, sender) = StreamTask::new(inner, info.deadline);
                let future = self.handler.clone().stream(method, info, messages, sender);
                tokio::task::spawn_local(task.run(future));
            }
            Route::UnknownMethod | Route::UnknownService => {}
        }
    }

    /// Where a call leads and whether its messages may be packed; found out once for all that say the same.
    fn check(&self, head: &Head) -> Result<(Route, bool), Status> {
        if let Some(good) = head.good.get() {
            return Ok(good);
        }
        let path = head.uri.path();
        let route = match self.handler.route(path) {
            Route::UnknownMethod => return Err(unknown_path(path, true)),
            Route::UnknownService => return Err(unknown_path(path, false)),
            route => route,
        };
        let good = (route, check_encoding(&head.headers)?);
        head.good.set(Some(good));
        Ok(good)
    }

    fn wait(&mut self, call: Call) {
        let slot = call.key.slot as usize;
        if self.waiting.len() <= slot {
            self.waiting.resize_with(slot + 1, || None);
        }
        self.waiting[slot] = Some(call);
    }

    fn waits(&mut self, key: Key) -> Option<Call> {
        let place = self.waiting.get_mut(key.slot as usize)?;
        place.take_if(|call| call.key == key)
    }

    fn data(&mut self, key: Key, data: Bytes, ended: bool) {
        let len = data.len() as u32;
        let Some(mut call) = self.waits(key) else {
            // A stream that was attached since, or one that nobody reads any more.
            return self.shared.mux(|mux| mux.put_unread(key, data, ended));
        };
        self.used += len;
        if !ended {
            self.shared.mux(|mux| mux.release_stream(key, len));
        }
        match call.feed(&self.shared, data, ended) {
            Ok(Some(message)) => self.hand_over(call, message),
            Ok(None) => self.wait(call),
            Err(status) => call.reply.err(status),
        }
    }

    fn hand_over(&mut self, call: Call, message: Bytes) {
        let Call { method, info, reply, .. } = call;
        let stats = self.shared.stats();
        stats.messages_in.add(1);
        stats.message_bytes_in.add(message.len() as u64);
        self.handed_over = true;
        reply.whole();
        self.handler.unary(method, info, message, reply);
    }

    /// Nobody waits for this call any more.
    pub(crate) fn gone(&mut self, key: Key) {
        if let Some(call) = self.waits(key) {
            call.reply.abandon();
        }
    }
}

impl Call {
    /// Takes more of the body. The first message is the request; Go's server
    /// does not wait for the end of the stream behind it, nor does this.
    fn feed(
        &mut self,
        shared: &Rc<Shared>,
        mut data: Bytes,
        ended: bool,
    ) -> Result<Option<Bytes>, Status> {
        let max = shared.limits.max_recv_message;
        if self.parts.is_none() {
            if let Some(len) = whole(&data, max) {
                data.truncate(PREFIX + len);
                let _ = data.split_to(PREFIX);
                return Ok(Some(data));
            }
            let deframer = Deframer::new(max, self.gzip);
            let held = Held::new(shared.clone());
            self.parts = Some(Box::new(Parts { deframer, held }));
        }
        let Some(parts) = &mut self.parts else { return Ok(None) };
        parts.deframer.push(data);
        let message = parts.deframer.next()?;
        if message.is_none() && ended {
            return Err(no_message(parts.deframer.held()));
        }
        parts.held.set(if message.is_none() { parts.deframer.held() } else { 0 })?;
        Ok(message)
    }
}

/// The length of the message that stands in front, unpacked and whole.
fn whole(data: &[u8], max: usize) -> Option<usize> {
    let [0, a, b, c, d] = *data.first_chunk::<PREFIX>()? else { return None };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    (len <= max && data.len() - PREFIX >= len).then_some(len)
}

/// The client has ended its side without a message.
fn no_message(held: usize) -> Status {
    Status::new(Code::Unknown, if held > 0 { "unexpected EOF" } else { "EOF" })
}
