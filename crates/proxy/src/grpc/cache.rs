//! Serializable reads answered from memory. An answer is kept under its request and the token of who asked, so
//! nobody is shown what only others may see, and it is dropped as soon as a watch on its keys hears of a change,
//! wherever that was made, or a write through this proxy names them. Not here: linearizable reads, which always go
//! to the cluster.
//!
//! An answer is kept for the second client that asks within short time, and for so long only as a permission may
//! live on that somebody has taken back.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher as _;
use std::ops::Bound;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::request_op::Request;
use http::{HeaderMap, HeaderValue};
use prost::Message as _;

use super::Proxy;
use super::watch::{Group, What};

/// Answers that are kept at the most, and their bytes.
const ENTRIES: usize = 2048;
const BYTES: usize = 64 << 20;
/// A larger answer is not kept.
const LARGEST: usize = 1 << 20;
/// An answer to somebody with a token, and to somebody without, is asked for again after so long.
const AGES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Requests that were asked once, of which is known.
const ONCE: usize = 4096;

/// In whose name: the values of the headers that bear a token.
pub(super) type Token = [Option<HeaderValue>; 2];

/// A request of somebody's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    token: Token,
    message: Bytes,
}

impl Key {
    /// Of this client's request, as it came.
    pub(super) fn new(headers: &HeaderMap, message: Bytes) -> Self {
        Self { token: token(headers), message }
    }

    fn age(&self) -> Duration {
        if self.token.iter().all(Option::is_none) { AGES.1 } else { AGES.0 }
    }
}

/// The token in a call's headers.
pub(super) fn token(headers: &HeaderMap) -> Token {
    ["token", "authorization"].map(|name| headers.get(name).cloned())
}

/// An answer that is kept.
pub(super) struct Entry {
    key: Key,
    answer: Bytes,
    /// The keys that were read.
    span: Span,
    /// The first revision that is not in the answer.
    pub(super) from: i64,
    /// With these the cluster was asked.
    pub(super) headers: HeaderMap,
    born: Instant,
    used: Cell<bool>,
    group: RefCell<Option<Rc<Group>>>,
}

impl Entry {
    fn is_true(&self) -> bool {
        self.born.elapsed() < self.key.age()
            && self.group.borrow().as_ref().is_some_and(|group| group.is_live())
    }
}

/// Keys: the first, and the one behind the last; an empty end means one key, `\0` all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    key: Bytes,
    end: Bytes,
}

impl Span {
    fn is_one(&self) -> bool {
        self.end.is_empty()
    }

    fn has(&self, key: &[u8]) -> bool {
        if self.is_one() {
            return self.key == key;
        }
        self.key <= key && (&self.end[..] == b"\0" || key < &self.end[..])
    }

    fn meets(&self, other: &Span) -> bool {
        if other.is_one() {
            return self.has(&other.key);
        }
        if self.is_one() {
            return other.has(&self.key);
        }
        let before = |end: &Bytes, key: &Bytes| &end[..] == b"\0" || key < end;
        before(&self.end, &other.key) && before(&other.end, &self.key)
    }
}

/// All answers that are kept.
#[derive(Default)]
pub(super) struct Cache {
    entries: RefCell<HashMap<Key, Rc<Entry>>>,
    /// The oldest first; who was used gets another turn.
    turns: RefCell<VecDeque<Rc<Entry>>>,
    /// The same by the one key that was read, and those of several keys.
    by_key: RefCell<BTreeMap<Bytes, Vec<Rc<Entry>>>>,
    ranges: RefCell<Vec<Rc<Entry>>>,
    bytes: Cell<usize>,
    /// The newest revision that a client of ours knows that it has written.
    written: Cell<i64>,
    once: RefCell<HashSet<u64>>,
    hasher: RandomState,
    pub(super) hits: Cell<u64>,
    pub(super) misses: Cell<u64>,
}

/// What of any answer stands first.
#[derive(Clone, PartialEq, prost::Message)]
struct Headed {
    #[prost(message, optional, tag = "1")]
    header: Option<pb::ResponseHeader>,
}

/// The revision in an answer's header.
fn revision(answer: &Bytes) -> i64 {
    let headed = Headed::decode(answer.clone()).ok();
    headed.and_then(|headed| headed.header).map_or(0, |header| header.revision)
}

impl Cache {
    /// Answers that are kept.
    pub(super) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// What is kept under a request, if it holds.
    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        let entries = self.entries.borrow();
        let entry = entries.get(key).filter(|entry| entry.is_true())?;
        entry.used.set(true);
        self.hits.set(self.hits.get() + 1);
        Some(entry.answer.clone())
    }

    /// Keeps an answer, if it may be kept: the request as the cluster got it, what the client is shown, and the
    /// headers it was asked with.
    pub(super) fn put(
        &self,
        proxy: &Rc<Proxy>,
        key: Key,
        asked: &pb::RangeRequest,
        answer: &Bytes,
        headers: &HeaderMap,
    ) {
        self.misses.set(self.misses.get() + 1);
        let revision = revision(answer);
        if answer.len() > LARGEST || revision == 0 || revision < self.written.get() {
            return;
        }
        if !self.is_second(&key) {
            return;
        }
        let span = Span { key: asked.key.clone(), end: asked.range_end.clone() };
        let mut headers = headers.clone();
        // The watch outlives the call.
        headers.remove("grpc-timeout");
        let entry = Rc::new(Entry {
            key: key.clone(),
            answer: answer.clone(),
            span: span.clone(),
            from: revision + 1,
            headers,
            born: Instant::now(),
            used: Cell::new(false),
            group: RefCell::default(),
        });
        let group = proxy.hub.follow(proxy, What::all(span.key, span.end), &entry);
        *entry.group.borrow_mut() = Some(group);
        // Only now, so that a watch they share is not given up between.
        let old = self.entries.borrow_mut().insert(key, Rc::clone(&entry));
        if let Some(old) = old {
            self.unlink(proxy, &old);
        }
        self.link(entry);
        self.make_room(proxy);
    }

    fn is_second(&self, key: &Key) -> bool {
        if self.entries.borrow().contains_key(key) {
            return true;
        }
        let hash = self.hasher.hash_one(key);
        let mut once = self.once.borrow_mut();
        if once.remove(&hash) {
            return true;
        }
        if once.len() >= ONCE {
            once.clear();
        }
        once.insert(hash);
        false
    }

    fn link(&self, entry: Rc<Entry>) {
        self.bytes.set(self.bytes.get() + entry.answer.len());
        if entry.span.is_one() {
            let mut by_key = self.by_key.borrow_mut();
            by_key.entry(entry.span.key.clone()).or_default().push(Rc::clone(&entry));
        } else {
            self.ranges.borrow_mut().push(Rc::clone(&entry));
        }
        self.turns.borrow_mut().push_back(entry);
    }

    /// Takes an entry that is no longer among the entries out of everything else.
    fn unlink(&self, proxy: &Rc<Proxy>, entry: &Rc<Entry>) {
        let others = |list: &mut Vec<Rc<Entry>>| list.retain(|other| !Rc::ptr_eq(other, entry));
        self.bytes.set(self.bytes.get() - entry.answer.len());
        if entry.span.is_one() {
            let mut by_key = self.by_key.borrow_mut();
            if let Some(list) = by_key.get_mut(&entry.span.key) {
                others(list);
                if list.is_empty() {
                    by_key.remove(&entry.span.key);
                }
            }
        } else {
            others(&mut self.ranges.borrow_mut());
        }
        let group = entry.group.borrow_mut().take();
        if let Some(group) = group {
            group.unfollow(proxy, entry);
        }
        // In its turn it is passed over; when too many wait for theirs, they go at once.
        if self.turns.borrow().len() > 2 * ENTRIES {
            self.turns.borrow_mut().retain(|entry| entry.group.borrow().is_some());
        }
    }

    fn make_room(&self, proxy: &Rc<Proxy>) {
        while self.len() > ENTRIES || self.bytes.get() > BYTES {
            let Some(entry) = self.turns.borrow_mut().pop_front() else { return };
            if entry.group.borrow().is_none() {
                continue;
            }
            if entry.used.take() && entry.is_true() {
                self.turns.borrow_mut().push_back(entry);
                continue;
            }
            self.forget(proxy, &entry);
        }
    }

    /// Drops an answer that does not hold any more.
    pub(super) fn forget(&self, proxy: &Rc<Proxy>, entry: &Rc<Entry>) {
        let mut entries = self.entries.borrow_mut();
        if entries.get(&entry.key).is_some_and(|kept| Rc::ptr_eq(kept, entry)) {
            entries.remove(&entry.key);
            drop(entries);
            self.unlink(proxy, entry);
        }
    }

    /// A write through this proxy may have happened: whoever made it reads it from now on.
    pub(super) fn wrote(
        &self,
        proxy: &Rc<Proxy>,
        path: &str,
        request: &Bytes,
        answer: Option<&Bytes>,
    ) {
        if let Some(answer) = answer {
            self.written.set(self.written.get().max(revision(answer)));
        }
        if self.len() == 0 {
            return;
        }
        match path {
            "/etcdserverpb.KV/Put" => {
                if let Ok(put) = pb::PutRequest::decode(request.clone()) {
                    self.changed(proxy, &Span { key: put.key, end: Bytes::new() });
                }
            }
            "/etcdserverpb.KV/DeleteRange" => {
                if let Ok(delete) = pb::DeleteRangeRequest::decode(request.clone()) {
                    self.changed(proxy, &Span { key: delete.key, end: delete.range_end });
                }
            }
            "/etcdserverpb.KV/Txn" => {
                if let Ok(txn) = pb::TxnRequest::decode(request.clone()) {
                    self.ran(proxy, txn);
                }
            }
            // Locks and elections write keys, a revoked lease deletes some, and users' rights change.
            _ if writes_unseen(path) => self.clear(proxy),
            _ => {}
        }
    }

    fn ran(&self, proxy: &Rc<Proxy>, txn: pb::TxnRequest) {
        for op in txn.success.into_iter().chain(txn.failure) {
            match op.request {
                Some(Request::RequestPut(put)) => {
                    self.changed(proxy, &Span { key: put.key, end: Bytes::new() });
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    self.changed(proxy, &Span { key: delete.key, end: delete.range_end });
                }
                Some(Request::RequestTxn(txn)) => self.ran(proxy, txn),
                _ => {}
            }
        }
    }

    fn changed(&self, proxy: &Rc<Proxy>, span: &Span) {
        let mut stale: Vec<Rc<Entry>> = Vec::new();
        {
            let ranges = self.ranges.borrow();
            stale.extend(ranges.iter().filter(|entry| entry.span.meets(span)).cloned());
            let by_key = self.by_key.borrow();
            if span.is_one() {
                stale.extend(by_key.get(&span.key).into_iter().flatten().cloned());
            } else if &span.end[..] == b"\0" {
                stale.extend(by_key.range(span.key.clone()..).flat_map(|(_, list)| list).cloned());
            } else if span.key < span.end {
                let within = (Bound::Included(&span.key), Bound::Excluded(&span.end));
                stale.extend(by_key.range::<Bytes, _>(within).flat_map(|(_, list)| list).cloned());
            }
        }
        stale.iter().for_each(|entry| self.forget(proxy, entry));
    }

    fn clear(&self, proxy: &Rc<Proxy>) {
        let all: Vec<Rc<Entry>> = self.entries.borrow().values().cloned().collect();
        all.iter().for_each(|entry| self.forget(proxy, entry));
    }
}

/// Whether a call of this path may change keys, or who may see them, that it does not name.
fn writes_unseen(path: &str) -> bool {
    path.starts_with("/v3lockpb.")
        || path.starts_with("/v3electionpb.")
        || path == "/etcdserverpb.Lease/LeaseRevoke"
        || (path.starts_with("/etcdserverpb.Auth/") && !path.ends_with("/Authenticate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(key: &'static str, end: &'static str) -> Span {
        Span { key: key.into(), end: end.into() }
    }

    #[test]
    fn spans_meet_where_they_share_a_key() {
        for (one, other, want) in [
            (span("b", ""), span("b", ""), true),
            (span("b", ""), span("c", ""), false),
            (span("b", ""), span("a", "c"), true),
            (span("b", ""), span("a", "b"), false),
            (span("b", ""), span("a", "\0"), true),
            (span("b", ""), span("c", "\0"), false),
            (span("a", "c"), span("b", "d"), true),
            (span("a", "b"), span("b", "d"), false),
            (span("a", "\0"), span("z", "\0"), true),
            (span("a", "b"), span("c", "\0"), false),
        ] {
            assert_eq!(one.meets(&other), want, "{one:?} {other:?}");
            assert_eq!(other.meets(&one), want, "{other:?} {one:?}");
        }
    }

    #[test]
    fn requests_differ_by_who_asks() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            Key::new(&headers, "request".into())
        };
        let nobody = Key::new(&HeaderMap::new(), "request".into());
        assert!(nobody != with("token", "a"));
        assert!(with("token", "a") != with("token", "b"));
        assert!(with("token", "a") != with("authorization", "a"));
        assert!(with("token", "a") == with("token", "a"));
        assert!(nobody.age() > with("token", "a").age());
    }

    #[test]
    fn what_is_asked_once_is_not_kept() {
        let cache = Cache::default();
        let key = |text: &'static str| Key::new(&HeaderMap::new(), text.into());
        assert!(!cache.is_second(&key("a")));
        assert!(!cache.is_second(&key("b")));
        assert!(cache.is_second(&key("a")));
    }
}
