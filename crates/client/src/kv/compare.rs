//! What a transaction asks before it acts.

use bytes::Bytes;
use etch_api::KeyRange;
use etch_api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::bytes::IntoBytes;

/// What of a key is compared; a [`Comparison`] once it is said with what.
///
/// A key that does not exist has version, revisions and lease zero, and no value that would compare.
///
/// ```
/// use etch_client::Compare;
///
/// let not_there = Compare::version("lock").equal(0);
/// let unchanged = Compare::mod_revision("config").equal(41);
/// let whole_range_is_free = Compare::lease("jobs/").prefix().equal(0);
/// # let _ = (not_there, unchanged, whole_range_is_free);
/// ```
#[derive(Debug, Clone)]
#[must_use = "say what to compare with"]
pub struct Compare<V> {
    key: Bytes,
    range_end: Bytes,
    target: CompareTarget,
    union: fn(V) -> TargetUnion,
}

/// A whole comparison.
///
/// ```
/// use etch_client::{Compare, Comparison, pb};
///
/// let comparison: Comparison = Compare::version("a").greater(0);
/// assert_eq!(pb::Compare::from(comparison).key, "a");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison(pub(crate) pb::Compare);

impl Compare<i64> {
    /// How often the key was written since it was created.
    pub fn version(key: impl IntoBytes) -> Compare<i64> {
        Compare::of(key, CompareTarget::Version, TargetUnion::Version)
    }

    /// The revision at which it was created.
    pub fn create_revision(key: impl IntoBytes) -> Compare<i64> {
        Compare::of(key, CompareTarget::Create, TargetUnion::CreateRevision)
    }

    /// The revision at which it was written last.
    pub fn mod_revision(key: impl IntoBytes) -> Compare<i64> {
        Compare::of(key, CompareTarget::Mod, TargetUnion::ModRevision)
    }

    /// Its lease.
    pub fn lease(key: impl IntoBytes) -> Compare<i64> {
        Compare::of(key, CompareTarget::Lease, TargetUnion::Lease)
    }

    /// Holds if it is the same.
    pub fn equal(self, number: i64) -> Comparison {
        self.with(CompareResult::Equal, number)
    }

    /// Holds if it is another.
    pub fn not_equal(self, number: i64) -> Comparison {
        self.with(CompareResult::NotEqual, number)
    }

    /// Holds if it is greater than this.
    pub fn greater(self, number: i64) -> Comparison {
        self.with(CompareResult::Greater, number)
    }

    /// Holds if it is less than this.
    pub fn less(self, number: i64) -> Comparison {
        self.with(CompareResult::Less, number)
    }
}

impl Compare<Bytes> {
    /// Its value.
    pub fn value(key: impl IntoBytes) -> Compare<Bytes> {
        Compare::of(key, CompareTarget::Value, TargetUnion::Value)
    }

    /// Holds if it is the same.
    pub fn equal(self, value: impl IntoBytes) -> Comparison {
        self.with(CompareResult::Equal, value.into_bytes())
    }

    /// Holds if it is another.
    pub fn not_equal(self, value: impl IntoBytes) -> Comparison {
        self.with(CompareResult::NotEqual, value.into_bytes())
    }

    /// Holds if it is greater than this, byte by byte.
    pub fn greater(self, value: impl IntoBytes) -> Comparison {
        self.with(CompareResult::Greater, value.into_bytes())
    }

    /// Holds if it is less than this, byte by byte.
    pub fn less(self, value: impl IntoBytes) -> Comparison {
        self.with(CompareResult::Less, value.into_bytes())
    }
}

impl<V> Compare<V> {
    fn of(key: impl IntoBytes, target: CompareTarget, union: fn(V) -> TargetUnion) -> Compare<V> {
        Compare { key: key.into_bytes(), range_end: Bytes::new(), target, union }
    }

    /// Asks it of every key that begins with the key.
    pub fn prefix(mut self) -> Compare<V> {
        (self.key, self.range_end) = KeyRange::prefix(self.key).to_parts();
        self
    }

    /// Asks it of every key up to, and without, this end.
    pub fn range(mut self, end: impl IntoBytes) -> Compare<V> {
        self.range_end = end.into_bytes();
        self
    }

    fn with(self, result: CompareResult, operand: V) -> Comparison {
        Comparison(pb::Compare {
            result: result as i32,
            target: self.target as i32,
            key: self.key,
            range_end: self.range_end,
            target_union: Some((self.union)(operand)),
        })
    }
}

impl From<pb::Compare> for Comparison {
    fn from(compare: pb::Compare) -> Comparison {
        Comparison(compare)
    }
}

impl From<Comparison> for pb::Compare {
    fn from(comparison: Comparison) -> pb::Compare {
        comparison.0
    }
}
