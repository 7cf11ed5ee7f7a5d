//! What a write touches, and the comparisons that hold if nobody owns any of it.

use bytes::Bytes;
use etch_api::KeyRange;
use etch_api::range::prefix_end;

use crate::kv::{Compare, Comparison, Get, Op, get};
use crate::pb::{self, request_op::Request};

/// The ranges that a transaction writes, in either branch.
pub(super) struct Footprint {
    prefix: Bytes,
    ranges: Vec<(Bytes, Bytes)>,
}

impl Footprint {
    pub fn of(request: &pb::TxnRequest, prefix: &Bytes) -> Footprint {
        let mut ranges = Vec::new();
        collect(request, &mut ranges);
        ranges.sort_unstable();
        ranges.dedup();
        Footprint { prefix: prefix.clone(), ranges }
    }

    /// Whether a key is in it.
    pub fn touches(&self, key: &[u8]) -> bool {
        let range = |(key, end): &(Bytes, Bytes)| KeyRange::new(key.clone(), end.clone());
        self.ranges.iter().any(|parts| range(parts).contains(key))
    }

    /// The owners' keys of each range.
    fn owners_ranges(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let add = |key: &[u8]| Bytes::from([&self.prefix[..], key].concat());
        self.ranges.iter().map(move |(key, end)| {
            let end = match &end[..] {
                b"" => Bytes::new(),
                b"\0" => prefix_end(&self.prefix),
                end => add(end),
            };
            (add(key), end)
        })
    }

    /// Hold if nobody owns anything of it.
    pub fn guards(&self) -> Vec<Comparison> {
        let free = |(key, end): (Bytes, Bytes)| Compare::version(key).range(end).equal(0);
        self.owners_ranges().map(free).collect()
    }

    /// Reads who owns something of it.
    pub fn owners(&self) -> Vec<Op> {
        let read = |(key, end): (Bytes, Bytes)| -> Get { get(key).range(end) };
        self.owners_ranges().map(|range| read(range).into()).collect()
    }
}

fn collect(request: &pb::TxnRequest, out: &mut Vec<(Bytes, Bytes)>) {
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestPut(r)) => out.push((r.key.clone(), Bytes::new())),
            Some(Request::RequestDeleteRange(r)) => out.push((r.key.clone(), r.range_end.clone())),
            Some(Request::RequestTxn(r)) => collect(r, out),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{delete, put, txn};

    #[test]
    fn a_write_s_footprint_is_all_that_it_may_write() {
        let request = txn()
            .then(put("a", "1"))
            .then(get("z"))
            .otherwise(txn().then(delete("b").prefix()))
            .into_request();
        let footprint = Footprint::of(&request, &Bytes::from_static(b"own/"));
        for (key, touched) in [("a", true), ("ab", false), ("b", true), ("bz", true), ("z", false)]
        {
            assert_eq!(footprint.touches(key.as_bytes()), touched, "{key}");
        }
        let ranges: Vec<_> = footprint.owners_ranges().collect();
        assert_eq!(ranges, [("own/a".into(), "".into()), ("own/b".into(), "own/c".into())]);
    }

    #[test]
    fn all_that_follow_stays_within_the_owners() {
        let request = txn().then(delete("b").from_key()).into_request();
        let footprint = Footprint::of(&request, &Bytes::from_static(b"own/"));
        let ranges: Vec<_> = footprint.owners_ranges().collect();
        assert_eq!(ranges, [("own/b".into(), "own0".into())]);
    }
}
