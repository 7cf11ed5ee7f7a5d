//! From a request to its answer: what every call of every service goes through. What may be repeated is in `unary`,
//! the calls' names and kinds in `method`, tokens in `token`, streams that are kept in `link` and `hub`. Which endpoint
//! is taken is `net`'s.

pub(crate) mod hub;
pub(crate) mod link;
pub(crate) mod method;
pub(crate) mod token;
mod unary;

pub(crate) use unary::Via;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Streaming};
use tracing::Instrument;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::net::balancer::{Balancer, Picked};
use crate::net::wire::Wire;
use method::Method;
use token::Tokens;

/// The version of the API that we speak, told to the server with each call.
const API_VERSION: &str = "3.7.0";

/// What one call is told besides its request.
///
/// ```
/// use std::time::Duration;
/// use etch_client::CallOptions;
///
/// let options = CallOptions::default().timeout(Duration::from_secs(1)).require_leader(true);
/// assert_eq!(options.timeout, Some(Duration::from_secs(1)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CallOptions {
    /// The call's time limit, for all its attempts together. Streams have none.
    pub timeout: Option<Duration>,
    /// Whether a member without a leader shall refuse.
    pub require_leader: bool,
    /// A token to show instead of the client's own.
    pub token: Option<Arc<str>>,
}

impl CallOptions {
    /// Sets the time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> CallOptions {
        self.timeout = Some(timeout);
        self
    }

    /// Sets whether a leader is required.
    #[must_use]
    pub fn require_leader(mut self, require: bool) -> CallOptions {
        self.require_leader = require;
        self
    }

    /// Shows this token instead of the client's own.
    #[must_use]
    pub fn token(mut self, token: impl Into<Arc<str>>) -> CallOptions {
        self.token = Some(token.into());
        self
    }
}

/// What all handles of one client share.
pub(crate) struct Core {
    pub config: Config,
    pub balancer: Balancer,
    pub tokens: Tokens,
    /// The cluster of the first answer; zero before it.
    cluster: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Core {
    pub fn new(config: Config, balancer: Balancer) -> Core {
        Core {
            tokens: Tokens::new(&config),
            config,
            balancer,
            cluster: AtomicU64::new(0),
            closed: watch::channel(false).0,
        }
    }

    /// Ends everything: calls under way, streams, connections.
    pub fn close(&self) {
        self.closed.send_replace(true);
        self.balancer.replace(Vec::new());
    }

    /// Waits until the client is closed.
    pub async fn until_closed(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as `self`.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Whether the client is closed.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Checks that an answer is from the cluster of the first answer.
    pub fn check_cluster(&self, header: Option<&pb::ResponseHeader>) -> Result<()> {
        let found = header.map_or(0, |h| h.cluster_id);
        if found == 0 {
            return Ok(());
        }
        match self.cluster.compare_exchange(0, found, Ordering::Relaxed, Ordering::Relaxed) {
            Err(expected) if expected != found => Err(Error::ClusterMismatch { expected, found }),
            _ => Ok(()),
        }
    }

    /// The request with what every call carries.
    fn request<Q>(&self, message: Q, options: &CallOptions, token: Option<&Token>) -> Request<Q> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("client-api-version", MetadataValue::from_static(API_VERSION));
        if options.require_leader {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(token) = token {
            metadata.insert("token", token.clone());
        }
        request
    }

    /// The token that a call shows: its own, or the client's.
    fn token_for(&self, options: &CallOptions) -> Result<Option<Token>> {
        match &options.token {
            Some(token) => token
                .parse()
                .map(Some)
                .map_err(|_| Error::Invalid("a token is made of visible characters".into())),
            None => Ok(self.tokens.current()),
        }
    }

    fn grpc(&self, picked: &Picked) -> tonic::client::Grpc<Wire> {
        let address = &picked.endpoint.address;
        let scheme = if address.tls { "https" } else { "http" };
        let origin = http::Uri::builder()
            .scheme(scheme)
            .authority(address.authority.as_str())
            .path_and_query("/")
            .build()
            .unwrap_or_default();
        tonic::client::Grpc::with_origin(Wire(picked.sender.clone()), origin)
            .max_encoding_message_size(self.config.max_call_send_msg_size)
            .max_decoding_message_size(self.config.max_call_recv_msg_size)
    }

    /// Opens a stream on one connection and waits for the response's head. Repeating is the caller's.
    pub async fn stream<S, Q, A>(
        &self,
        picked: &Picked,
        options: &CallOptions,
        method: &Method,
        requests: S,
    ) -> Result<Streaming<A>>
    where
        S: futures_core::Stream<Item = Q> + Send + 'static,
        Q: Message + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        let token = self.token_for(options)?;
        let request = self.request(requests, options, token.as_ref());
        let mut grpc = self.grpc(picked);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(method.path);
        let endpoint = picked.endpoint.address.text.as_str();
        let span = tracing::debug_span!("etch_client.open", method = method.name(), endpoint);
        let answered = grpc.streaming(request, path, codec).instrument(span).await;
        metrics::counter!("etch_client_streams_opened_total", "method" => method.name())
            .increment(1);
        answered.map(tonic::Response::into_inner).map_err(|status| broken(&status))
    }
}

/// A token as it is sent.
pub(crate) type Token = MetadataValue<Ascii>;

/// What the end of a stream or of a single attempt means, for whoever may repeat it.
pub(crate) fn broken(status: &tonic::Status) -> Error {
    match std::error::Error::source(status) {
        Some(cause) => Error::Unknown(cause.to_string()),
        None => Error::from_status(status),
    }
}
