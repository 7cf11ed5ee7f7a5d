//! The tree inside of a snapshot: JSON of what was etcd's key space in its second version, and now tells who
//! the members are.
//!
//! Here: writing the tree as etcd writes it, and reading any that an etcd wrote. Not here: what else that
//! store could do; keys of clients do not exist in it any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A member as the tree knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it only learns.
    pub is_learner: bool,
    /// Its name; empty as long as it has not started.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// What the tree says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersV2 {
    /// The members, by id.
    pub members: Vec<MemberRecord>,
    /// Ids that were members and must never be again.
    pub removed: Vec<u64>,
    /// The cluster's version.
    pub version: Option<String>,
}

/// A node of the tree, with its fields in etcd's order. A file has no children, a directory has some or `{}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    #[serde(default)]
    created_index: u64,
    #[serde(default)]
    modified_index: u64,
    #[serde(default)]
    expire_time: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    children: Option<BTreeMap<String, Node>>,
}

/// The store around the tree. Its history of events is left out: whoever reads it keeps its own, empty one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    #[serde(default)]
    current_index: u64,
    #[serde(default)]
    current_version: u64,
}

#[derive(Serialize, Deserialize)]
struct RaftAttributes {
    #[serde(rename = "peerURLs", default, deserialize_with = "none_is_empty")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Attributes {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "none_is_empty"
    )]
    client_urls: Vec<String>,
}

/// Go writes a list that was never made as `null`.
fn none_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Writes the tree. The same members give the same bytes, in whatever order they come.
pub fn encode_v2(members: &[MemberRecord], removed: &[u64], version: Option<&str>) -> Bytes {
    let mut tree = Tree { index: 0 };
    let mut cluster = BTreeMap::new();
    let mut by_id: Vec<&MemberRecord> = members.iter().collect();
    by_id.sort_by_key(|m| m.id);
    if !by_id.is_empty() {
        let first = tree.index + 1;
        let nodes = by_id.into_iter().map(|m| tree.member(m)).collect();
        cluster.insert("members".into(), dir("/0/members", first, nodes));
    }
    if !removed.is_empty() {
        let mut removed = removed.to_vec();
        removed.sort_unstable();
        let first = tree.index + 1;
        let file = |id: u64| {
            let name = format!("{id:x}");
            (name.clone(), tree.file(&format!("/0/removed_members/{name}"), String::new()))
        };
        let nodes = removed.into_iter().map(file).collect();
        cluster.insert("removed_members".into(), dir("/0/removed_members", first, nodes));
    }
    if let Some(version) = version {
        cluster.insert("version".into(), tree.file("/0/version", version.into()));
    }
    let top = BTreeMap::from([
        ("0".into(), dir("/0", 0, cluster)),
        ("1".into(), dir("/1", 0, BTreeMap::new())),
    ]);
    json(&Store { root: dir("/", 0, top), current_index: tree.index, current_version: 2 }).into()
}

/// Reads a tree. Nodes that say nothing of members are passed over; `None` if it is no tree at all.
pub fn decode_v2(data: &[u8]) -> Option<MembersV2> {
    let store: Store = serde_json::from_slice(data).ok()?;
    let mut top = store.root.children.unwrap_or_default();
    let mut cluster = top.remove("0").and_then(|n| n.children).unwrap_or_default();
    let mut children =
        |name: &str| cluster.remove(name).and_then(|n| n.children).unwrap_or_default();
    let members = children("members");
    let removed = children("removed_members");
    let version = cluster.remove("version").map(|n| n.value).filter(|v| !v.is_empty());
    let mut members: Vec<_> = members.into_iter().filter_map(|(id, n)| member(&id, n)).collect();
    members.sort_by_key(|m| m.id);
    let id = |id: &String| u64::from_str_radix(id, 16).ok();
    Some(MembersV2 { members, removed: removed.keys().filter_map(id).collect(), version })
}

/// A member out of its directory, if it has the attributes that make it one.
fn member(id: &str, node: Node) -> Option<MemberRecord> {
    let mut files = node.children?;
    let raft: RaftAttributes = serde_json::from_str(&files.remove("raftAttributes")?.value).ok()?;
    let attributes = files.remove("attributes");
    let attributes: Attributes =
        attributes.and_then(|n| serde_json::from_str(&n.value).ok()).unwrap_or_default();
    Some(MemberRecord {
        id: u64::from_str_radix(id, 16).ok()?,
        peer_urls: raft.peer_urls,
        is_learner: raft.is_learner,
        name: attributes.name,
        client_urls: attributes.client_urls,
    })
}

/// Numbers the nodes as the store numbered its changes.
struct Tree {
    index: u64,
}

impl Tree {
    fn file(&mut self, path: &str, value: String) -> Node {
        self.index += 1;
        Node { children: None, value, ..dir(path, self.index, BTreeMap::new()) }
    }

    fn member(&mut self, member: &MemberRecord) -> (String, Node) {
        let id = format!("{:x}", member.id);
        let path = format!("/0/members/{id}");
        let first = self.index + 1;
        let raft =
            RaftAttributes { peer_urls: member.peer_urls.clone(), is_learner: member.is_learner };
        let raft = self.file(&format!("{path}/raftAttributes"), json(&raft));
        let mut files = BTreeMap::from([("raftAttributes".into(), raft)]);
        if !member.name.is_empty() || !member.client_urls.is_empty() {
            let attributes =
                Attributes { name: member.name.clone(), client_urls: member.client_urls.clone() };
            let node = self.file(&format!("{path}/attributes"), json(&attributes));
            files.insert("attributes".into(), node);
        }
        (id, dir(&path, first, files))
    }
}

fn dir(path: &str, index: u64, children: BTreeMap<String, Node>) -> Node {
    Node {
        path: path.into(),
        created_index: index,
        modified_index: index,
        // The zero of Go's clock: it does not expire.
        expire_time: "0001-01-01T00:00:00Z".into(),
        value: String::new(),
        children: Some(children),
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings, numbers and maps with string keys: none of it can fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}
