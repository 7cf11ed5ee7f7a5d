//! A stream both ways, as the task that keeps it sees it: down for a while, being opened somewhere, or up. What is sent
//! over it, and what its end means, is the task's (`watch::stream`, `lease::stream`).

use std::pin::Pin;
use std::sync::{Arc, Weak};

use prost::Message;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tonic::Streaming;

use super::method::Method;
use super::{CallOptions, Core, broken};
use crate::error::{Error, Result};
use crate::net::endpoint::Endpoint;
use crate::requests::Requests;

/// How an attempt to open went: where, and with which generation of the token.
pub(crate) struct Opened<A> {
    pub result: Result<Box<Streaming<A>>>,
    /// Not held, so that an endpoint that is taken out ends.
    pub endpoint: Option<Weak<Endpoint>>,
    pub generation: u64,
}

/// A stream's state.
pub(crate) enum Link<A> {
    /// Not before this time.
    Down(Instant),
    Opening(Pin<Box<dyn Future<Output = Opened<A>> + Send>>),
    Up(Box<Streaming<A>>),
}

/// What a stream waited for.
pub(crate) enum Turn<A> {
    /// It is time to open it.
    Open,
    Opened(Opened<A>),
    /// A message, or how it ended.
    Message(Result<A>),
}

impl<A: Message + Default + Send + 'static> Link<A> {
    /// To be opened at once.
    pub fn new() -> Link<A> {
        Link::Down(Instant::now())
    }

    /// Opens a stream that sends these requests; elsewhere than at `avoid`, if that is possible.
    pub fn open<Q: Message + Send + 'static>(
        core: &Arc<Core>,
        options: &CallOptions,
        method: &'static Method,
        requests: UnboundedReceiver<Q>,
        avoid: Option<Weak<Endpoint>>,
    ) -> Link<A> {
        let (core, options) = (core.clone(), options.clone());
        Link::Opening(Box::pin(async move {
            let generation = core.tokens.generation();
            let avoid = avoid.and_then(|endpoint| endpoint.upgrade());
            let picked = match core.balancer.pick(avoid.as_ref()).await {
                Ok(picked) => picked,
                Err(error) => return Opened { result: Err(error), endpoint: None, generation },
            };
            drop(avoid);
            let stream = core.stream(&picked, &options, method, Requests(requests)).await;
            let endpoint = Some(Arc::downgrade(&picked.endpoint));
            Opened { result: stream.map(Box::new), endpoint, generation }
        }))
    }

    /// Waits for what comes next. Dropping this loses nothing.
    pub async fn next(&mut self) -> Turn<A> {
        match self {
            Link::Down(until) => {
                tokio::time::sleep_until(*until).await;
                Turn::Open
            }
            Link::Opening(opening) => Turn::Opened(opening.await),
            Link::Up(messages) => Turn::Message(match messages.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(Error::Unknown("the stream ended".into())),
                Err(status) => Err(broken(&status)),
            }),
        }
    }
}
