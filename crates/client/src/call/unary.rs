//! One question, one answer: attempts, the rules of repeating them, the time limit.
//!
//! The rules are etcd's. A call that may be repeated is, whenever the server is unavailable or the connection broke.
//! Any other is sent a second time only if the first surely was not carried out: it never left, the server refused
//! the stream unseen, or refused the request before looking at it (a stale token, a learner).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etch_api::Code;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::Instant;
use tracing::Instrument;

use super::method::{Kind, Method};
use super::token::RENEWALS;
use super::{CallOptions, Core, Token};
use crate::error::{Error, EtcdError, Refusal, Result};
use crate::header::HasHeader;
use crate::net::balancer::Picked;
use crate::net::endpoint::Endpoint;
use crate::net::wire::WireError;

/// Which endpoint a call goes to.
#[derive(Clone, Copy)]
pub(crate) enum Via<'a> {
    /// Any.
    Any,
    /// This one alone.
    One(&'a Arc<Endpoint>),
}

/// How one attempt ended, if not well.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The request surely was not seen.
    NeverLeft(String),
    /// The request left; the answer did not come.
    Lost(String),
    /// The server said no.
    Refused(Error),
}

/// What a call remembers between its attempts.
struct Course<'a> {
    /// Set once a request may have left.
    sent: &'a AtomicBool,
    attempts: u32,
    renewals: u32,
    avoid: Option<Arc<Endpoint>>,
    /// The call's own, told where each attempt went.
    span: &'a tracing::Span,
}

impl Core {
    /// Asks, by the rules.
    pub async fn call<Q, A>(&self, options: &CallOptions, method: &Method, request: Q) -> Result<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + HasHeader + Send + 'static,
    {
        self.call_via(Via::Any, options, method, request).await
    }

    /// Asks a given endpoint, or any, within a span of its own.
    pub async fn call_via<Q, A>(
        &self,
        via: Via<'_>,
        options: &CallOptions,
        method: &Method,
        request: Q,
    ) -> Result<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + HasHeader + Send + 'static,
    {
        let empty = tracing::field::Empty;
        let span = tracing::debug_span!(
            "etch_client.call",
            method = method.name(),
            endpoint = empty,
            attempts = empty,
            outcome = empty
        );
        let started = Instant::now();
        let work = self.bounded(via, options, method, &request, &span);
        let result = work.instrument(span.clone()).await;
        span.record("outcome", record(method, started, result.as_ref().err()));
        result
    }

    /// Asks within the time limit, as long as the client is open.
    async fn bounded<Q, A>(
        &self,
        via: Via<'_>,
        options: &CallOptions,
        method: &Method,
        request: &Q,
        span: &tracing::Span,
    ) -> Result<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + HasHeader + Send + 'static,
    {
        self.check_size(request.encoded_len())?;
        let limit = options.timeout.map(|timeout| Instant::now() + timeout);
        let sent = AtomicBool::new(false);
        let course = Course { sent: &sent, attempts: 0, renewals: 0, avoid: None, span };
        let work = self.attempts(via, options, method, request, limit, course);
        let bounded = async {
            match limit {
                None => work.await,
                Some(limit) => tokio::time::timeout_at(limit, work).await.unwrap_or_else(|_| {
                    Err(Error::Deadline { sent: sent.load(Ordering::Relaxed) })
                }),
            }
        };
        tokio::select! {
            biased;
            () = self.until_closed() => {
                // What left is not called back by closing.
                if sent.load(Ordering::Relaxed) && method.kind == Kind::Once {
                    Err(Error::Unknown("the client was closed".into()))
                } else {
                    Err(Error::Closed)
                }
            }
            result = bounded => result,
        }
    }

    /// Refuses a request that is too large before it is begun, in gRPC's own words.
    fn check_size(&self, size: usize) -> Result<()> {
        let max = self.config.max_call_send_msg_size;
        if size <= max {
            return Ok(());
        }
        let why = format!("trying to send message larger than max ({size} vs. {max})");
        Err(Error::Refused(Refusal::new(Code::ResourceExhausted, why)))
    }

    /// Logs in: the one call that must not wait for a token. With the answer the endpoint that it came from.
    pub(super) async fn call_without_token<Q, A>(
        &self,
        method: &Method,
        request: Q,
    ) -> Result<(A, Arc<Endpoint>)>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + HasHeader + Send + 'static,
    {
        let mut attempts = 0;
        let mut avoid = None;
        loop {
            let picked = self.balancer.pick(avoid.as_ref()).await?;
            let options = CallOptions::default();
            let error = match self.attempt(&picked, &options, None, method, &request, None).await {
                Ok(answer) => return Ok((answer, picked.endpoint)),
                Err(Attempt::NeverLeft(why) | Attempt::Lost(why)) => Error::Unknown(why),
                Err(Attempt::Refused(error)) => error,
            };
            attempts += 1;
            if !error.is_transient() || attempts >= self.config.max_unary_retries {
                return Err(error);
            }
            avoid = Some(picked.endpoint);
            self.back_off(attempts).await;
        }
    }

    async fn attempts<Q, A>(
        &self,
        via: Via<'_>,
        options: &CallOptions,
        method: &Method,
        request: &Q,
        limit: Option<Instant>,
        mut course: Course<'_>,
    ) -> Result<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + HasHeader + Send + 'static,
    {
        loop {
            let picked = match via {
                Via::Any => self.balancer.pick(course.avoid.as_ref()).await?,
                Via::One(endpoint) => self.balancer.pick_one(endpoint).await?,
            };
            // A time limit that has passed by now, or of nothing, sends nothing.
            if limit.is_some_and(|limit| limit <= Instant::now()) {
                return Err(Error::Deadline { sent: course.sent.load(Ordering::Relaxed) });
            }
            course.span.record("endpoint", picked.endpoint.address.text.as_str());
            course.span.record("attempts", course.attempts + 1);
            let generation = self.tokens.generation();
            let token = self.token_for(options)?;
            // From here until the attempt says otherwise, a deadline must assume that the request left.
            let before = course.sent.swap(true, Ordering::Relaxed);
            let answer =
                self.attempt(&picked, options, token.as_ref(), method, request, limit).await;
            let failed = match answer {
                Ok(answer) => return self.accept(answer, &picked),
                Err(failed) => failed,
            };
            if matches!(failed, Attempt::NeverLeft(_)) {
                course.sent.store(before, Ordering::Relaxed);
            }
            self.after(failed, &picked, options, method, generation, &mut course).await?;
        }
    }

    /// An answer counts only if it comes from our cluster.
    fn accept<A: HasHeader>(&self, answer: A, picked: &Picked) -> Result<A> {
        self.check_cluster(answer.header()).inspect_err(|_| picked.endpoint.suspect())?;
        Ok(answer)
    }

    /// Decides whether there is another attempt, and waits for its turn; otherwise returns the call's error.
    async fn after(
        &self,
        failed: Attempt,
        picked: &Picked,
        options: &CallOptions,
        method: &Method,
        generation: u64,
        course: &mut Course<'_>,
    ) -> Result<()> {
        course.attempts += 1;
        let repeatable = method.kind == Kind::Repeatable;
        let (error, again) = match failed {
            Attempt::NeverLeft(why) => (Error::NoEndpoint(why), true),
            Attempt::Lost(why) => (Error::Unknown(why), repeatable),
            Attempt::Refused(error) if error.wants_token() => {
                if course.renewals == RENEWALS || !self.renew_token(options, generation).await? {
                    return Err(error);
                }
                course.renewals += 1;
                return Ok(());
            }
            Attempt::Refused(error) => {
                let unavailable = error.code() == Code::Unavailable;
                if unavailable {
                    picked.endpoint.suspect();
                }
                // A learner has not looked at it: another member may.
                let learner = error.is(EtcdError::NotSupportedForLearner)
                    && self.balancer.endpoints().len() > 1;
                (error, learner || (unavailable && repeatable))
            }
        };
        if !again || course.attempts >= self.config.max_unary_retries {
            return Err(error);
        }
        tracing::debug!(method = method.name(), attempt = course.attempts, %error, "trying again");
        course.avoid = Some(picked.endpoint.clone());
        self.back_off(course.attempts).await;
        Ok(())
    }

    /// Sends the request once.
    async fn attempt<Q, A>(
        &self,
        picked: &Picked,
        options: &CallOptions,
        token: Option<&Token>,
        method: &Method,
        request: &Q,
        limit: Option<Instant>,
    ) -> Result<A, Attempt>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + 'static,
    {
        let mut request = self.request(request.clone(), options, token);
        if let Some(limit) = limit {
            request.set_timeout(limit.saturating_duration_since(Instant::now()));
        }
        let mut grpc = self.grpc(picked);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(method.path);
        match grpc.unary(request, path, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(sort(&status)),
        }
    }

    /// Waits a while each time a majority of the endpoints has been tried.
    pub(crate) async fn back_off(&self, attempt: u32) {
        let majority = self.balancer.endpoints().len() as u32 / 2 + 1;
        if attempt.is_multiple_of(majority) {
            let jitter = self.config.backoff_jitter_fraction * (2.0 * fastrand::f64() - 1.0);
            tokio::time::sleep(self.config.backoff_wait_between.mul_f64(1.0 + jitter)).await;
        }
    }
}

/// What a status means: a text from the server, or an accident on the way.
fn sort(status: &tonic::Status) -> Attempt {
    let Some(cause) = std::error::Error::source(status) else {
        return Attempt::Refused(Error::from_status(status));
    };
    match cause.downcast_ref::<WireError>() {
        Some(wire) if wire.never_left => Attempt::NeverLeft(wire.why.clone()),
        Some(wire) => Attempt::Lost(wire.why.clone()),
        None => Attempt::Lost(cause.to_string()),
    }
}

/// Counts a call; how it ended, in one word.
fn record(method: &Method, started: Instant, error: Option<&Error>) -> &'static str {
    let outcome = match error {
        None => "ok",
        Some(Error::Refused(_)) => "refused",
        Some(Error::NoEndpoint(_)) => "no_endpoint",
        Some(Error::Deadline { .. }) => "deadline",
        Some(Error::Unknown(_)) => "unknown",
        Some(_) => "other",
    };
    let seconds = Duration::as_secs_f64(&started.elapsed());
    metrics::counter!("etch_client_calls_total", "method" => method.name(), "outcome" => outcome)
        .increment(1);
    metrics::histogram!("etch_client_call_seconds", "method" => method.name()).record(seconds);
    if let Some(error) = error {
        tracing::debug!(method = method.name(), seconds, %error, "call failed");
    }
    outcome
}
