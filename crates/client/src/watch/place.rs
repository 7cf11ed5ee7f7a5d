//! One watch's place: what it has given, and from where it resumes. A value without a connection or a clock.

use etch_api::Code;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::Event;

use super::{WatchResponse, WatchSpec};
use crate::error::{Error, EtcdError, Refusal};

/// Where a watch is.
#[derive(Debug)]
pub(super) struct Place {
    create: pb::WatchCreateRequest,
    /// The revision of the next event; zero until the server has said what "from now on" is.
    next: i64,
    /// Fragments of a response that is not whole yet.
    partial: Vec<Event>,
}

/// What a response means for a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing to give.
    Nothing,
    /// To give, if it fits; then [`Place::gave`].
    Give(WatchResponse),
    /// The watch is over.
    Over(Error),
}

impl Place {
    pub fn new(spec: &WatchSpec) -> Place {
        let mut create = spec.create.clone();
        // Large responses come in pieces that need no large message limit; they are joined here.
        create.fragment = true;
        // The server gives out numbers.
        create.watch_id = 0;
        let next = create.start_revision.max(0);
        Place { create, next, partial: Vec::new() }
    }

    /// The request that sets the watch up, or up again.
    pub fn request(&mut self) -> pb::WatchCreateRequest {
        self.partial.clear();
        if self.next > 0 {
            self.create.start_revision = self.next;
        }
        self.create.clone()
    }

    /// The server has set it up.
    pub fn created(&mut self, header: &pb::ResponseHeader) {
        if self.next == 0 {
            self.next = header.revision + 1;
        }
    }

    /// Looks at a response for this watch.
    pub fn take(&mut self, response: pb::WatchResponse) -> Step {
        if response.canceled {
            return Step::Over(why_canceled(&response));
        }
        let header = response.header.unwrap_or_default();
        let mut events = std::mem::take(&mut self.partial);
        events.extend(response.events);
        if response.fragment {
            self.partial = events;
            return Step::Nothing;
        }
        if events.is_empty() {
            return self.progress(header);
        }
        // A member that resumes us knows only where we asked to begin: what is older was given already.
        events.retain(|event| revision_of(event) >= self.next);
        if events.is_empty() {
            return Step::Nothing;
        }
        Step::Give(WatchResponse { header, events })
    }

    /// A sign of progress, of this watch or of the whole stream.
    pub fn progress(&mut self, header: pb::ResponseHeader) -> Step {
        // A watch that waits for the future has no progress to tell.
        if header.revision + 1 < self.next {
            return Step::Nothing;
        }
        Step::Give(WatchResponse { header, events: Vec::new() })
    }

    /// The response has been given to the reader: it will not come again.
    pub fn gave(&mut self, last: Option<i64>, header_revision: i64) {
        // The header may be ahead of events that are still to come, but for a sign of progress it is the promise.
        self.next = self.next.max(last.unwrap_or(header_revision) + 1);
    }
}

/// The revision at which an event happened.
pub(super) fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// What a cancellation by the server means.
pub(super) fn why_canceled(response: &pb::WatchResponse) -> Error {
    if response.compact_revision != 0 {
        return Error::Compacted { revision: response.compact_revision };
    }
    if response.cancel_reason.is_empty() {
        return EtcdError::WatchCanceled.into();
    }
    reason(&response.cancel_reason)
}

/// An error as a cancel reason has it: a status as text, or a text alone.
fn reason(text: &str) -> Error {
    let status = text.strip_prefix("rpc error: code = ").and_then(|t| t.split_once(" desc = "));
    let (code, message) = status.unwrap_or(("", text));
    if let Some(error) = EtcdError::from_message(message) {
        return error.into();
    }
    let named = Code::ALL.iter().find(|c| format!("{c:?}") == code);
    Error::Refused(Refusal::new(named.copied().unwrap_or(Code::FailedPrecondition), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::mvccpb::KeyValue;

    fn place(start_revision: i64) -> Place {
        let create = pb::WatchCreateRequest { start_revision, ..Default::default() };
        Place::new(&WatchSpec::new(create))
    }

    fn response(revision: i64, events: &[i64]) -> pb::WatchResponse {
        let event = |&mod_revision: &i64| Event {
            kv: Some(KeyValue { mod_revision, ..Default::default() }),
            ..Default::default()
        };
        pb::WatchResponse {
            header: Some(pb::ResponseHeader { revision, ..Default::default() }),
            events: events.iter().map(event).collect(),
            ..Default::default()
        }
    }

    fn given(place: &mut Place, response: pb::WatchResponse) -> Vec<i64> {
        match place.take(response) {
            Step::Give(r) => {
                let last = r.events.last().map(revision_of);
                place.gave(last, r.header.revision);
                r.events.iter().map(revision_of).collect()
            }
            Step::Nothing => Vec::new(),
            Step::Over(error) => panic!("{error}"),
        }
    }

    #[test]
    fn from_now_on_is_fixed_by_the_first_answer() {
        let mut place = place(0);
        assert_eq!(place.request().start_revision, 0);
        place.created(&pb::ResponseHeader { revision: 7, ..Default::default() });
        assert_eq!(place.request().start_revision, 8);
        // Set up again later, it still begins where it was.
        place.created(&pb::ResponseHeader { revision: 20, ..Default::default() });
        assert_eq!(place.request().start_revision, 8);
    }

    #[test]
    fn resumes_after_what_was_given_and_gives_nothing_twice() {
        let mut place = place(5);
        assert_eq!(given(&mut place, response(9, &[5, 7, 7])), [5, 7, 7]);
        // The header was ahead: revisions 8 and 9 are still to come.
        assert_eq!(place.request().start_revision, 8);
        assert_eq!(given(&mut place, response(9, &[7, 8])), [8]);
        assert_eq!(given(&mut place, response(9, &[7, 8])), [0i64; 0]);
        assert_eq!(place.request().start_revision, 9);
        // Progress promises that nothing up to it is still to come.
        given(&mut place, response(30, &[]));
        assert_eq!(place.request().start_revision, 31);
    }

    #[test]
    fn what_did_not_fit_is_asked_for_again() {
        let mut place = place(5);
        assert!(matches!(place.take(response(9, &[5])), Step::Give(_)));
        assert_eq!(place.request().start_revision, 5);
    }

    #[test]
    fn fragments_are_joined_and_forgotten_with_their_stream() {
        let mut place = place(5);
        let mut first = response(9, &[5, 6]);
        first.fragment = true;
        assert_eq!(place.take(first.clone()), Step::Nothing);
        assert_eq!(given(&mut place, response(9, &[6, 7])), [5, 6, 6, 7]);
        assert_eq!(place.take(first), Step::Nothing);
        assert_eq!(place.request().start_revision, 8);
        assert_eq!(given(&mut place, response(9, &[8])), [8]);
    }

    #[test]
    fn the_future_has_no_progress() {
        let mut place = place(50);
        assert_eq!(place.take(response(9, &[])), Step::Nothing);
        assert_eq!(place.request().start_revision, 50);
    }

    #[test]
    fn cancellations_say_why() {
        let canceled = |compact_revision, cancel_reason: &str| {
            why_canceled(&pb::WatchResponse {
                canceled: true,
                compact_revision,
                cancel_reason: cancel_reason.into(),
                ..Default::default()
            })
        };
        assert_eq!(canceled(9, "x"), Error::Compacted { revision: 9 });
        let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert!(canceled(0, denied).is(EtcdError::PermissionDenied));
        let other = canceled(0, "mvcc: watcher range is empty");
        assert_eq!(other.code(), Code::FailedPrecondition);
        assert!(canceled(0, "").is(EtcdError::WatchCanceled));
    }
}
