//! One client: a connection of a real gRPC library, requests with a time limit, and what came of them in
//! the record. Not here: what is asked (`traffic`), and watches (`watcher`).

use std::sync::Arc;
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use etch_sim::history::{Operation, Outcome, Request, Response};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::rng::Rng;
use crate::world::World;

/// Larger than any answer of a run.
const MESSAGE_MAX: usize = 512 << 20;

/// A connection.
pub struct Link {
    grpc: Grpc<Channel>,
}

impl Link {
    /// Connects, or says why not, within the limit.
    pub async fn connect(endpoint: &str, limit: Duration) -> Result<Link, String> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|e| e.to_string())?
            .connect_timeout(limit);
        let channel = timeout(limit, endpoint.connect())
            .await
            .map_err(|_| "connecting took too long".to_owned())?
            .map_err(|e| e.to_string())?;
        Ok(Link { grpc: Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX) })
    }

    /// A call with one request and one answer.
    pub async fn unary<Q, A>(
        &mut self,
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let call = async {
            self.grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let mut request = tonic::Request::new(request);
            request.set_timeout(limit);
            let path = PathAndQuery::from_static(path);
            self.grpc.unary(request, path, ProstCodec::<Q, A>::default()).await
        };
        timed(limit, call).await.map(tonic::Response::into_inner)
    }

    /// A call with one request and a stream of answers, gathered.
    pub async fn gather<Q, A>(
        &mut self,
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<Vec<A>, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        timed(limit, async {
            self.grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            let answer =
                self.grpc.server_streaming(tonic::Request::new(request), path, codec).await?;
            let mut stream = answer.into_inner();
            let mut all = Vec::new();
            while let Some(one) = stream.message().await? {
                all.push(one);
            }
            Ok(all)
        })
        .await
    }

    /// A call with streams both ways, begun with a first request: a server may wait for it with its own head.
    pub async fn stream<Q, A>(
        &mut self,
        path: &'static str,
        first: Q,
        limit: Duration,
    ) -> Result<(mpsc::Sender<Q>, Streaming<A>), Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let (sender, receiver) = mpsc::channel(16);
        sender.try_send(first).map_err(|_| Status::internal("a new channel has room"))?;
        let call = async {
            self.grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let mut request = tonic::Request::new(ReceiverStream::new(receiver));
            request
                .metadata_mut()
                .insert("hasleader", "true".parse().expect("is a header's value"));
            let path = PathAndQuery::from_static(path);
            self.grpc.streaming(request, path, ProstCodec::<Q, A>::default()).await
        };
        let answers = timed(limit, call).await?.into_inner();
        Ok((sender, answers))
    }
}

async fn timed<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the client's time limit")))
}

/// A client that records.
pub struct Client {
    /// What it shares with the others.
    pub world: Arc<World>,
    /// Its draws.
    pub rng: Rng,
    number: u32,
    link: Option<Link>,
}

impl Client {
    /// A new client, not connected yet.
    pub fn new(world: &Arc<World>, rng: Rng) -> Self {
        Self { world: Arc::clone(world), rng, number: world.client_number(), link: None }
    }

    /// Asks, with the run's time limit; see [`Client::ask_within`].
    pub async fn ask(&mut self, request: Request) -> Option<Response> {
        self.ask_within(request, self.world.limit).await
    }

    /// Asks, and records how it ended. `None` if there is no answer, or no connection: then nothing was asked.
    pub async fn ask_within(&mut self, request: Request, limit: Duration) -> Option<Response> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => match Link::connect(&self.world.endpoint, limit).await {
                Ok(link) => link,
                Err(_) => {
                    sleep(Duration::from_millis(self.rng.between(10, 40))).await;
                    return None;
                }
            },
        };
        let stream = self.rng.percent(30);
        let member = self.world.member();
        let sent_ns = self.world.now_ns();
        let result = send(&mut link, request.clone(), limit, stream).await;
        let ended_ns = self.world.now_ns();
        let client = self.number;
        let (keeps_link, outcome) = match &result {
            Ok(response) => {
                self.world.saw(revision_of(response));
                (true, Outcome::Ok(response.clone()))
            }
            Err(status) => match Outcome::failed(status.message()) {
                // Whoever does not know begins anew: with a new number, and mostly on a new connection.
                Outcome::Unknown => {
                    self.number = self.world.client_number();
                    (
                        status.code() == Code::DeadlineExceeded && self.rng.percent(40),
                        Outcome::Unknown,
                    )
                }
                outcome => (true, outcome),
            },
        };
        self.link = keeps_link.then_some(link);
        self.world.record(Operation { client, member, sent_ns, ended_ns, request, outcome });
        result.ok()
    }
}

/// Sends a request by the call of its kind. A range may be asked for as a stream.
async fn send(
    link: &mut Link,
    request: Request,
    limit: Duration,
    stream: bool,
) -> Result<Response, Status> {
    Ok(match request {
        Request::Range(q) if stream => {
            let parts = link.gather("/etcdserverpb.KV/RangeStream", q, limit).await?;
            Response::Range(join(parts))
        }
        Request::Range(q) => Response::Range(link.unary("/etcdserverpb.KV/Range", q, limit).await?),
        Request::Put(q) => Response::Put(link.unary("/etcdserverpb.KV/Put", q, limit).await?),
        Request::DeleteRange(q) => {
            Response::DeleteRange(link.unary("/etcdserverpb.KV/DeleteRange", q, limit).await?)
        }
        Request::Txn(q) => Response::Txn(link.unary("/etcdserverpb.KV/Txn", q, limit).await?),
        Request::Compact(q) => {
            Response::Compact(link.unary("/etcdserverpb.KV/Compact", q, limit).await?)
        }
        Request::LeaseGrant(q) => {
            Response::LeaseGrant(link.unary("/etcdserverpb.Lease/LeaseGrant", q, limit).await?)
        }
        Request::LeaseRevoke(q) => {
            Response::LeaseRevoke(link.unary("/etcdserverpb.Lease/LeaseRevoke", q, limit).await?)
        }
        Request::LeaseTimeToLive(q) => Response::LeaseTimeToLive(
            link.unary("/etcdserverpb.Lease/LeaseTimeToLive", q, limit).await?,
        ),
        Request::LeaseKeepAlive(q) => Response::LeaseKeepAlive(keep_alive(link, q, limit).await?),
        Request::Defragment => {
            let path = "/etcdserverpb.Maintenance/Defragment";
            let _: pb::DefragmentResponse =
                link.unary(path, pb::DefragmentRequest {}, limit).await?;
            Response::Defragment
        }
        Request::HashKv(q) => {
            Response::HashKv(link.unary("/etcdserverpb.Maintenance/HashKV", q, limit).await?)
        }
    })
}

async fn keep_alive(
    link: &mut Link,
    request: pb::LeaseKeepAliveRequest,
    limit: Duration,
) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let path = "/etcdserverpb.Lease/LeaseKeepAlive";
    let (_more, mut answers) = link.stream(path, request, limit).await?;
    let answer = timed(limit, answers.message()).await?;
    answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))
}

/// The pieces of a streamed range, put together.
fn join(parts: Vec<pb::RangeStreamResponse>) -> pb::RangeResponse {
    let mut all = pb::RangeResponse::default();
    for part in parts.into_iter().filter_map(|p| p.range_response) {
        all.header = part.header.or(all.header);
        all.kvs.extend(part.kvs);
        all.more |= part.more;
        all.count = all.count.max(part.count);
    }
    all
}

/// The revision in an answer's header; 0 where there is none.
pub fn revision_of(response: &Response) -> i64 {
    response.header().map_or(0, |h| h.revision)
}
