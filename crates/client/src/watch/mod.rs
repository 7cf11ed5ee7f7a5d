//! Watching keys: what a caller sees. One task a stream does the work (`stream`), each watcher's place in it is a
//! value (`place`), and events wait for their reader in a bounded queue (`queue`).

mod core;
mod place;
mod queue;
mod stream;

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::mvccpb::Event;
use futures_core::Stream;
use pb::watch_create_request::FilterType;

pub(crate) use self::core::CoreWatcher;

use crate::bytes::IntoBytes;
use crate::call::CallOptions;
use crate::client::Client;
use crate::error::Result;
use crate::kv::{BoxFuture, BoxStream, key_options};

/// How many events wait for a reader, if it does not say otherwise.
const BUFFER: usize = 4096;

/// What happens to a watch whose reader falls behind by more than its buffer.
///
/// ```
/// use etch_client::Overflow;
///
/// # etch_doctest::run(async |client| {
/// let mut newest = client.watch("feed/").prefix().buffer(1000, Overflow::Fail).await?;
/// # client.put("feed/1", "").await?;
/// # let _ = newest.next().await;
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It is taken off the server, and set up again where it stopped as soon as the buffer is read. Nothing is lost,
    /// unless the history is compacted meanwhile: then it ends as compacted. Other watches do not notice.
    #[default]
    Wait,
    /// It ends with [`crate::Error::SlowConsumer`].
    Fail,
}

/// Everything that a watch is told.
///
/// ```
/// use etch_client::{WatchSpec, pb};
///
/// let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
/// assert!(WatchSpec::new(create).buffer > 0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WatchSpec {
    /// What the server is told.
    pub create: pb::WatchCreateRequest,
    /// How many events may wait for the reader.
    pub buffer: usize,
    /// What happens beyond that.
    pub overflow: Overflow,
}

impl WatchSpec {
    /// A watch of these keys, with the defaults.
    pub fn new(create: pb::WatchCreateRequest) -> WatchSpec {
        WatchSpec { create, buffer: BUFFER, overflow: Overflow::default() }
    }
}

/// The calls of etcd's Watch service.
///
/// ```
/// use etch_client::{BoxFuture, CallOptions, Result, WatchSpec, WatchStream, Watcher};
///
/// /// Asks for what was before with every event.
/// struct WithPrevious<W>(W);
///
/// impl<W: Watcher> Watcher for WithPrevious<W> {
///     fn watch(&self, o: CallOptions, mut spec: WatchSpec) -> BoxFuture<Result<WatchStream>> {
///         spec.create.prev_kv = true;
///         self.0.watch(o, spec)
///     }
///     fn request_progress(&self, o: CallOptions) -> BoxFuture<Result<()>> {
///         self.0.request_progress(o)
///     }
/// }
/// ```
pub trait Watcher: Send + Sync + 'static {
    /// Begins to watch. Resolves when the server has set the watch up.
    fn watch(&self, options: CallOptions, spec: WatchSpec) -> BoxFuture<Result<WatchStream>>;

    /// Asks for a sign of progress on all watches with these options.
    fn request_progress(&self, options: CallOptions) -> BoxFuture<Result<()>>;
}

/// Some events, or a sign of progress if there are none: every event up to the header's revision has been given.
///
/// ```
/// assert!(etch_client::WatchResponse::default().is_progress());
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WatchResponse {
    /// Where the store was when this was sent.
    pub header: pb::ResponseHeader,
    /// What happened, in the order in which it did. All events of one revision come together.
    pub events: Vec<Event>,
}

impl WatchResponse {
    /// Whether this only says how far the watch is.
    pub fn is_progress(&self) -> bool {
        self.events.is_empty()
    }
}

/// A watch under way. It ends after an error; dropping it ends it on the server.
///
/// ```
/// # etch_doctest::run(async |client| {
/// let mut watch = client.watch("config/").prefix().await?;
/// # client.put("config/color", "blue").await?;
/// while let Some(response) = watch.next().await {
///     for event in response?.events {
///         println!("{:?} {:?}", event.r#type(), event.kv.map(|kv| kv.key));
///     }
///     # break;
/// }
/// # Ok(())
/// # });
/// ```
#[must_use = "dropping it ends the watch"]
pub struct WatchStream {
    created: pb::ResponseHeader,
    responses: BoxStream<Result<WatchResponse>>,
}

impl WatchStream {
    /// A watch made of any stream: for layers.
    pub fn new(
        created: pb::ResponseHeader,
        responses: impl Stream<Item = Result<WatchResponse>> + Send + 'static,
    ) -> WatchStream {
        WatchStream { created, responses: Box::pin(responses) }
    }

    /// The header with which the server set the watch up. A watch without a start revision gives what comes after
    /// this header's.
    pub fn created(&self) -> &pb::ResponseHeader {
        &self.created
    }

    /// The next response; `None` once the watch has ended.
    pub async fn next(&mut self) -> Option<Result<WatchResponse>> {
        std::future::poll_fn(|cx| self.responses.as_mut().poll_next(cx)).await
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchResponse>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.responses.as_mut().poll_next(cx)
    }
}

/// A watch to be: of one key, unless an option widens it. Await it.
///
/// ```
/// use etch_client::Overflow;
///
/// # etch_doctest::run(async |client| {
/// let from = client.get("jobs/").prefix().await?;
/// let revision = from.header.map_or(0, |h| h.revision);
/// let mut watch = client
///     .watch("jobs/")
///     .prefix()
///     .rev(revision + 1)
///     .prev_kv()
///     .buffer(100, Overflow::Fail)
///     .await?;
/// # client.put("jobs/1", "").await?;
/// # let _ = watch.next().await;
/// # Ok(())
/// # });
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct Watch {
    watcher: Arc<dyn Watcher>,
    options: CallOptions,
    spec: WatchSpec,
}

impl Watch {
    key_options!(spec.create);

    /// Begins with this revision, from history where it is past; without it, with what happens from now on.
    pub fn rev(mut self, revision: i64) -> Watch {
        self.spec.create.start_revision = revision;
        self
    }

    /// Events bear what was there before.
    pub fn prev_kv(mut self) -> Watch {
        self.spec.create.prev_kv = true;
        self
    }

    /// The server sends a sign of progress now and then, if there are no events.
    pub fn progress_notify(mut self) -> Watch {
        self.spec.create.progress_notify = true;
        self
    }

    /// No puts.
    pub fn no_put(mut self) -> Watch {
        self.spec.create.filters.push(FilterType::Noput as i32);
        self
    }

    /// No deletions.
    pub fn no_delete(mut self) -> Watch {
        self.spec.create.filters.push(FilterType::Nodelete as i32);
        self
    }

    /// At most this many events wait for the reader (one response always may), and this happens beyond.
    pub fn buffer(mut self, events: usize, overflow: Overflow) -> Watch {
        (self.spec.buffer, self.spec.overflow) = (events, overflow);
        self
    }

    /// Gives setting the watch up this time limit. The watch itself has none.
    pub fn timeout(mut self, timeout: std::time::Duration) -> Watch {
        self.options.timeout = Some(timeout);
        self
    }

    /// Ends the watch with "no leader" when its member has none.
    pub fn require_leader(mut self) -> Watch {
        self.options.require_leader = true;
        self
    }
}

impl IntoFuture for Watch {
    type Output = Result<WatchStream>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.watcher.watch(self.options, self.spec)
    }
}

/// Watches.
impl Client {
    /// Watches a key, or more.
    ///
    /// The watch survives lost connections and members: it resumes after the last revision it gave, elsewhere if need
    /// be, and gives every event once and in order. It ends with an error that says why: compacted, refused, no
    /// leader where one is required, a reader that is too slow where that was asked for, or a closed client.
    pub fn watch(&self, key: impl IntoBytes) -> Watch {
        let create = pb::WatchCreateRequest { key: key.into_bytes(), ..Default::default() };
        Watch {
            watcher: self.watcher.clone(),
            options: self.options.clone(),
            spec: WatchSpec::new(create),
        }
    }

    /// Asks for a sign of progress on all watches of this handle's options: each gives a response without events.
    pub async fn request_progress(&self) -> Result<()> {
        self.watcher.request_progress(self.options.clone()).await
    }

    /// The same client, watching through this: how layers are put on.
    #[must_use]
    pub fn with_watcher(&self, watcher: Arc<dyn Watcher>) -> Client {
        Client { watcher, ..self.clone() }
    }

    /// What is watched through: for a layer to wrap.
    pub fn watcher(&self) -> Arc<dyn Watcher> {
        self.watcher.clone()
    }
}
