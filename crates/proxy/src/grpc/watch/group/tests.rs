//! Groups by themselves: what the cluster says is put in by hand, and what clients are told is read from their
//! queues.

use super::*;
use crate::grpc::watch::{Place, QUEUE, Watcher};
use etch_api::pb::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use etch_api::pb::mvccpb::KeyValue;

fn what() -> What {
    What::all("k".into(), Bytes::new())
}

/// A client with watchers of these ids from these revisions on.
fn client(proxy: &Rc<Proxy>, watchers: &[(i64, i64)], at_head: bool) -> Rc<Client> {
    client_of(proxy, &what(), watchers, at_head)
}

fn client_of(proxy: &Rc<Proxy>, what: &What, watchers: &[(i64, i64)], at_head: bool) -> Rc<Client> {
    let client = Rc::new(Client::new(Rc::clone(proxy), HeaderMap::new()));
    for (id, from) in watchers {
        let member = Member { client: Rc::clone(&client), id: *id, from: *from, progress: true };
        let place = Place::Group(proxy.hub.join(proxy, what, member, at_head));
        let watcher = Watcher { what: Rc::new(what.clone()), progress: true, place };
        client.watchers.borrow_mut().insert(*id, watcher);
        proxy.hub.watchers.set(proxy.hub.watchers.get() + 1);
    }
    client
}

fn group_of(client: &Client, id: i64) -> Option<Rc<Group>> {
    match &client.watchers.borrow().get(&id)?.place {
        Place::Group(group) => Some(Rc::clone(group)),
        Place::Behind(_) => None,
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..<_>::default() })
}

fn says(group: &Rc<Group>, proxy: &Rc<Proxy>, parts: &mut Vec<Batch>, response: &WatchResponse) {
    group.take(proxy, response.encode_to_vec().into(), response.clone(), parts);
}

fn created(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), created: true, ..<_>::default() }
}

fn events(revisions: &[i64], value: usize) -> WatchResponse {
    events_of("k", revisions, value)
}

fn events_of(key: &'static str, revisions: &[i64], value: usize) -> WatchResponse {
    let event = |revision: &i64| Event {
        kv: Some(KeyValue {
            key: key.into(),
            value: vec![0; value].into(),
            mod_revision: *revision,
            ..<_>::default()
        }),
        ..<_>::default()
    };
    let last = revisions.last().copied().unwrap_or_default();
    WatchResponse {
        header: header(last),
        events: revisions.iter().map(event).collect(),
        ..<_>::default()
    }
}

/// What a client was told since: of each message the id and the revisions.
fn told(client: &Client) -> Vec<(i64, Vec<i64>)> {
    let mut out = Vec::new();
    while let Some(payload) = client.pop() {
        for payload in payload.split() {
            let message = payload.into_bytes().expect("bytes");
            let response = WatchResponse::decode(message).expect("an answer");
            out.push((response.watch_id, response.events.iter().map(revision).collect()));
        }
    }
    out
}

#[test]
fn everybody_gets_what_it_wants_once() {
    Proxy::run_alone(async |proxy| {
        let client = client(&proxy, &[(0, 5), (7, 5)], true);
        let group = group_of(&client, 0).expect("a group");
        assert!(Rc::ptr_eq(&group, &group_of(&client, 7).expect("a group")));
        let late = self::client(&proxy, &[(3, 8)], true);
        assert!(Rc::ptr_eq(&group, &group_of(&late, 3).expect("a group")));
        assert_eq!(group.place(), 4);
        let mut parts = Vec::new();
        says(&group, &proxy, &mut parts, &created(6));
        // The revision before the first, with which the cluster was asked to begin, is nobody's.
        says(&group, &proxy, &mut parts, &events(&[4, 5], 1));
        says(&group, &proxy, &mut parts, &events(&[6, 8, 9], 1));
        assert_eq!(
            told(&client),
            [(0, vec![5]), (7, vec![5]), (0, vec![6, 8, 9]), (7, vec![6, 8, 9])]
        );
        assert_eq!(told(&late), [(3, vec![8, 9])]);
        // It breaks off, and begins with what was seen last.
        assert_eq!(group.place(), 9);
        says(&group, &proxy, &mut parts, &created(11));
        says(&group, &proxy, &mut parts, &events(&[9], 1));
        says(&group, &proxy, &mut parts, &events(&[10], 1));
        assert_eq!(told(&late), [(3, vec![10])]);
    });
}

#[test]
fn who_does_not_read_leaves_alone_and_comes_back_to_its_place() {
    Proxy::run_alone(async |proxy| {
        let (slow, quick) = (client(&proxy, &[(0, 2)], true), client(&proxy, &[(0, 2)], true));
        let group = group_of(&slow, 0).expect("a group");
        let mut parts = Vec::new();
        for at in 2..7 {
            says(&group, &proxy, &mut parts, &events(&[at], QUEUE / 3));
            told(&quick);
        }
        assert!(group_of(&quick, 0).is_some_and(|still| Rc::ptr_eq(&still, &group)));
        assert!(group_of(&slow, 0).is_none());
        let seen = told(&slow);
        assert_eq!(seen, [(0, vec![2]), (0, vec![3])]);
        slow.come_back();
        let own = group_of(&slow, 0).expect("a group of its own");
        assert!(!Rc::ptr_eq(&own, &group));
        says(&own, &proxy, &mut parts, &created(6));
        assert_eq!(proxy.hub.upstream_watches(), 2);
        says(&own, &proxy, &mut parts, &events(&[4, 5, 6], 1));
        assert_eq!(told(&slow), [(0, vec![4, 5, 6])]);
        // Both are at the same place now.
        assert_eq!(proxy.hub.upstream_watches(), 1);
    });
}

#[test]
fn parts_of_an_answer_go_out_together() {
    Proxy::run_alone(async |proxy| {
        let client = client(&proxy, &[(0, 2)], true);
        let group = group_of(&client, 0).expect("a group");
        let mut parts = Vec::new();
        let part = WatchResponse { fragment: true, ..events(&[2], 1) };
        says(&group, &proxy, &mut parts, &part);
        assert_eq!(told(&client), []);
        assert_eq!(group.next.get(), 2, "a break here repeats the part");
        says(&group, &proxy, &mut parts, &events(&[2], 1));
        assert_eq!(told(&client), [(0, vec![2]), (0, vec![2])]);
        assert_eq!(group.next.get(), 3);
    });
}

#[test]
fn who_is_past_a_compaction_goes_on() {
    Proxy::run_alone(async |proxy| {
        let (old, new) = (client(&proxy, &[(4, 2)], false), client(&proxy, &[(5, 9)], false));
        let group = group_of(&new, 5).expect("a group");
        let gone = WatchResponse {
            header: header(9),
            canceled: true,
            compact_revision: 5,
            ..<_>::default()
        };
        says(&group, &proxy, &mut Vec::new(), &gone);
        assert!(told(&new).is_empty() && group_of(&new, 5).is_some());
        says(&group_of(&old, 4).expect("a group"), &proxy, &mut Vec::new(), &gone);
        assert_eq!(told(&old), [(4, vec![])]);
        assert!(old.watchers.borrow().is_empty());
        assert_eq!(old.choose_id(4), None, "taken until it is cancelled");
        old.cancel(4);
        assert_eq!(old.choose_id(4), Some(4));
    });
}

#[test]
fn an_answer_is_kept_until_something_happens_to_its_keys() {
    Proxy::run_alone(async |proxy| {
        use crate::grpc::cache::Key;
        let asked = RangeRequest { key: "k".into(), serializable: true, ..<_>::default() };
        let message: Bytes = asked.encode_to_vec().into();
        let key = || Key::new(&HeaderMap::new(), message.clone());
        let answer = |revision| {
            let response = RangeResponse { header: header(revision), ..<_>::default() };
            Bytes::from(response.encode_to_vec())
        };
        let keep =
            |revision| proxy.cache.put(&proxy, key(), &asked, &answer(revision), &HeaderMap::new());
        let group = || {
            let groups = proxy.hub.groups_of(&what());
            groups.first().cloned().expect("a group")
        };
        keep(5);
        assert_eq!(proxy.hub.upstream_watches(), 0, "asked once");
        keep(5);
        assert_eq!(proxy.cache.get(&key()), None, "the watch does not stand yet");
        let mut parts = Vec::new();
        says(&group(), &proxy, &mut parts, &created(5));
        assert_eq!(proxy.cache.get(&key()), Some(answer(5)));
        says(&group(), &proxy, &mut parts, &events(&[5], 1));
        assert!(proxy.cache.get(&key()).is_some(), "that is in the answer");
        says(&group(), &proxy, &mut parts, &events(&[6], 1));
        assert_eq!((proxy.cache.get(&key()), proxy.cache.len()), (None, 0));
        assert_eq!(proxy.hub.upstream_watches(), 0);
        // A write through this proxy counts at once, and what is older is not kept any more.
        keep(6);
        keep(6);
        says(&group(), &proxy, &mut parts, &created(6));
        let put = etch_api::pb::etcdserverpb::PutRequest { key: "k".into(), ..<_>::default() };
        let put: Bytes = put.encode_to_vec().into();
        proxy.cache.wrote(&proxy, "/etcdserverpb.KV/Put", &put, Some(&answer(7)));
        assert_eq!(proxy.cache.len(), 0);
        keep(6);
        keep(6);
        assert_eq!(proxy.cache.len(), 0);
    });
}

fn both(mut one: WatchResponse, other: WatchResponse) -> WatchResponse {
    one.header = other.header;
    one.events.extend(other.events);
    one
}

#[test]
fn what_lies_inside_a_range_is_fed_by_it() {
    for prefix in ["", "p/"] {
        Proxy::run_alone(async |mut proxy| {
            let unique = Rc::get_mut(&mut proxy).expect("nobody else's yet");
            unique.keys = crate::grpc::Keys::new(prefix);
            let named = |key: &str| Bytes::from(format!("{prefix}{key}"));
            let wide = What::all(named("k"), named("l"));
            let all = client_of(&proxy, &wide, &[(1, 5)], true);
            let group = group_of(&all, 1).expect("a group");
            let mut parts = Vec::new();
            says(&group, &proxy, &mut parts, &created(4));
            let one = client_of(&proxy, &What::all(named("k5"), Bytes::new()), &[(2, 5)], true);
            let some = client_of(&proxy, &What::all(named("k4"), named("k6")), &[(3, 5)], true);
            let late = client_of(&proxy, &What::all(named("k5"), Bytes::new()), &[(4, 7)], true);
            assert_eq!(proxy.hub.upstream_watches(), 1);
            let stored = |name: &str, revisions: &[i64]| {
                let mut response = events_of("", revisions, 1);
                for kv in response.events.iter_mut().flat_map(|event| &mut event.kv) {
                    kv.key = named(name);
                }
                response
            };
            let said = both(stored("k1", &[5]), both(stored("k5", &[6]), stored("k4", &[7])));
            says(&group, &proxy, &mut parts, &said);
            assert_eq!(told(&all), [(1, vec![5, 6, 7])]);
            assert_eq!(told(&one), [(2, vec![6])]);
            assert_eq!(told(&some), [(3, vec![6, 7])]);
            assert_eq!(told(&late), []);
            // The range goes; who was inside begins behind what it has seen, with watches of its own.
            drop(crate::grpc::watch::Gone(all));
            assert_eq!(proxy.hub.upstream_watches(), 2);
            let own = group_of(&one, 2).expect("a group");
            assert_eq!((own.next(), own.place()), (8, 7));
            says(&own, &proxy, &mut parts, &created(7));
            says(&own, &proxy, &mut parts, &stored("k5", &[6]));
            says(&own, &proxy, &mut parts, &stored("k5", &[8, 9]));
            assert_eq!((told(&one), told(&late)), (vec![(2, vec![8, 9])], vec![(4, vec![8, 9])]));
        });
    }
}

#[test]
fn parts_for_who_is_fed_end_with_a_last_one() {
    Proxy::run_alone(async |proxy| {
        let fragmented = |key: &'static str, end: &'static str| What {
            fragment: true,
            ..What::all(key.into(), end.into())
        };
        let all = client_of(&proxy, &fragmented("k", "l"), &[(1, 5)], true);
        let group = group_of(&all, 1).expect("a group");
        let mut parts = Vec::new();
        says(&group, &proxy, &mut parts, &created(4));
        let one = client_of(&proxy, &fragmented("k5", ""), &[(2, 5)], true);
        let part = |key, more| WatchResponse { fragment: more, ..events_of(key, &[5], 1) };
        for (key, more) in [("k5", true), ("k5", true), ("k6", false)] {
            says(&group, &proxy, &mut parts, &part(key, more));
        }
        let mut more = Vec::new();
        while let Some(payload) = one.pop() {
            let message = payload.into_bytes().expect("bytes");
            more.push(WatchResponse::decode(message).expect("an answer").fragment);
        }
        assert_eq!(more, [true, false]);
    });
}

#[test]
fn what_sees_otherwise_or_begins_elsewhere_is_not_fed() {
    Proxy::run_alone(async |proxy| {
        let wide = What::all("k".into(), "l".into());
        let all = client_of(&proxy, &wide, &[(1, 9)], true);
        let group = group_of(&all, 1).expect("a group");
        says(&group, &proxy, &mut Vec::new(), &created(8));
        let key = || What::all("k5".into(), Bytes::new());
        let others = [
            (What { prev_kv: true, ..key() }, 9),
            (What { filters: vec![1], ..key() }, 9),
            (What { leader: true, ..key() }, 9),
            (What::all("l".into(), Bytes::new()), 9),
            (What::all("k5".into(), "m".into()), 9),
            (What::all("k5".into(), "\0".into()), 9),
            // History, which the range has behind it.
            (key(), 3),
        ];
        for (at, (what, from)) in others.iter().enumerate() {
            let _other = client_of(&proxy, what, &[(2, *from)], *from == 9);
            assert_eq!(proxy.hub.upstream_watches(), 2 + at, "{what:?}");
        }
        assert_eq!(proxy.hub.upstream_streams(), 2, "one of them for history");
    });
}

#[test]
fn an_id_is_taken_out_of_a_message_wherever_it_stands() {
    let with = WatchResponse { watch_id: 300, ..events(&[5], 9) };
    let without = WatchResponse { watch_id: 0, ..with.clone() };
    assert_eq!(without_id(&with.encode_to_vec().into()), without.encode_to_vec());
    assert_eq!(without_id(&without.encode_to_vec().into()), without.encode_to_vec());
    let mut behind = without.encode_to_vec();
    prost::encoding::int64::encode(2, &-1, &mut behind);
    assert_eq!(without_id(&behind.into()), without.encode_to_vec());
}
