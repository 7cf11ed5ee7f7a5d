//! What a range request selects at a revision, and what a comparison says. Not here: transactions (`txn`).

use std::cmp::Ordering;

use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::KeyValue;
use etch_api::{Error, KeyRange};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};

use super::{Model, header};

impl Model {
    /// Answers a range as a store would whose newest revision is `current`. Whether the revision asked for is
    /// compacted is looked at only if `heeds_compaction` is set: a store that was read in the past may not have
    /// been compacted then.
    pub fn range(
        &self,
        request: &pb::RangeRequest,
        current: i64,
        heeds_compaction: bool,
    ) -> Result<pb::RangeResponse, Error> {
        if request.revision > current {
            return Err(Error::FutureRev);
        }
        let at = if request.revision > 0 { request.revision } else { current };
        if heeds_compaction && at < self.compacted {
            return Err(Error::Compacted);
        }
        let mut response = self.select(request, at);
        response.header = header(current);
        Ok(response)
    }

    /// The response at a revision but for its header.
    pub(super) fn select(&self, request: &pb::RangeRequest, at: i64) -> pb::RangeResponse {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let all = self.range_at(&range, at);
        let count = all.len() as i64;
        if request.count_only {
            return pb::RangeResponse { count, ..pb::RangeResponse::default() };
        }
        let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
        let mut kvs: Vec<&KeyValue> = all.into_iter().filter(|kv| passes(request, kv)).collect();
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        // Without an order there is none to sort before the cut: then etcd cuts first, one key behind the limit.
        let unordered = request.sort_order == SortOrder::None as i32 && !has_filters(request);
        if let (true, Some(limit)) = (unordered, limit) {
            kvs.truncate(limit.saturating_add(1));
        }
        sort(request, &mut kvs);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        let kvs = kvs.into_iter().map(|kv| shown(request, kv)).collect();
        pb::RangeResponse { header: None, kvs, more, count }
    }

    /// Whether a comparison holds at a revision: for every key of its range, or for the absence of any.
    pub(super) fn holds(&self, compare: &pb::Compare, at: i64) -> bool {
        let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
        let found = self.range_at(&range, at);
        if found.is_empty() {
            // No value is not an empty value: nothing is known of it. All else of a missing key is 0.
            return compare.target != CompareTarget::Value as i32
                && compares(compare, &KeyValue::default());
        }
        found.into_iter().all(|kv| compares(compare, kv))
    }
}

fn has_filters(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &pb::RangeRequest, kv: &KeyValue) -> bool {
    let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

fn sort(request: &pb::RangeRequest, kvs: &mut [&KeyValue]) {
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let order = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    // Equals stay in the order of keys, either way.
    if request.sort_order == SortOrder::Descend as i32 {
        kvs.sort_by(|a, b| order(b, a));
    } else {
        kvs.sort_by(|a, b| order(a, b));
    }
}

/// A key as the request wants it. Without values, etcd 3.7 reads keys from its index, which knows no leases
/// either; unless it needs the values to sort by.
fn shown(request: &pb::RangeRequest, kv: &KeyValue) -> KeyValue {
    let mut kv = kv.clone();
    if request.keys_only {
        kv.value = bytes::Bytes::new();
        if request.sort_target != SortTarget::Value as i32 {
            kv.lease = 0;
        }
    }
    kv
}

fn compares(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let given = compare.target_union.as_ref();
    let order = match (CompareTarget::try_from(compare.target), given) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(n))) => kv.version.cmp(n),
        (Ok(CompareTarget::Version), _) => kv.version.cmp(&0),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(n))) => {
            kv.create_revision.cmp(n)
        }
        (Ok(CompareTarget::Create), _) => kv.create_revision.cmp(&0),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(n))) => kv.mod_revision.cmp(n),
        (Ok(CompareTarget::Mod), _) => kv.mod_revision.cmp(&0),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(n))) => kv.lease.cmp(n),
        (Ok(CompareTarget::Lease), _) => kv.lease.cmp(&0),
        (Ok(CompareTarget::Value), Some(TargetUnion::Value(v))) => kv.value[..].cmp(&v[..]),
        (Ok(CompareTarget::Value), _) => kv.value[..].cmp(b""),
        (Err(_), _) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
