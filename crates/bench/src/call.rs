//! One call at a time, for what a row does before and between its loads. Not here: loads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use prost::Message;

use crate::engine::{Driver, Engine};
use crate::link::{Event, Link};

const LIMIT: Duration = Duration::from_secs(300);

/// Makes a unary call on a connection of its own.
pub fn unary<Answer: Message + Default>(
    to: SocketAddr,
    path: &'static str,
    request: &impl Message,
) -> Result<Answer, String> {
    let mut call = Call::new(path, request, true);
    Engine::connect(to, 1)?.run(&mut call, LIMIT)?;
    let message = call.kept.get(5..).ok_or_else(|| format!("{path} was refused"))?;
    Answer::decode(message).map_err(|e| format!("{path}: {e}"))
}

/// Makes a call and counts the bytes of its answer, of however many messages.
pub fn drain(to: SocketAddr, path: &'static str, request: &impl Message) -> Result<u64, String> {
    let mut call = Call::new(path, request, false);
    Engine::connect(to, 1)?.run(&mut call, LIMIT)?;
    if call.bytes == 0 { Err(format!("{path} was refused")) } else { Ok(call.bytes) }
}

struct Call {
    path: &'static str,
    request: Vec<u8>,
    keep: bool,
    kept: Vec<u8>,
    bytes: u64,
    sent: bool,
    ended: bool,
}

impl Call {
    fn new(path: &'static str, request: &impl Message, keep: bool) -> Call {
        let request = request.encode_to_vec();
        Call { path, request, keep, kept: Vec::new(), bytes: 0, sent: false, ended: false }
    }
}

impl Driver for Call {
    fn pump(&mut self, _now: Instant, _conn: usize, link: &mut Link) {
        if !std::mem::replace(&mut self.sent, true) {
            link.open(self.path, &self.request, true);
        }
    }

    fn event(&mut self, _now: Instant, _conn: usize, event: Event<'_>) {
        match event {
            Event::Data(_, piece) => {
                self.bytes += piece.len() as u64;
                if self.keep {
                    self.kept.extend_from_slice(piece);
                }
            }
            Event::End(_) => self.ended = true,
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn finished(&self, _now: Instant) -> bool {
        self.ended
    }
}
