//! The streams of a connection: where each stands, and how they are found. Not here: what moves them (`recv`,
//! `send`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::item::Item;
use crate::reply::Inner;
use crate::status::Status;

/// A stream of a connection. It stays good when the stream is gone: then it names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) id: u32,
}

/// One stream. It is gone as soon as both sides have ended it, or one has reset it.
#[derive(Default)]
pub(crate) struct Stream {
    /// 0 while the place is free.
    pub(crate) id: u32,
    /// The client has ended its side.
    pub(crate) recv_ended: bool,
    /// Its data waits here to be read, and is not handed to the connection.
    pub(crate) attached: bool,
    /// The head of our answer is out.
    pub(crate) opened: bool,
    /// It stands in the ring of those that have something to send.
    pub(crate) in_ring: bool,
    /// What we may send.
    pub(crate) send_window: i64,
    /// What the client may send.
    pub(crate) recv_window: i64,
    /// What was taken of it, and the client not told yet.
    pub(crate) unreleased: u32,
    /// Bytes that are to come, where the client has said how many.
    pub(crate) length: Option<u64>,
    /// What only some streams have.
    pub(crate) more: Option<Box<More>>,
}

/// What waits on a stream.
#[derive(Default)]
pub(crate) struct More {
    /// Data that nobody has read yet.
    inbox: VecDeque<Bytes>,
    /// What comes behind it in small pieces, put together.
    small: BytesMut,
    /// Nothing comes after that.
    pub(crate) inbox_ended: bool,
    pub(crate) reader: Option<Waker>,
    /// Messages that are not sent yet, and their bytes.
    pub(crate) outbox: VecDeque<Item>,
    pub(crate) queued: usize,
    pub(crate) end: End,
    /// Who waits for room in the outbox.
    pub(crate) room: Vec<Waker>,
    /// Who waits until the stream is gone.
    pub(crate) gone: Vec<Waker>,
    /// The unary call whose answer this is.
    pub(crate) call: Option<Inner>,
}

/// Pieces below this are copied if they have to wait.
const OWN: usize = 8 * 1024;

/// What comes behind the last message.
#[derive(Default)]
pub(crate) enum End {
    /// More messages, perhaps.
    #[default]
    Open,
    /// The status of a call.
    Status(Status),
    /// The trailers of what is not gRPC.
    Trailers(HeaderMap),
    /// The end and nothing else.
    Bare,
}

impl More {
    /// Tells everybody who waits for something here.
    pub(crate) fn wake_all(&mut self) {
        let wakers = self.room.drain(..).chain(self.reader.take()).chain(self.gone.drain(..));
        wakers.for_each(Waker::wake);
    }

    /// Data that has come in, perhaps the last. A small piece would keep the
    /// whole buffer that it was read into, and is copied.
    pub(crate) fn put_unread(&mut self, data: Bytes, ended: bool) {
        if data.len() < OWN {
            self.small.extend_from_slice(&data);
        } else {
            if !self.small.is_empty() {
                self.inbox.push_back(self.small.split().freeze());
            }
            self.inbox.push_back(data);
        }
        self.inbox_ended |= ended;
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    /// The next data in its order.
    pub(crate) fn take_unread(&mut self) -> Option<Bytes> {
        if let Some(data) = self.inbox.pop_front() {
            return Some(data);
        }
        (!self.small.is_empty()).then(|| std::mem::take(&mut self.small).freeze())
    }

    pub(crate) fn unread(&self) -> usize {
        self.inbox.iter().map(Bytes::len).sum::<usize>() + self.small.len()
    }
}

/// Puts a waker into its place, unless it is there.
pub(crate) fn remember(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|there| there.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

/// Hashes stream numbers: by one multiplication, with a factor that no client knows.
#[derive(Clone)]
pub(crate) struct ByNumber(u64);

pub(crate) struct NumberHasher {
    factor: u64,
    hash: u64,
}

impl ByNumber {
    fn new() -> ByNumber {
        ByNumber(RandomState::new().hash_one(0) | 1)
    }
}

impl BuildHasher for ByNumber {
    type Hasher = NumberHasher;

    fn build_hasher(&self) -> NumberHasher {
        NumberHasher { factor: self.0, hash: 0 }
    }
}

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, n: u32) {
        let wide = u128::from(self.hash ^ u64::from(n)) * u128::from(self.factor);
        self.hash = wide as u64 ^ (wide >> 64) as u64 ^ (wide as u64).rotate_right(32);
    }
}

/// Free places are kept up to so many when no stream is left.
const KEPT: usize = 256;

/// The streams that are open.
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    ids: HashMap<u32, u32, ByNumber>,
}

impl Streams {
    pub(crate) fn new() -> Streams {
        Streams { slots: Vec::new(), free: Vec::new(), ids: HashMap::with_hasher(ByNumber::new()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> Key {
        let id = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                self.slots.len() as u32 - 1
            }
        };
        self.ids.insert(id, slot);
        Key { slot, id }
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.ids.get(&id).map(|slot| Key { slot: *slot, id })
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.slots.get(key.slot as usize).is_some_and(|stream| stream.id == key.id)
    }

    /// Takes a stream out.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Stream> {
        let stream = std::mem::take(self.get(key)?);
        self.ids.remove(&key.id);
        if self.ids.is_empty() && self.slots.len() > KEPT {
            // A burst is over.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.ids.shrink_to(KEPT);
        } else {
            self.free.push(key.slot);
        }
        Some(stream)
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = (Key, &mut Stream)> {
        let numbered = self.slots.iter_mut().enumerate();
        numbered
            .filter(|(_, stream)| stream.id != 0)
            .map(|(slot, stream)| (Key { slot: slot as u32, id: stream.id }, stream))
    }
}

/// The streams that we have ended before the client had. Its frames may still be on their way, and are no fault:
/// so many of these are remembered.
pub(crate) struct EndedEarly {
    ids: HashSet<u32, ByNumber>,
    order: VecDeque<u32>,
    max: usize,
}

impl EndedEarly {
    pub(crate) fn new(max: usize) -> EndedEarly {
        EndedEarly { ids: HashSet::with_hasher(ByNumber::new()), order: VecDeque::new(), max }
    }

    pub(crate) fn insert(&mut self, id: u32) {
        self.ids.insert(id);
        self.order.push_back(id);
        while self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        !self.ids.is_empty() && self.ids.contains(&id)
    }

    /// The client has ended it now.
    pub(crate) fn remove(&mut self, id: u32) {
        if self.ids.remove(&id) && self.ids.is_empty() {
            self.order.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: u32) -> Stream {
        Stream { id, ..Stream::default() }
    }

    #[test]
    fn keys_of_streams_that_are_gone_name_nothing() {
        let mut streams = Streams::new();
        let first = streams.insert(stream(1));
        let second = streams.insert(stream(3));
        assert_eq!(
            (streams.find(1), streams.find(3), streams.len()),
            (Some(first), Some(second), 2)
        );
        assert!(streams.remove(first).is_some());
        assert!(streams.get(first).is_none() && streams.remove(first).is_none());
        let third = streams.insert(stream(5));
        assert_eq!(third.slot, first.slot);
        assert!(streams.get(first).is_none() && streams.contains(third));
        assert_eq!(streams.find(1), None);
        assert_eq!(streams.all().count(), 2);
    }

    #[test]
    fn data_waits_in_its_order_and_small_pieces_together() {
        let mut more = More::default();
        let mut want = Vec::new();
        for n in 0..100u8 {
            let piece = vec![n; if n % 10 == 0 { OWN } else { 3 }];
            want.extend_from_slice(&piece);
            more.put_unread(piece.into(), n == 99);
        }
        assert_eq!(more.unread(), want.len());
        let pieces: Vec<Bytes> = std::iter::from_fn(|| more.take_unread()).collect();
        assert_eq!((pieces.len(), pieces.concat() == want), (20, true));
        assert!(more.inbox_ended && more.unread() == 0);
    }

    #[test]
    fn room_of_a_burst_is_given_back() {
        let mut streams = Streams::new();
        let keys: Vec<Key> = (0..1_000).map(|n| streams.insert(stream(2 * n + 1))).collect();
        keys.iter().for_each(|key| assert!(streams.remove(*key).is_some()));
        assert_eq!(streams.slots.capacity(), 0);
        let key = streams.insert(stream(9_001));
        assert!(streams.contains(key) && !streams.contains(keys[0]));
    }

    #[test]
    fn the_oldest_of_those_that_ended_early_are_forgotten() {
        let mut early = EndedEarly::new(2);
        for id in [1, 3, 5] {
            early.insert(id);
        }
        assert_eq!([1, 3, 5].map(|id| early.contains(id)), [false, true, true]);
        early.remove(5);
        assert_eq!([3, 5].map(|id| early.contains(id)), [true, false]);
    }
}
