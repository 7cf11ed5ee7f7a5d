//! A key range as the tree reads it: where it starts and before what it ends. Not here: how a request
//! spells it.

use etch_api::range::KeyRange;

/// Keys from `start` on, and below `end` if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub start: &'a [u8],
    pub end: End<'a>,
}

/// Where a span ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    /// It is the one key at the start.
    Single,
    /// Before this key.
    Before(&'a [u8]),
    /// Nowhere.
    Never,
}

impl<'a> Span<'a> {
    pub fn of(range: &'a KeyRange) -> Self {
        let end = match range {
            KeyRange::Single(_) => End::Single,
            KeyRange::HalfOpen(_, end) => End::Before(end),
            KeyRange::From(_) | KeyRange::All => End::Never,
        };
        Self { start: range.start(), end }
    }

    /// True if a key that is not below the start is in the span.
    pub fn before_end(&self, key: &[u8]) -> bool {
        match self.end {
            End::Single => key == self.start,
            End::Before(end) => key < end,
            End::Never => true,
        }
    }
}
