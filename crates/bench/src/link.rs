//! One HTTP/2 connection as a load generator needs it: requests that lie ready as bytes go out, pieces of
//! answers come in. It costs the loader little: the header block of a path is indexed after its first use,
//! answers' headers are not looked at (a call that is refused answers without data), and whatever waits
//! leaves in one write. Not here: when which call is made (`closed`, `open`, ...).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const INITIAL_WINDOW_SIZE: u16 = 4;
/// What a peer takes before it has said otherwise, RFC 9113 6.9.2.
const DEFAULT_WINDOW: i64 = 65_535;
/// The largest payload that a peer takes unasked.
const FRAME_MAX: usize = 16_384;
/// Bytes that a stream, and a connection, may have sent us unread: enough that no list waits for us.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const READ_AT_ONCE: usize = 256 << 10;
/// The static table ends at 61; the newest entry of a connection's own comes next.
const DYNAMIC: usize = 62;

/// What came in on a stream.
pub enum Event<'a> {
    /// A piece of its messages, with gRPC's five bytes before each.
    Data(u32, &'a [u8]),
    /// Its end.
    End(u32),
}

struct Stream {
    id: u32,
    /// Bytes that came in and were not yet granted again.
    unread: u32,
    send_window: i64,
}

/// A message that waits for room in a window.
struct Blocked {
    id: u32,
    framed: Vec<u8>,
    end: bool,
}

/// A connection that never blocks.
pub struct Link {
    socket: TcpStream,
    authority: String,
    /// Of the user whose calls these are, where there are users.
    token: String,
    /// What came in and is no whole frame yet.
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    streams: Vec<Stream>,
    blocked: VecDeque<Blocked>,
    next_id: u32,
    send_window: i64,
    /// The send window that a new stream has.
    peer_window: i64,
    unread: u32,
    /// What is in the peer's table of headers, in the order of its first use.
    known: Vec<&'static str>,
}

impl Link {
    /// Connects and greets.
    pub fn connect(to: SocketAddr) -> io::Result<Link> {
        let socket = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut link = Link {
            socket,
            authority: to.to_string(),
            token: String::new(),
            input: vec![0; READ_AT_ONCE],
            filled: 0,
            output: Vec::with_capacity(64 << 10),
            streams: Vec::new(),
            blocked: VecDeque::new(),
            next_id: 1,
            send_window: DEFAULT_WINDOW,
            peer_window: DEFAULT_WINDOW,
            unread: 0,
            known: Vec::new(),
        };
        link.output.extend_from_slice(PREFACE);
        link.frame(6, SETTINGS, 0, 0);
        link.output.extend_from_slice(&INITIAL_WINDOW_SIZE.to_be_bytes());
        link.output.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
        link.grant(0, CONNECTION_WINDOW - DEFAULT_WINDOW as u32);
        link.flush()?;
        Ok(link)
    }

    /// The socket, to wait for it.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whose the calls are from now on.
    pub fn bear(&mut self, token: &str) {
        self.token = token.into();
    }

    /// True if what was to leave has not left.
    pub fn wants_to_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Begins a call with its first message, and ends our side of it where it has only that one. The answer's
    /// events bear the number returned.
    pub fn open(&mut self, path: &'static str, message: &[u8], end: bool) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        self.streams.push(Stream { id, unread: 0, send_window: self.peer_window });
        let at = self.output.len();
        self.frame(0, HEADERS, END_HEADERS, id);
        self.header_block(path);
        let len = self.output.len() - at - 9;
        self.output[at..at + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        self.send(id, message, end);
        id
    }

    /// Sends a further message on a stream.
    pub fn send(&mut self, id: u32, message: &[u8], end: bool) {
        let len = message.len() + 5;
        let fits = len <= FRAME_MAX
            && self.blocked.is_empty()
            && self.send_window >= len as i64
            && self.stream(id).is_some_and(|s| s.send_window >= len as i64);
        if fits {
            self.charge(id, len);
            self.frame(len, DATA, if end { END_STREAM } else { 0 }, id);
            self.output.push(0);
            self.output.extend_from_slice(&(message.len() as u32).to_be_bytes());
            self.output.extend_from_slice(message);
            return;
        }
        let mut framed = Vec::with_capacity(len);
        framed.push(0);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        self.blocked.push_back(Blocked { id, framed, end });
        self.unblock();
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.output.len() {
            match self.socket.write(&self.output[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.drain(..written);
        Ok(())
    }

    /// Reads what has come in, and hands every piece of an answer to `on`.
    pub fn read(&mut self, on: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        loop {
            if self.filled == self.input.len() {
                self.input.resize(self.filled + READ_AT_ONCE, 0);
            }
            match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.filled += n;
                    let full = self.filled == self.input.len();
                    self.frames(on)?;
                    if !full {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes every whole frame of the input.
    fn frames(&mut self, on: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let mut result = Ok(());
        while result.is_ok() && self.filled - at >= 9 {
            let head = &input[at..at + 9];
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if self.filled - at < 9 + len {
                break;
            }
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            result = self.take(head[3], head[4], id, &input[at + 9..at + 9 + len], on);
            at += 9 + len;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        result
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        on: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.received(id, payload.len() as u32);
                on(Event::Data(id, without_padding(flags, payload)));
                if flags & END_STREAM != 0 {
                    self.ended(id, on);
                }
            }
            HEADERS if flags & END_STREAM != 0 => self.ended(id, on),
            RST_STREAM => self.ended(id, on),
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            PING if flags & ACK == 0 => {
                self.frame(8, PING, ACK, 0);
                self.output.extend_from_slice(payload);
            }
            WINDOW_UPDATE => self.granted(id, payload),
            GOAWAY => return Err(io::Error::other("the server ends the connection")),
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, id: u32, on: &mut dyn FnMut(Event<'_>)) {
        if let Some(at) = self.streams.iter().position(|s| s.id == id) {
            self.streams.swap_remove(at);
            on(Event::End(id));
        }
    }

    /// Grants again what was read, in pieces of half a window.
    fn received(&mut self, id: u32, len: u32) {
        self.unread += len;
        if self.unread >= CONNECTION_WINDOW / 2 {
            let more = std::mem::take(&mut self.unread);
            self.grant(0, more);
        }
        let Some(stream) = self.stream(id) else { return };
        stream.unread += len;
        if stream.unread >= STREAM_WINDOW / 2 {
            let more = std::mem::take(&mut stream.unread);
            self.grant(id, more);
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        for one in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([one[2], one[3], one[4], one[5]]);
            if u16::from_be_bytes([one[0], one[1]]) == INITIAL_WINDOW_SIZE {
                let by = i64::from(value) - self.peer_window;
                self.peer_window = i64::from(value);
                self.streams.iter_mut().for_each(|s| s.send_window += by);
            }
        }
        self.frame(0, SETTINGS, ACK, 0);
        self.unblock();
    }

    fn granted(&mut self, id: u32, payload: &[u8]) {
        let Ok(by) = payload.try_into().map(u32::from_be_bytes) else { return };
        if id == 0 {
            self.send_window += i64::from(by);
        } else if let Some(stream) = self.stream(id) {
            stream.send_window += i64::from(by);
        }
        self.unblock();
    }

    /// Sends of what waits for room as much as there is room for.
    fn unblock(&mut self) {
        while let Some(mut first) = self.blocked.pop_front() {
            let Some(stream) = self.stream(first.id) else { continue };
            let room = stream.send_window.min(self.send_window).clamp(0, FRAME_MAX as i64) as usize;
            let len = first.framed.len().min(room);
            let last = len == first.framed.len();
            if len > 0 {
                self.charge(first.id, len);
                self.frame(len, DATA, if first.end && last { END_STREAM } else { 0 }, first.id);
                self.output.extend(first.framed.drain(..len));
            }
            if !last {
                self.blocked.push_front(first);
                if len == 0 {
                    return;
                }
            }
        }
    }

    fn charge(&mut self, id: u32, len: usize) {
        self.send_window -= len as i64;
        if let Some(stream) = self.stream(id) {
            stream.send_window -= len as i64;
        }
    }

    fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|s| s.id == id)
    }

    fn grant(&mut self, id: u32, by: u32) {
        self.frame(4, WINDOW_UPDATE, 0, id);
        self.output.extend_from_slice(&by.to_be_bytes());
    }

    fn frame(&mut self, len: usize, kind: u8, flags: u8, id: u32) {
        self.output.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
        self.output.extend_from_slice(&[kind, flags]);
        self.output.extend_from_slice(&id.to_be_bytes());
    }

    /// The headers of a call, as a client of gRPC sends them: in full once, by their index from then on.
    fn header_block(&mut self, path: &'static str) {
        // `:method: POST` and `:scheme: http` stand in the static table; so do the names of most others.
        self.output.extend_from_slice(&[0x83, 0x86]);
        let authority = std::mem::take(&mut self.authority);
        self.header(":authority", &[0x41], authority.as_bytes());
        self.authority = authority;
        self.header(path, &[0x44], path.as_bytes());
        self.header("content-type", &[0x5f], b"application/grpc");
        self.header("te", &[0x40, 2, b't', b'e'], b"trailers");
        self.header("user-agent", &[0x7a], b"etch-bench/1");
        let token = std::mem::take(&mut self.token);
        if !token.is_empty() {
            self.header("token", b"\x40\x05token", token.as_bytes());
        }
        self.token = token;
    }

    /// One header: its index where the peer knows it, its name as it is written and its value where not.
    fn header(&mut self, which: &'static str, name: &[u8], value: &[u8]) {
        if let Some(at) = self.known.iter().position(|k| *k == which) {
            self.output.push(0x80 | (DYNAMIC + self.known.len() - 1 - at) as u8);
            return;
        }
        self.known.push(which);
        self.output.extend_from_slice(name);
        // Lengths of 127 and more would need further bytes; nothing here is so long.
        self.output.push(value.len() as u8);
        self.output.extend_from_slice(value);
    }
}

fn without_padding(flags: u8, payload: &[u8]) -> &[u8] {
    if flags & PADDED == 0 {
        return payload;
    }
    let pad = payload.first().map_or(0, |n| usize::from(*n));
    payload.get(1..payload.len().saturating_sub(pad)).unwrap_or_default()
}
