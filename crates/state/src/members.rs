//! Who is in the cluster: the members, those removed for good, the agreed cluster version and a downgrade
//! under way; and how member and cluster ids come about. Not here: raft's own view of the voters (`node`
//! keeps both in step), and how members reach one another.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::raftpb::{ConfChange, ConfChangeType};
use etch_disk::backend::{Batch, Bucket, Snapshot};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::version::Version;

/// One member, in the form in which etcd keeps it as JSON: in the `members` bucket, in the context of a
/// configuration change, and in raft snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member's id.
    pub id: u64,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_empty")]
    pub peer_urls: Vec<String>,
    /// It receives the log but has no vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    pub is_learner: bool,
    /// Its name; empty until the member has started once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it.
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub client_urls: Vec<String>,
}

/// The context of a configuration change that adds or promotes: the member, and which of the two it is.
#[derive(Debug, Serialize, Deserialize)]
struct ChangeContext {
    #[serde(flatten)]
    member: Member,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

impl Member {
    /// A member of a new cluster. Its id is the first eight bytes of SHA-1 over its sorted peer URLs and
    /// the cluster's token; a member added later adds the time in seconds, so that the same URLs may come
    /// back under a new id.
    pub fn new(name: &str, peer_urls: &[String], token: &str, added_unix_s: Option<u64>) -> Self {
        let mut urls = peer_urls.to_vec();
        urls.sort();
        let mut sum = Sha1::new();
        for url in &urls {
            sum.update(url);
        }
        sum.update(token);
        if let Some(seconds) = added_unix_s {
            sum.update(seconds.to_string());
        }
        let id = first_u64(&sum.finalize());
        Self { id, name: name.into(), peer_urls: urls, ..Self::default() }
    }

    /// True once the member has published its name.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// The JSON of the `members` bucket.
    pub fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).expect("a member is plain data").into()
    }

    /// The context of the configuration change that adds this member to a running cluster.
    pub fn change_context(&self, is_promote: bool) -> Bytes {
        let context = ChangeContext { member: self.clone(), is_promote };
        serde_json::to_vec(&context).expect("a member is plain data").into()
    }
}

/// The cluster's id: the first eight bytes of SHA-1 over its first members' ids, sorted.
pub fn cluster_id(members: &[Member]) -> u64 {
    let mut ids: Vec<u64> = members.iter().map(|m| m.id).collect();
    ids.sort_unstable();
    let mut sum = Sha1::new();
    for id in ids {
        sum.update(id.to_be_bytes());
    }
    first_u64(&sum.finalize())
}

fn first_u64(digest: &[u8]) -> u64 {
    u64::from_be_bytes(digest[..8].try_into().expect("a digest is longer"))
}

/// A downgrade of the whole cluster, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// The version to go down to; empty if none is under way.
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    /// True while one is under way.
    #[serde(default)]
    pub enabled: bool,
}

/// The membership table. Replicated: it changes only in apply.
#[derive(Clone, Debug, Default)]
pub struct Members {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    version: Option<Version>,
    downgrade: Downgrade,
}

const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";

impl Members {
    /// Reads the table from the committed file. An error says which row is damaged.
    pub fn load(snapshot: &Snapshot) -> std::io::Result<Self> {
        let mut table = Self::default();
        let mut rows = snapshot.cursor(Bucket::Members)?;
        while let Some((key, value)) = rows.next()? {
            let id = parse_id(key)?;
            let mut member: Member = serde_json::from_slice(value)
                .map_err(|e| damaged(format!("member {id:x} is not the JSON of a member: {e}")))?;
            member.id = id;
            table.members.insert(id, member);
        }
        let mut rows = snapshot.cursor(Bucket::MembersRemoved)?;
        while let Some((key, _)) = rows.next()? {
            table.removed.insert(parse_id(key)?);
        }
        if let Some(value) = snapshot.get(Bucket::Cluster, CLUSTER_VERSION)? {
            let text = String::from_utf8_lossy(value);
            table.version = Some(
                text.parse().map_err(|()| damaged(format!("`{text}` is not a cluster version")))?,
            );
        }
        if let Some(value) = snapshot.get(Bucket::Cluster, DOWNGRADE)? {
            table.downgrade = serde_json::from_slice(value)
                .map_err(|e| damaged(format!("the downgrade row is not its JSON: {e}")))?;
        }
        Ok(table)
    }

    /// The members by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A member.
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// How many members there are, learners with them.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True before the first member is known.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The voters' ids, then the learners', both sorted: raft's configuration.
    pub fn voters_and_learners(&self) -> (Vec<u64>, Vec<u64>) {
        let (learners, voters): (Vec<&Member>, Vec<&Member>) =
            self.iter().partition(|m| m.is_learner);
        (voters.iter().map(|m| m.id).collect(), learners.iter().map(|m| m.id).collect())
    }

    /// True if the id was removed, which is for ever.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The ids that were removed.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// The agreed cluster version, once there is one.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version of the files: that of the cluster, from 3.6 on, when it began to be kept.
    pub fn storage_version(&self) -> Option<Version> {
        self.version.filter(|v| (v.major, v.minor) >= (3, 6))
    }

    /// The downgrade under way.
    pub fn downgrade(&self) -> &Downgrade {
        &self.downgrade
    }

    /// Whether a configuration change may be applied: every member decides the same, from the table alone.
    pub fn validate(&self, change: &ConfChange) -> Result<(), Error> {
        let id = change.node_id();
        if self.is_removed(id) {
            return Err(Error::MemberNotFound);
        }
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let context = parse_context(change);
                if context.is_promote {
                    let member = self.get(id).ok_or(Error::MemberNotFound)?;
                    return if member.is_learner { Ok(()) } else { Err(Error::MemberNotLearner) };
                }
                if self.members.contains_key(&id) {
                    return Err(Error::MemberExist);
                }
                self.validate_urls(&context.member)
            }
            ConfChangeType::ConfChangeRemoveNode => {
                let voters = self.iter().filter(|m| !m.is_learner).count();
                match self.get(id) {
                    None => Err(Error::MemberNotFound),
                    // Raft cannot be without a voter. etcd's panics.
                    Some(m) if !m.is_learner && voters == 1 => Err(Error::MemberNotEnoughStarted),
                    Some(_) => Ok(()),
                }
            }
            ConfChangeType::ConfChangeUpdateNode => {
                if !self.members.contains_key(&id) {
                    return Err(Error::MemberNotFound);
                }
                self.validate_urls(&parse_context(change).member)
            }
        }
    }

    /// No two members may share a peer URL.
    fn validate_urls(&self, candidate: &Member) -> Result<(), Error> {
        let taken = self
            .iter()
            .filter(|m| m.id != candidate.id)
            .any(|m| m.peer_urls.iter().any(|url| candidate.peer_urls.contains(url)));
        if taken { Err(Error::PeerUrlExist) } else { Ok(()) }
    }

    /// Applies a configuration change that [`Members::validate`] has let through.
    pub(crate) fn apply(&mut self, change: &ConfChange, batch: &mut Batch) {
        let id = change.node_id();
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let context = parse_context(change);
                if context.is_promote {
                    let member =
                        self.members.get_mut(&id).expect("validated: the learner is there");
                    member.is_learner = false;
                } else {
                    self.members.insert(id, Member { id, ..context.member });
                }
                self.store(id, batch);
            }
            ConfChangeType::ConfChangeRemoveNode => {
                self.members.remove(&id);
                self.removed.insert(id);
                batch.delete(Bucket::Members, key_of(id));
                batch.put(Bucket::MembersRemoved, key_of(id), Bytes::from_static(b"removed"));
            }
            ConfChangeType::ConfChangeUpdateNode => {
                let urls = parse_context(change).member.peer_urls;
                let member = self.members.get_mut(&id).expect("validated: the member is there");
                member.peer_urls = urls;
                self.store(id, batch);
            }
        }
    }

    /// Applies what a member publishes about itself. One that is gone meanwhile is passed over.
    pub(crate) fn set_attributes(
        &mut self,
        id: u64,
        name: String,
        client_urls: Vec<String>,
        batch: &mut Batch,
    ) {
        if let Some(member) = self.members.get_mut(&id) {
            member.name = name;
            member.client_urls = client_urls;
            self.store(id, batch);
        }
    }

    /// Applies a new cluster version.
    pub(crate) fn set_version(&mut self, version: Version, batch: &mut Batch) {
        self.version = Some(version);
        let text = Bytes::from(version.to_string());
        batch.put(Bucket::Cluster, Bytes::from_static(CLUSTER_VERSION), text);
    }

    /// Applies the start or the end of a downgrade.
    pub(crate) fn set_downgrade(&mut self, downgrade: Downgrade, batch: &mut Batch) {
        let json = serde_json::to_vec(&downgrade).expect("plain data");
        self.downgrade = downgrade;
        batch.put(Bucket::Cluster, Bytes::from_static(DOWNGRADE), json.into());
    }

    fn store(&self, id: u64, batch: &mut Batch) {
        batch.put(Bucket::Members, key_of(id), self.members[&id].to_json());
    }
}

/// The member that a change carries. Entries are validated before they are proposed, so that one which
/// does not parse is a broken log.
fn parse_context(change: &ConfChange) -> ChangeContext {
    serde_json::from_slice(change.context())
        .unwrap_or_else(|e| panic!("a committed configuration change carries no member: {e}"))
}

pub(crate) fn key_of(id: u64) -> Bytes {
    Bytes::from(format!("{id:x}"))
}

fn parse_id(key: &[u8]) -> std::io::Result<u64> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| damaged(format!("`{}` is not a member id", key.escape_ascii())))
}

fn damaged(why: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|u| (*u).to_string()).collect()
    }

    #[test]
    fn ids_are_those_that_etcd_gives() {
        let member =
            Member::new("default", &urls(&["http://localhost:2380"]), "etcd-cluster", None);
        assert_eq!(format!("{:x}", member.id), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[member])), "cdf818194e3a8c32");
    }

    #[test]
    fn json_is_that_of_etcd() {
        let mut member = Member::new("m1", &urls(&["http://127.0.0.1:2380"]), "t", None);
        member.id = 7;
        let json = member.to_json();
        assert_eq!(&json[..], br#"{"id":7,"peerURLs":["http://127.0.0.1:2380"],"name":"m1"}"#);
        let read: Member =
            serde_json::from_slice(br#"{"id":7,"peerURLs":null,"name":"x","clientURLs":null}"#)
                .unwrap();
        assert_eq!(read, Member { id: 7, name: "x".into(), ..Member::default() });
    }

    fn change(kind: ConfChangeType, member: &Member) -> ConfChange {
        ConfChange::of(1, kind, member.id, member.change_context(false))
    }

    #[test]
    fn a_removed_member_never_comes_back() {
        let mut table = Members::default();
        let mut batch = Batch::default();
        let member = Member::new("a", &urls(&["http://a:1"]), "t", None);
        let add = change(ConfChangeType::ConfChangeAddNode, &member);
        table.validate(&add).unwrap();
        table.apply(&add, &mut batch);
        assert_eq!(table.validate(&add), Err(Error::MemberExist));
        let remove = change(ConfChangeType::ConfChangeRemoveNode, &member);
        assert_eq!(table.validate(&remove), Err(Error::MemberNotEnoughStarted), "the only voter");
        let other = Member::new("b", &urls(&["http://b:1"]), "t", None);
        table.apply(&change(ConfChangeType::ConfChangeAddNode, &other), &mut batch);
        table.validate(&remove).unwrap();
        table.apply(&remove, &mut batch);
        assert_eq!(table.validate(&add), Err(Error::MemberNotFound));
        assert!(table.is_removed(member.id));
    }

    #[test]
    fn peer_urls_are_nobody_elses() {
        let mut table = Members::default();
        let one = Member::new("a", &urls(&["http://a:1"]), "t", None);
        table.apply(&change(ConfChangeType::ConfChangeAddNode, &one), &mut Batch::default());
        let two = Member::new("b", &urls(&["http://a:1", "http://b:1"]), "t", None);
        let add = change(ConfChangeType::ConfChangeAddNode, &two);
        assert_eq!(table.validate(&add), Err(Error::PeerUrlExist));
    }
}
