//! A stream by itself: what is sent is read from its orders, and what the cluster says is put in by hand.

use super::*;
use crate::grpc::watch::members::Member;
use crate::grpc::watch::{Client, Place, Watcher, What};
use etch_api::pb::etcdserverpb::ResponseHeader;
use etch_api::pb::mvccpb::{Event, KeyValue};
use etch_rpc::Payload;

fn watcher(proxy: &Rc<Proxy>, key: &'static str, id: i64, from: i64) -> Rc<Client> {
    let client = Rc::new(Client::new(Rc::clone(proxy), HeaderMap::new()));
    let what = What::all(key.into(), Bytes::new());
    let member = Member { client: Rc::clone(&client), id, from, progress: false };
    let place = Place::Group(proxy.hub.join(proxy, &what, member, true));
    client
        .watchers
        .borrow_mut()
        .insert(id, Watcher { what: Rc::new(what), progress: false, place });
    proxy.hub.watchers.set(proxy.hub.watchers.get() + 1);
    client
}

/// What the stream sends next.
fn sent(lane: &Lane) -> Vec<String> {
    let mut out = Vec::new();
    loop {
        let Some(order) = lane.orders.borrow_mut().pop_front() else { return out };
        let Some(message) = lane.carry_out(&order) else { continue };
        let request = WatchRequest::decode(message).expect("a request");
        out.push(match request.request_union.expect("a wish") {
            RequestUnion::CreateRequest(create) => {
                let key = String::from_utf8_lossy(&create.key).into_owned();
                format!("create {} {key} {}", create.watch_id, create.start_revision)
            }
            RequestUnion::CancelRequest(cancel) => format!("cancel {}", cancel.watch_id),
            RequestUnion::ProgressRequest(_) => "progress".to_owned(),
        });
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..<_>::default() })
}

fn says(lane: &Lane, proxy: &Rc<Proxy>, response: &WatchResponse) {
    lane.take(proxy, response.encode_to_vec().into()).expect("an answer");
}

fn created(id: i64, revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), watch_id: id, created: true, ..<_>::default() }
}

fn event(id: i64, revision: i64) -> WatchResponse {
    let kv = KeyValue { mod_revision: revision, ..<_>::default() };
    let events = vec![Event { kv: Some(kv), ..<_>::default() }];
    WatchResponse { header: header(revision), watch_id: id, events, ..<_>::default() }
}

fn progress(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), watch_id: NOBODY, ..<_>::default() }
}

/// What a client was told since: ids, revisions of the header, and how many events.
fn told(client: &Client) -> Vec<(i64, i64, usize)> {
    let mut out = Vec::new();
    for payload in std::iter::from_fn(|| client.pop()).flat_map(Payload::split) {
        let message = payload.into_bytes().expect("bytes");
        let response = WatchResponse::decode(message).expect("an answer");
        let revision = response.header.map_or(0, |header| header.revision);
        out.push((response.watch_id, revision, response.events.len()));
    }
    out
}

fn only_lane(proxy: &Proxy) -> Rc<Lane> {
    let lanes = proxy.hub.lanes();
    assert_eq!(lanes.len(), 1);
    lanes.into_iter().next().expect("a stream")
}

#[test]
fn watches_share_a_stream_and_keep_their_ids() {
    Proxy::run_alone(async |proxy| {
        let (a, b) = (watcher(&proxy, "a", 0, 5), watcher(&proxy, "b", 7, 5));
        let lane = only_lane(&proxy);
        assert_eq!(sent(&lane), ["create 1 a 4", "create 2 b 4"]);
        says(&lane, &proxy, &created(1, 5));
        says(&lane, &proxy, &created(2, 5));
        says(&lane, &proxy, &event(2, 6));
        says(&lane, &proxy, &event(1, 7));
        assert_eq!((told(&a), told(&b)), (vec![(0, 7, 1)], vec![(7, 6, 1)]));
        a.cancel(0);
        assert_eq!(sent(&lane), ["cancel 1"]);
        // What was on its way is nobody's.
        says(&lane, &proxy, &event(1, 8));
        assert_eq!(told(&a), [(0, 7, 0)]);
        // It breaks off; each begins with what it has seen last.
        for group in lane.clear() {
            group.broke_off(&proxy);
            proxy.hub.place(&proxy, &group);
        }
        assert_eq!(sent(&lane), ["create 3 b 6"]);
        drop(crate::grpc::watch::Gone(b));
        assert_eq!(proxy.hub.upstream_streams(), 0);
    });
}

#[test]
fn a_refusal_meets_the_one_whose_turn_it_is() {
    Proxy::run_alone(async |proxy| {
        let (a, b) = (watcher(&proxy, "a", 1, 5), watcher(&proxy, "b", 2, 5));
        let lane = only_lane(&proxy);
        sent(&lane);
        // It does not bear the id that was asked for.
        let refused = WatchResponse { canceled: true, ..created(NOBODY, 5) };
        says(&lane, &proxy, &refused);
        says(&lane, &proxy, &created(2, 5));
        says(&lane, &proxy, &event(2, 6));
        assert_eq!((told(&a), told(&b)), (vec![(1, 5, 0)], vec![(2, 6, 1)]));
        assert!(a.watchers.borrow().is_empty());
    });
}

#[test]
fn who_came_behind_a_question_is_not_told_its_answer() {
    Proxy::run_alone(async |proxy| {
        let a = watcher(&proxy, "a", 1, 5);
        let lane = only_lane(&proxy);
        sent(&lane);
        says(&lane, &proxy, &created(1, 5));
        a.progress();
        assert_eq!(sent(&lane), ["progress"]);
        let b = watcher(&proxy, "b", 2, 5);
        b.progress();
        assert_eq!(sent(&lane), ["create 2 b 4", "progress"]);
        says(&lane, &proxy, &created(2, 5));
        // The first answer may have been given before the watch was there, whose event is still on its way.
        says(&lane, &proxy, &progress(5));
        assert_eq!((told(&a), told(&b)), (vec![(NOBODY, 5, 0)], vec![]));
        says(&lane, &proxy, &event(2, 5));
        says(&lane, &proxy, &progress(5));
        assert_eq!(told(&b), [(2, 5, 1), (NOBODY, 5, 0)]);
        // Beyond what there was then, any answer is about both.
        b.progress();
        assert_eq!(sent(&lane), ["progress"]);
        says(&lane, &proxy, &progress(6));
        assert_eq!(told(&b), [(NOBODY, 6, 0)]);
        assert!(lane.asking.borrow().is_empty());
    });
}

#[test]
fn questions_outlive_the_stream_they_were_asked_on() {
    Proxy::run_alone(async |proxy| {
        let a = watcher(&proxy, "a", 1, 5);
        let lane = only_lane(&proxy);
        sent(&lane);
        says(&lane, &proxy, &created(1, 5));
        a.progress();
        assert_eq!(sent(&lane), ["progress"]);
        for group in lane.clear() {
            group.broke_off(&proxy);
            proxy.hub.place(&proxy, &group);
        }
        assert_eq!(sent(&lane), ["create 2 a 4", "progress"]);
        says(&lane, &proxy, &created(2, 5));
        says(&lane, &proxy, &progress(5));
        assert_eq!(told(&a), [(NOBODY, 5, 0)]);
    });
}
