//! What a range request selects: revisions, filters, order, limit and count, as etcd 3.7 does them. The same code
//! serves readers beside the writer and the writer's own transaction. Not here: sending it (`reply`).

use std::cmp::Ordering;
use std::io;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use etch_api::pb::etcdserverpb::RangeRequest;
use etch_api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use etch_api::range::KeyRange;
use etch_api::{Code, Error, Status};

use super::index::Version;
use super::reply::{Body, Item, Items, RangeReply, field_head, field_len};
use super::store::{Found, Store};
use super::tree::Tree;
use super::value::KeyValue;
use super::write::WriteBatch;

/// Keys as they stand at one revision, and the bytes of their versions.
pub(crate) trait View {
    /// The revision of the store, which is the newest that can be read.
    fn revision(&self) -> i64;
    /// The revision to which the store is compacted, or -1.
    fn compact_revision(&self) -> i64;
    fn get(&self, key: &[u8], at: i64) -> Option<Version>;
    fn walk(
        &self,
        range: &KeyRange,
        at: i64,
        f: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
    );
    fn count(&self, range: &KeyRange, at: i64) -> u64;
    /// The encoded `KeyValue`.
    fn value(&self, version: &Version) -> io::Result<Bytes>;
}

/// The published store, as it was at one revision.
pub(crate) struct Pinned<'a> {
    pub store: &'a Store,
    pub revision: i64,
}

impl View for Pinned<'_> {
    fn revision(&self) -> i64 {
        self.revision
    }
    fn compact_revision(&self) -> i64 {
        self.store.compact_revision()
    }
    fn get(&self, key: &[u8], at: i64) -> Option<Version> {
        self.store.index().get(key, at)
    }
    fn walk(
        &self,
        range: &KeyRange,
        at: i64,
        f: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) {
        self.store.walk(range, at, f);
    }
    fn count(&self, range: &KeyRange, at: i64) -> u64 {
        self.store.count(range, at)
    }
    fn value(&self, version: &Version) -> io::Result<Bytes> {
        self.store.value(version.modified)
    }
}

impl View for WriteBatch<'_> {
    fn revision(&self) -> i64 {
        self.read_revision()
    }
    fn compact_revision(&self) -> i64 {
        self.state.compacted
    }
    fn get(&self, key: &[u8], at: i64) -> Option<Version> {
        self.index.get(key, at)
    }
    fn walk(
        &self,
        range: &KeyRange,
        at: i64,
        f: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) {
        self.index.walk(range, None, at, usize::MAX, f);
    }
    fn count(&self, range: &KeyRange, at: i64) -> u64 {
        self.index.count(range, at)
    }
    fn value(&self, version: &Version) -> io::Result<Bytes> {
        Ok(self.value(version.modified))
    }
}

/// Why a read on the published store failed.
#[derive(Debug)]
pub enum ReadError {
    /// The request is refused.
    Request(Error),
    /// The B+tree cannot be read.
    Io(io::Error),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Request(error) => error.into(),
            // What the server does not expect has no code of its own.
            ReadError::Io(error) => Self::new(Code::Unknown, error.to_string()),
        }
    }
}

impl ReadError {
    /// The status that the call ends with.
    pub fn status(self) -> Status {
        self.into()
    }
}

/// What a request selects.
pub(crate) struct Selection {
    pub found: Vec<Version>,
    /// The encoded `KeyValue`s of `found`, where the request wants them changed: keys alone.
    pub keys: Option<Vec<Bytes>>,
    pub more: bool,
    pub count: i64,
}

/// True if keys come in the order in which the index has them.
pub fn is_default_order(request: &RangeRequest) -> bool {
    request.sort_order == SortOrder::None as i32
        || (request.sort_target == SortTarget::Key as i32
            && request.sort_order == SortOrder::Ascend as i32)
}

/// True if the request filters by revisions.
pub fn has_revision_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// The revision to read at.
pub(crate) fn resolve(view: &impl View, asked: i64) -> Result<i64, Error> {
    let current = view.revision();
    if asked > current {
        return Err(Error::FutureRev);
    }
    let at = if asked <= 0 { current } else { asked };
    if at < view.compact_revision() { Err(Error::Compacted) } else { Ok(at) }
}

fn passes(request: &RangeRequest, version: &Version) -> bool {
    let (modified, created) = (version.modified.main, version.created);
    (request.max_mod_revision == 0 || modified <= request.max_mod_revision)
        && (request.min_mod_revision == 0 || modified >= request.min_mod_revision)
        && (request.max_create_revision == 0 || created <= request.max_create_revision)
        && (request.min_create_revision == 0 || created >= request.min_create_revision)
}

/// How many keys the index is asked for: one more than the limit, so as to know of more. With an order of its own
/// or with filters, all. (An order by something else than the key without a direction does not count as one:
/// the limit cuts first, and the sort comes after. So it is in etcd.)
fn index_limit(request: &RangeRequest) -> usize {
    if request.limit <= 0 || !is_default_order(request) || has_revision_filters(request) {
        return usize::MAX;
    }
    usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1)
}

/// A limit up to which there is room for the answer from the start.
const PAGE: usize = 1024;

/// Selects the versions of a range at a revision.
pub(crate) fn select(
    view: &impl View,
    request: &RangeRequest,
    range: &KeyRange,
    at: i64,
    with_total: bool,
) -> io::Result<Selection> {
    let limit = index_limit(request);
    let by_value = request.sort_target == SortTarget::Value as i32;
    let keys_from_index = request.keys_only && !by_value;
    // A page's worth of room at once, and for all keys where they are cheap to count: now, and if none is left out.
    let room = if limit < usize::MAX {
        limit.min(PAGE)
    } else if at == view.revision() && !has_revision_filters(request) {
        view.count(range, at) as usize
    } else {
        0
    };
    let (mut found, mut keys, mut seen) = (Vec::with_capacity(room), Vec::new(), 0u64);
    view.walk(range, at, &mut |key, version| {
        seen += 1;
        if passes(request, version) {
            found.push(*version);
            if keys_from_index {
                keys.push(Bytes::copy_from_slice(key));
            }
        }
        if seen as usize >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cut = seen as usize == limit;
    let count = if cut && with_total { view.count(range, at) } else { seen };

    let wanted = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    let more = wanted.is_some_and(|limit| found.len() > limit);
    let order = order(view, request, &found)?;
    let take = wanted.unwrap_or(usize::MAX);
    if let Some(order) = order {
        found = order.iter().take(take).map(|&i| found[i as usize]).collect();
        if keys_from_index {
            keys = order.iter().take(take).map(|&i| keys[i as usize].clone()).collect();
        }
    } else {
        found.truncate(take);
        keys.truncate(take);
    }
    let keys = if keys_from_index {
        Some(found.iter().zip(&keys).map(|(version, key)| only_key(version, key)).collect())
    } else if request.keys_only {
        Some(found.iter().map(|v| strip(&view.value(v)?)).collect::<io::Result<_>>()?)
    } else {
        None
    };
    Ok(Selection { found, keys, more, count: count as i64 })
}

/// The order of the answer, where it is not that of the keys.
fn order(
    view: &impl View,
    request: &RangeRequest,
    found: &[Version],
) -> io::Result<Option<Vec<u32>>> {
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let descending = request.sort_order == SortOrder::Descend as i32;
    if target == SortTarget::Key && !descending {
        return Ok(None);
    }
    let values = match target {
        SortTarget::Value => {
            found.iter().map(|version| view.value(version)).collect::<io::Result<Vec<_>>>()?
        }
        _ => Vec::new(),
    };
    let value = |i: u32| KeyValue::decode(&values[i as usize]).map_or(&b""[..], |kv| kv.value);
    let number = |i: u32| {
        let version = &found[i as usize];
        match target {
            SortTarget::Version => version.version,
            SortTarget::Create => version.created,
            SortTarget::Mod => version.modified.main,
            SortTarget::Key | SortTarget::Value => i64::from(i),
        }
    };
    let ascending = |&a: &u32, &b: &u32| -> Ordering {
        match target {
            SortTarget::Value => value(a).cmp(value(b)),
            _ => number(a).cmp(&number(b)),
        }
    };
    let mut order: Vec<u32> = (0..found.len() as u32).collect();
    // Equals stay in the order of keys, either way.
    if descending {
        order.sort_by(|a, b| ascending(b, a));
    } else {
        order.sort_by(ascending);
    }
    Ok(Some(order))
}

/// The `KeyValue` that the index alone can give: no value, no lease.
fn only_key(version: &Version, key: &[u8]) -> Bytes {
    encode(&KeyValue {
        key,
        created: version.created,
        modified: version.modified.main,
        version: version.version,
        ..KeyValue::default()
    })
}

/// A `KeyValue` without its value.
fn strip(kv: &[u8]) -> io::Result<Bytes> {
    let kv = KeyValue::decode(kv).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "a stored KeyValue is damaged")
    })?;
    Ok(encode(&KeyValue { value: b"", ..kv }))
}

fn encode(kv: &KeyValue<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(kv.encoded_len());
    kv.encode(&mut out);
    out.freeze()
}

impl Selection {
    /// Appends the `kvs` fields.
    pub fn encode_kvs(&self, view: &impl View, out: &mut BytesMut) -> io::Result<()> {
        for (i, version) in self.found.iter().enumerate() {
            let kv = match &self.keys {
                Some(keys) => keys[i].clone(),
                None => view.value(version)?,
            };
            field_head(kv.len(), out);
            out.extend_from_slice(&kv);
        }
        Ok(())
    }

    /// How long these fields are.
    pub fn kvs_len(&self) -> usize {
        match &self.keys {
            Some(keys) => keys.iter().map(|kv| field_len(kv.len() as u32)).sum(),
            None => self.found.iter().map(|version| field_len(version.size)).sum(),
        }
    }
}

impl Store {
    /// Answers a range request at the published revision or at an older one. The request's checks are
    /// [`check_range`](crate::txn::check_range)'s.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        self.stats().ranges.add(1);
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        self.retry(request.revision, |view, at| {
            let mut reply = self.reply(view, request, &range, at, true)?;
            reply.at = at;
            Ok(reply)
        })
    }

    /// Runs a read at a revision of the published store. Where a compaction overtakes it, it runs again if it
    /// asked for the newest revision, and fails if it asked for one.
    pub(crate) fn retry<T>(
        &self,
        asked: i64,
        mut read: impl FnMut(&Pinned<'_>, i64) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let view = Pinned { store: self, revision: self.revision() };
            let at = match resolve(&view, asked) {
                // Compacted up to a revision published since.
                Err(Error::Compacted) if asked <= 0 => continue,
                other => other?,
            };
            let outcome = read(&view, at);
            if at >= self.compact_revision() {
                return outcome;
            }
            if asked > 0 {
                return Err(Error::Compacted.into());
            }
        }
    }

    /// The reply to a request at a revision; good only if that is not compacted afterwards.
    pub(super) fn reply(
        &self,
        view: &Pinned<'_>,
        request: &RangeRequest,
        range: &KeyRange,
        at: i64,
        with_total: bool,
    ) -> Result<RangeReply, ReadError> {
        if request.count_only {
            let count = view.count(range, at) as i64;
            return Ok(RangeReply::new((view.revision, count, false), 0, 0, Body::Empty));
        }
        if let KeyRange::Single(key) = range
            && !request.keys_only
        {
            return Ok(self.single(view, request, key, at));
        }
        let selection = select(view, request, range, at, with_total)?;
        let len = selection.kvs_len();
        let numbers = (view.revision, selection.count, selection.more);
        let kvs = selection.found.len();
        let body = match &selection.keys {
            Some(_) => {
                let mut out = BytesMut::with_capacity(len);
                selection.encode_kvs(view, &mut out)?;
                Body::Encoded(out.freeze())
            }
            None => self.locate(&selection.found),
        };
        Ok(RangeReply::new(numbers, kvs, len, body))
    }

    /// The reply for one key: one look in the index, one at the tail, and no list.
    fn single(&self, view: &Pinned<'_>, request: &RangeRequest, key: &[u8], at: i64) -> RangeReply {
        let Some(version) = view.get(key, at) else {
            return RangeReply::new((view.revision, 0, false), 0, 0, Body::Empty);
        };
        if !passes(request, &version) {
            return RangeReply::new((view.revision, 1, false), 0, 0, Body::Empty);
        }
        let body = match self.find(version.modified) {
            Found::Recent(event) => Body::Recent(event.kv.clone()),
            Found::Tree(tree) => {
                Body::Tree(tree, Item { revision: version.modified, size: version.size })
            }
        };
        RangeReply::new((view.revision, 1, false), 1, field_len(version.size), body)
    }

    /// Notes where versions are found, and holds what is needed to find them there until they are sent.
    fn locate(&self, found: &[Version]) -> Body {
        if found.is_empty() {
            return Body::Empty;
        }
        let items: Vec<Item> =
            found.iter().map(|v| Item { revision: v.modified, size: v.size }).collect();
        let recent = self.recent();
        let boundary = recent.tail.first().unwrap_or(i64::MAX);
        let events: Vec<_> = items
            .iter()
            .filter(|item| item.revision.main >= boundary)
            .map(|item| recent.tail.get(item.revision).expect("the tail has no gaps").clone())
            .collect();
        let tree = (events.len() < items.len()).then(|| Tree::new(recent.backend.snapshot()));
        drop(recent);
        Body::Items(Items {
            items,
            recent: events.into_iter(),
            boundary,
            tree,
            next: 0,
            begun: None,
        })
    }
}
