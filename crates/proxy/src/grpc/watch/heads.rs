//! The question that a watch begins with: whether its client may, and where the store is. Those of the same name about
//! the same keys are asked together: who comes while one is under way waits for the next, because the answer must not be
//! older than the question. Who is refused is told where the store is all the same, as a member would. Not here: what
//! the answer means (`mod`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_api::pb::etcdserverpb::watch_request::RequestUnion;
use etch_api::pb::etcdserverpb::{
    RangeRequest, RequestOp, ResponseHeader, StatusResponse, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use etch_rpc::{Code, Status};
use http::HeaderMap;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::is_refusal;
use super::lane::Name;
use crate::grpc::Proxy;

/// Where the store is, or why that is not told.
pub(super) type Head = Result<ResponseHeader, Status>;

/// Where the store is, is not waited for longer than this where an older answer does.
const SHORTLY: Duration = Duration::from_secs(1);

/// In whose name, and about which keys. No watch is about the empty key: that is a question about none.
type Question = (Name, Bytes, Bytes);

/// All questions that are under way, and who waits for the next of the same.
#[derive(Default)]
pub(super) struct Heads {
    waiting: RefCell<HashMap<Question, Vec<oneshot::Sender<Head>>>>,
}

impl Heads {
    /// Asks about these keys, with these headers.
    pub(super) async fn ask(
        proxy: &Rc<Proxy>,
        headers: &HeaderMap,
        key: &Bytes,
        end: &Bytes,
    ) -> Head {
        let answer = Self::wait(proxy, headers, key, end);
        answer.await.unwrap_or_else(|_| Err(Status::new(Code::Unavailable, "nobody answers")))
    }

    /// Has the hub hear where the store is, if it is said soon.
    pub(super) async fn hear(proxy: &Rc<Proxy>, headers: &HeaderMap) {
        let none = Bytes::new();
        let asked = Self::ask(proxy, headers, &none, &none);
        // The answer is noted where it comes in.
        let _ = timeout(SHORTLY, asked).await;
    }

    fn wait(
        proxy: &Rc<Proxy>,
        headers: &HeaderMap,
        key: &Bytes,
        end: &Bytes,
    ) -> oneshot::Receiver<Head> {
        let (sender, receiver) = oneshot::channel();
        let question = (Name::new(headers, true), key.clone(), end.clone());
        let mut waiting = proxy.hub.heads.waiting.borrow_mut();
        if let Some(others) = waiting.get_mut(&question) {
            others.push(sender);
        } else {
            waiting.insert(question.clone(), vec![sender]);
            let (proxy, headers) = (Rc::clone(proxy), headers.clone());
            tokio::task::spawn_local(async move { answer_all(&proxy, &question, &headers).await });
        }
        receiver
    }
}

/// Asks for as long as anybody waits.
async fn answer_all(proxy: &Proxy, question: &Question, headers: &HeaderMap) {
    loop {
        let waiting = {
            let mut all = proxy.hub.heads.waiting.borrow_mut();
            let waiting = all.get_mut(question).map(std::mem::take).unwrap_or_default();
            if waiting.is_empty() {
                all.remove(question);
                return;
            }
            waiting
        };
        let head = head(proxy, headers, question).await;
        let heard = match &head {
            Err(status) if is_refusal(status) => {
                let refused = refused(proxy, headers, question);
                let late = || Status::new(Code::DeadlineExceeded, "no answer in time");
                timeout(SHORTLY, refused).await.unwrap_or_else(|_| Err(late()))
            }
            answer => answer.clone(),
        };
        proxy.hub.note(heard.ok());
        for sender in waiting {
            // Who has gone needs no answer.
            let _ = sender.send(head.clone());
        }
    }
}

/// With no majority of the cluster at hand, what one member knows must do, as it does without a proxy.
async fn head(proxy: &Proxy, headers: &HeaderMap, question: &Question) -> Head {
    if question.1.is_empty() {
        return told(proxy, headers).await;
    }
    match ask_cluster(proxy, headers, question, false).await {
        Err(status) if status.code == Code::Unavailable => {
            ask_cluster(proxy, headers, question, true).await
        }
        answer => answer,
    }
}

/// The keys stand in the branch that is not taken: the permission to read them is looked at, they are not.
async fn ask_cluster(
    proxy: &Proxy,
    headers: &HeaderMap,
    (_, key, end): &Question,
    serializable: bool,
) -> Head {
    let (key, range_end) = (key.clone(), end.clone());
    let range = RangeRequest { key, range_end, limit: 1, serializable, ..<_>::default() };
    let read = RequestOp { request: Some(Request::RequestRange(range)) };
    let txn = TxnRequest { failure: vec![read], ..<_>::default() };
    let (path, message) = ("/etcdserverpb.KV/Txn", txn.encode_to_vec().into());
    let answer = proxy.upstream.unary(path, headers, &message, true).await?;
    let answer = TxnResponse::decode(answer.bytes());
    let header = answer.ok().and_then(|answer| answer.header);
    header.ok_or_else(no_header)
}

/// What a member tells anybody whom it knows.
async fn told(proxy: &Proxy, headers: &HeaderMap) -> Head {
    let (path, message) = ("/etcdserverpb.Maintenance/Status", Bytes::new());
    let answer = proxy.upstream.unary(path, headers, &message, true).await?;
    let answer = StatusResponse::decode(answer.bytes());
    answer.ok().and_then(|answer| answer.header).ok_or_else(no_header)
}

/// What a member tells whom it refuses a watch: that alone says where the store is, whoever asks.
async fn refused(proxy: &Proxy, headers: &HeaderMap, (_, key, end): &Question) -> Head {
    let path = "/etcdserverpb.Watch/Watch";
    let (mut out, mut incoming) = proxy.upstream.stream(path, headers).await?;
    let (key, range_end) = (key.clone(), end.clone());
    let create = WatchCreateRequest { key, range_end, ..<_>::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    out.send(&request.encode_to_vec().into()).await?;
    let answer = incoming.next().await?.map(WatchResponse::decode);
    answer.and_then(Result::ok).and_then(|answer| answer.header).ok_or_else(no_header)
}

fn no_header() -> Status {
    Status::new(Code::Internal, "an answer without a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_asks_is_answered_and_nothing_is_left() {
        Proxy::run_alone(async |proxy| {
            let headers = HeaderMap::new();
            let (key, end) = (Bytes::from("k"), Bytes::new());
            let ask = async || {
                let head = Heads::ask(&proxy, &headers, &key, &end).await;
                assert_eq!(head.expect_err("no cluster").code, Code::Unavailable);
                tokio::time::Instant::now()
            };
            let late = async {
                // The first question is under way by now.
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                assert_eq!(proxy.hub.heads.waiting.borrow().len(), 1);
                ask().await
            };
            let (one, two, late) = tokio::join!(ask(), ask(), late);
            // Those who ask together are answered together; who came later has had a question of its own.
            assert!(one == two && two < late);
            tokio::task::yield_now().await;
            assert!(proxy.hub.heads.waiting.borrow().is_empty());
        });
    }
}
