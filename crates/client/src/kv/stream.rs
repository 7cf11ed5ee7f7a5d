//! Reading in pieces: the server's own stream where it has one, pages where not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use etch_api::Code;
use etch_api::pb::etcdserverpb as pb;
use futures_core::Stream;
use pb::range_request::{SortOrder, SortTarget};

use super::{BoxStream, Kv};
use crate::call::method::{Kind, RANGE_STREAM};
use crate::call::{CallOptions, Core, broken};
use crate::error::{Error, Result};
use crate::kv::CoreKv;
use crate::net::balancer::Picked;
use crate::net::endpoint::Endpoint;

/// How many keys a page has.
const PAGE: i64 = 1000;

/// A read in pieces, all at one revision; concatenated, they are the answer to the same read in one.
///
/// As with the server's own stream, `header`, `more` and `count` are to be taken from the last piece.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let mut pieces = client.get("logs/").prefix().limit(10_000).stream().page(500);
/// while let Some(piece) = pieces.next().await {
///     println!("{} keys", piece?.kvs.len());
/// }
/// # Ok(())
/// # });
/// ```
#[must_use = "nothing happens until it is read"]
pub struct RangeStream {
    state: State,
}

enum State {
    /// Not begun: the page's size may still be set.
    New(Box<dyn FnOnce(i64) -> BoxStream<Result<pb::RangeResponse>> + Send>, i64),
    Begun(BoxStream<Result<pb::RangeResponse>>),
}

impl RangeStream {
    /// A stream made when it is first read, told how many keys a page shall have.
    pub fn new(
        begin: impl FnOnce(i64) -> BoxStream<Result<pb::RangeResponse>> + Send + 'static,
    ) -> RangeStream {
        RangeStream { state: State::New(Box::new(begin), PAGE) }
    }

    /// Asks any [`Kv`] page by page.
    pub fn by_pages(
        kv: Arc<dyn Kv>,
        options: CallOptions,
        request: pb::RangeRequest,
    ) -> RangeStream {
        RangeStream::new(move |page| pages(kv, options, request, page))
    }

    pub(crate) fn from_server(
        core: Arc<Core>,
        options: CallOptions,
        request: pb::RangeRequest,
    ) -> RangeStream {
        RangeStream::new(move |page| {
            let source =
                Source { core, options, request, page, state: SourceState::Closed, given: 0 };
            Box::pin(futures_util::stream::unfold(source, Source::step))
        })
    }

    /// Sets how many keys a page has, where the read goes by pages.
    pub fn page(mut self, keys: u32) -> RangeStream {
        if let State::New(_, page) = &mut self.state {
            *page = i64::from(keys.max(1));
        }
        self
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<pb::RangeResponse>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for RangeStream {
    type Item = Result<pb::RangeResponse>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let State::New(..) = self.state {
            let empty: BoxStream<_> = Box::pin(futures_util::stream::empty());
            if let State::New(begin, page) = std::mem::replace(&mut self.state, State::Begun(empty))
            {
                self.state = State::Begun(begin(page));
            }
        }
        match &mut self.state {
            State::Begun(stream) => stream.as_mut().poll_next(cx),
            State::New(..) => Poll::Ready(None),
        }
    }
}

/// The server's stream, with what is needed to begin anew.
struct Source {
    core: Arc<Core>,
    options: CallOptions,
    request: pb::RangeRequest,
    page: i64,
    state: SourceState,
    /// How many pieces have been given.
    given: u64,
}

enum SourceState {
    Closed,
    Open(Box<tonic::Streaming<pb::RangeStreamResponse>>, Arc<Endpoint>),
    Pages(BoxStream<Result<pb::RangeResponse>>),
    Done,
}

impl Source {
    /// The next piece. Until the first one has been given, the read may begin anew elsewhere.
    async fn step(mut self) -> Option<(Result<pb::RangeResponse>, Source)> {
        let mut attempts = 0;
        let mut avoid = None;
        let mut renewed = false;
        loop {
            match self.state {
                SourceState::Done => return None,
                SourceState::Pages(ref mut pages) => {
                    let piece = std::future::poll_fn(|cx| pages.as_mut().poll_next(cx)).await?;
                    return Some((piece, self));
                }
                SourceState::Closed | SourceState::Open(..) => {}
            }
            let generation = self.core.tokens.generation();
            let picked = match self.state {
                SourceState::Closed => match self.core.balancer.pick(avoid.as_ref()).await {
                    Ok(picked) => Some(picked),
                    // It was waited for as long as it may be.
                    Err(error) => {
                        self.state = SourceState::Done;
                        return Some((Err(error), self));
                    }
                },
                _ => None,
            };
            let error = match self.piece(picked).await {
                Ok(Some(piece)) => {
                    self.given += 1;
                    return Some((Ok(piece), self));
                }
                Ok(None) => return None,
                Err(error) => error,
            };
            let open = std::mem::replace(&mut self.state, SourceState::Done);
            if self.given > 0 {
                return Some((Err(error), self));
            }
            if error.code() == Code::Unimplemented {
                let kv: Arc<dyn Kv> = Arc::new(CoreKv(self.core.clone()));
                let pages = pages(kv, self.options.clone(), self.request.clone(), self.page);
                self.state = SourceState::Pages(pages);
                continue;
            }
            if error.wants_token() && !renewed {
                match self.core.renew_token(&self.options, generation).await {
                    Ok(true) => {
                        renewed = true;
                        self.state = SourceState::Closed;
                        continue;
                    }
                    Ok(false) => return Some((Err(error), self)),
                    Err(error) => return Some((Err(error), self)),
                }
            }
            attempts += 1;
            let again = error.is_transient() && RANGE_STREAM.kind == Kind::Repeatable;
            if !again || attempts >= self.core.config.max_unary_retries {
                return Some((Err(error), self));
            }
            if let SourceState::Open(_, endpoint) = open {
                avoid = Some(endpoint);
            }
            self.state = SourceState::Closed;
            self.core.back_off(attempts).await;
        }
    }

    /// The next piece, of a stream that is opened now if there is somewhere to open it.
    async fn piece(&mut self, open: Option<Picked>) -> Result<Option<pb::RangeResponse>> {
        let core = self.core.clone();
        if let Some(picked) = open {
            let once = futures_util::stream::iter([self.request.clone()]);
            let stream = core.stream(&picked, &self.options, &RANGE_STREAM, once).await;
            let stream = stream.inspect_err(|error| {
                if error.is_transient() {
                    picked.endpoint.suspect();
                }
            })?;
            self.state = SourceState::Open(Box::new(stream), picked.endpoint);
        }
        let SourceState::Open(stream, _) = &mut self.state else { return Ok(None) };
        let message = tokio::select! {
            () = core.until_closed() => return Err(Error::Closed),
            message = stream.message() => message.map_err(|status| broken(&status))?,
        };
        let Some(message) = message else { return Ok(None) };
        let piece = message.range_response.unwrap_or_default();
        core.check_cluster(piece.header.as_ref())?;
        Ok(Some(piece))
    }
}

/// A read page by page, pinned to the revision of its first page.
fn pages(
    kv: Arc<dyn Kv>,
    options: CallOptions,
    request: pb::RangeRequest,
    page: i64,
) -> BoxStream<Result<pb::RangeResponse>> {
    let by_key = request.sort_target == SortTarget::Key as i32;
    let up = request.sort_order != SortOrder::Descend as i32;
    // Any other order is known only when all keys are: such a read is one page.
    let pageable = by_key && up && !request.count_only && !request.range_end.is_empty();
    let left = (request.limit > 0).then_some(request.limit);
    let pager = Pager { kv, options, request, page, pageable, left, count: None };
    Box::pin(futures_util::stream::unfold(Some(pager), |pager| async {
        let mut pager = pager?;
        match pager.next().await {
            Ok((piece, true)) => Some((Ok(piece), None)),
            Ok((piece, false)) => Some((Ok(piece), Some(pager))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Pager {
    kv: Arc<dyn Kv>,
    options: CallOptions,
    request: pb::RangeRequest,
    page: i64,
    pageable: bool,
    /// How many keys the caller still wants.
    left: Option<i64>,
    /// The whole range's count: the first page's.
    count: Option<i64>,
}

impl Pager {
    /// A page, and whether it is the last.
    async fn next(&mut self) -> Result<(pb::RangeResponse, bool)> {
        if self.pageable {
            self.request.limit = self.left.map_or(self.page, |left| left.min(self.page));
        }
        let mut piece = self.kv.range(self.options.clone(), self.request.clone()).await?;
        if !self.pageable {
            return Ok((piece, true));
        }
        let got = piece.kvs.len() as i64;
        let count = *self.count.get_or_insert(piece.count);
        self.left = self.left.map(|left| left - got);
        let wanted_is_here = self.left.is_some_and(|left| left <= 0);
        let last = !piece.more || wanted_is_here;
        piece.count = count;
        if let Some(key) = piece.kvs.last().map(|kv| &kv.key) {
            self.request.key = after(key);
        }
        if self.request.revision <= 0 {
            self.request.revision = piece.header.as_ref().map_or(0, |h| h.revision);
        }
        Ok((piece, last))
    }
}

/// The smallest key after this one.
fn after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
