//! Entries of a log that changed etcd's second store, one after another: clients' requests, and the members' own
//! notes, which count as changes, too. Not here: the tree (`store`), reading the log (`log`).

use etch_api::pb::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use prost::Message;
use serde::Deserialize;

use super::store::{Expiry, Previous, Refused, Store};

/// Where the members are.
const MEMBERS: &str = "/0/members";
const REMOVED: &str = "/0/removed_members";

/// `etcdserverpb.Request`. Every field is there, and texts are bytes: whether the content of an entry can be read as
/// something else depends on them.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "vec", tag = "2")]
    method: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    path: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    value: Vec<u8>,
    #[prost(bool, tag = "5")]
    is_dir: bool,
    #[prost(bytes = "vec", tag = "6")]
    prev_value: Vec<u8>,
    #[prost(uint64, tag = "7")]
    prev_index: u64,
    #[prost(bool, optional, tag = "8")]
    prev_exist: Option<bool>,
    #[prost(int64, tag = "9")]
    expiration: i64,
    #[prost(bool, tag = "10")]
    wait: bool,
    #[prost(uint64, tag = "11")]
    since: u64,
    #[prost(bool, tag = "12")]
    recursive: bool,
    #[prost(bool, tag = "13")]
    sorted: bool,
    #[prost(bool, tag = "14")]
    quorum: bool,
    #[prost(int64, tag = "15")]
    time: i64,
    #[prost(bool, tag = "16")]
    stream: bool,
    #[prost(bool, optional, tag = "17")]
    refresh: Option<bool>,
}

/// An entry of etcd 3, which may hold a request to the second store.
#[derive(Clone, PartialEq, Message)]
struct Internal {
    #[prost(message, optional, tag = "2")]
    v2: Option<Request>,
}

/// What a change of the membership tells of a member.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "isPromote")]
    is_promote: bool,
}

/// Applies an entry.
///
/// # Errors
/// The entry cannot be read.
pub fn apply(store: &mut Store, entry: &Entry) -> Result<(), String> {
    let data = entry.data.clone().unwrap_or_default();
    let wrong = |why: &dyn std::fmt::Display| format!("entry {} of the log: {why}", entry.index());
    match entry.r#type() {
        EntryType::EntryConfChange => {
            let change = ConfChange::decode(data).map_err(|e| wrong(&e))?;
            // A change that does not fit the members is an entry without effect.
            let _ = reconfigure(store, &change).map_err(|e| wrong(&e))?;
            Ok(())
        }
        EntryType::EntryConfChangeV2 => Err(wrong(&"a change of several members at once")),
        EntryType::EntryNormal => {
            let request = match Internal::decode(data.clone()) {
                Ok(internal) => internal.v2,
                Err(_) => Some(Request::decode(data).map_err(|e| wrong(&e))?),
            };
            request.map_or(Ok(()), |request| ask(store, &request).map_err(|why| wrong(&why)))
        }
    }
}

/// Whether this is a request as etcd 2 wrote them, and etcd 3 its own to expire keys: bare, and so no entry of etcd 3,
/// whatever it could be taken for.
pub fn is_bare(data: &[u8]) -> bool {
    Internal::decode(data).is_err()
}

fn ask(store: &mut Store, request: &Request) -> Result<(), String> {
    let path = String::from_utf8_lossy(&request.path);
    let previous = Previous { index: request.prev_index, value: &request.prev_value };
    let expiry = request.expiry();
    let outcome = match &request.method[..] {
        b"POST" => store.create(&path, request.is_dir, &request.value, true, expiry.at),
        b"PUT" => put(store, &path, request, previous, expiry),
        b"DELETE" if previous.is_some() => store.compare_and_delete(&path, previous),
        b"DELETE" => store.delete(&path, request.is_dir, request.recursive),
        b"SYNC" => {
            store.expire(i128::from(request.time));
            Ok(())
        }
        b"QGET" => Ok(()),
        other => return Err(format!("no such method: {}", String::from_utf8_lossy(other))),
    };
    // The client was told so at the time.
    let _ = outcome;
    Ok(())
}

fn put(
    store: &mut Store,
    path: &str,
    request: &Request,
    previous: Previous<'_>,
    expiry: Expiry,
) -> Result<(), Refused> {
    let value = &request.value;
    match request.prev_exist {
        Some(false) => store.create(path, request.is_dir, value, false, expiry.at),
        Some(true) if !previous.is_some() => store.update(path, value, expiry),
        None if !previous.is_some() => match attributes_of(path) {
            // A member that is gone tells nobody its name.
            Some(member) if store.get(member).is_none() => Err(Refused),
            _ => store.set(path, request.is_dir, value, expiry),
        },
        _ => store.compare_and_swap(path, previous, value, expiry),
    }
}

/// The member whose name and client URLs stand at this path.
fn attributes_of(path: &str) -> Option<&str> {
    let member = path.strip_suffix("/attributes")?;
    let id = member.strip_prefix(MEMBERS)?.strip_prefix('/')?;
    let is_id = (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then_some(member)
}

impl Request {
    fn expiry(&self) -> Expiry {
        Expiry {
            at: Some(i128::from(self.expiration)).filter(|at| *at != 0),
            is_refresh: self.refresh.unwrap_or_default(),
        }
    }
}

/// Carries a change of the membership out, or refuses it as the server did.
fn reconfigure(store: &mut Store, change: &ConfChange) -> Result<Result<(), Refused>, String> {
    let id = format!("{:x}", change.node_id());
    let (member, removed) = (format!("{MEMBERS}/{id}"), format!("{REMOVED}/{id}"));
    if store.get(&removed).is_some() {
        return Ok(Err(Refused));
    }
    let told = || -> Result<Told, String> {
        let context = change.context.clone().unwrap_or_default();
        serde_json::from_slice(&context).map_err(|e| e.to_string())
    };
    let is_member = store.get(&member).is_some();
    let raft = format!("{member}/raftAttributes");
    let forever = Expiry::default();
    Ok(match change.r#type() {
        ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
            let (told, value) = (told()?, raft_attributes(&told()?));
            if told.is_promote {
                store.update(&raft, &value, forever)
            } else if is_member || is_taken(store, &told.peer_urls, &id) {
                Err(Refused)
            } else {
                store.create(&raft, false, &value, false, None)
            }
        }
        ConfChangeType::ConfChangeUpdateNode => {
            let told = told()?;
            match is_member && !is_taken(store, &told.peer_urls, &id) {
                true => store.update(&raft, &raft_attributes(&told), forever),
                false => Err(Refused),
            }
        }
        ConfChangeType::ConfChangeRemoveNode => store
            .delete(&member, true, true)
            .and_then(|()| store.create(&removed, false, b"", false, None)),
    })
}

fn raft_attributes(told: &Told) -> Vec<u8> {
    serde_json::json!({ "peerURLs": told.peer_urls }).to_string().into_bytes()
}

/// Whether another member has one of these URLs.
fn is_taken(store: &Store, urls: &[String], id: &str) -> bool {
    let members = store.get(MEMBERS).and_then(|node| node.children.as_ref());
    members.into_iter().flatten().filter(|(name, _)| *name != id).any(|(_, member)| {
        let raft = member.children.as_ref().and_then(|files| files.get("raftAttributes"));
        let told: Told =
            raft.and_then(|file| serde_json::from_slice(&file.value).ok()).unwrap_or_default();
        told.peer_urls.iter().any(|url| urls.contains(url))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, value: &str) -> Request {
        Request {
            id: 300,
            method: method.into(),
            path: path.into(),
            value: value.into(),
            ..Request::default()
        }
    }

    fn entry(data: Vec<u8>) -> Entry {
        Entry::normal(1, 7, data.into())
    }

    /// Bare, as etcd 2 wrote them, and within an entry of etcd 3.
    #[test]
    fn both_forms_of_a_request_are_understood() {
        for is_bare in [true, false] {
            let mut store = Store::default();
            let steps = [
                request("PUT", "/1/a", "x"),
                request("POST", "/1/q", "y"),
                request("QGET", "/1/a", ""),
                request("SYNC", "", ""),
                request("DELETE", "/1/a", ""),
                request("PUT", "/1/b", "z"),
            ];
            for step in steps {
                let data = match is_bare {
                    true => step.encode_to_vec(),
                    false => Internal { v2: Some(step) }.encode_to_vec(),
                };
                apply(&mut store, &entry(data)).expect("an entry");
            }
            assert!(store.get("/1/a").is_none());
            assert_eq!(store.get("/1/b").map(|n| n.modified), Some(4), "bare: {is_bare}");
            assert!(store.get("/1/q/00000000000000000002").is_some());
        }
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let mut store = Store::default();
        let why = apply(&mut store, &entry(request("PATCH", "/1/a", "").encode_to_vec()));
        assert_eq!(why, Err("entry 7 of the log: no such method: PATCH".into()));
        assert!(apply(&mut store, &entry(vec![0xff])).is_err());
        assert_eq!(apply(&mut store, &entry(Vec::new())), Ok(()));
    }

    #[test]
    fn members_count_as_changes() {
        let mut store = Store::default();
        let change = |kind, id, url: &str| {
            let context = format!("{{\"id\":{id},\"peerURLs\":[\"{url}\"]}}");
            let change = ConfChange::of(0, kind, id, context.into());
            Entry::typed(EntryType::EntryConfChange, 1, 1, change.encode_to_vec().into())
        };
        let add = ConfChangeType::ConfChangeAddNode;
        for (kind, id, url) in [
            (add, 10, "http://a:1"),
            // The same once more, and another with its URL: without effect.
            (add, 10, "http://b:1"),
            (add, 11, "http://a:1"),
            (ConfChangeType::ConfChangeUpdateNode, 10, "http://c:1"),
            (ConfChangeType::ConfChangeRemoveNode, 10, ""),
            // Whoever was removed never comes back.
            (add, 10, "http://a:1"),
        ] {
            apply(&mut store, &change(kind, id, url)).expect("a change");
        }
        apply(&mut store, &entry(request("PUT", "/0/members/a/attributes", "{}").encode_to_vec()))
            .expect("an entry");
        apply(&mut store, &entry(request("PUT", "/1/k", "v").encode_to_vec())).expect("an entry");
        assert_eq!(store.get("/1/k").map(|n| n.modified), Some(5));
    }
}
