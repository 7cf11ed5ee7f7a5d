//! Constructors for what raft leaves on disk, which set exactly the fields that etcd 3.7.1 sets.
//!
//! These messages are proto2: a zero that is set is written, one that is not is left out, and etcd's bytes
//! differ by that. Releases before 3.7 set everything; both kinds have to be read, so read with prost's getters
//! (`entry.term()`), which take absence for zero. The files themselves (frames, checksums) are in `disk`.

use bytes::Bytes;

use crate::pb::etcdserverpb::Metadata;
use crate::pb::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Message, MessageType,
    Snapshot, SnapshotMetadata,
};
use crate::pb::{snappb, walpb};

impl Entry {
    /// A request's entry. It has no type; a leader's empty entry has no data either.
    pub fn normal(term: u64, index: u64, data: Bytes) -> Entry {
        let data = (!data.is_empty()).then_some(data);
        Entry { r#type: None, term: Some(term), index: Some(index), data }
    }

    /// An entry whose type is spelled out: a change of configuration (`data` is the encoded change), or a
    /// change that raft refused and replaced by an empty entry of type normal.
    pub fn typed(r#type: EntryType, term: u64, index: u64, data: Bytes) -> Entry {
        Entry { r#type: Some(r#type.into()), ..Entry::normal(term, index, data) }
    }
}

impl HardState {
    /// All three fields are set.
    pub fn of(term: u64, vote: u64, commit: u64) -> HardState {
        HardState { term: Some(term), vote: Some(vote), commit: Some(commit) }
    }
}

impl ConfState {
    /// A configuration that is not joint; `auto_leave` is set.
    pub fn simple(voters: Vec<u64>, learners: Vec<u64>) -> ConfState {
        ConfState { voters, learners, auto_leave: Some(false), ..ConfState::default() }
    }
}

impl ConfChange {
    /// A change to one member. `id` pairs it with the waiting call, and is not set (0) in a new cluster's
    /// first entries; an empty `context` is not set.
    pub fn of(id: u64, r#type: ConfChangeType, node_id: u64, context: Bytes) -> ConfChange {
        ConfChange {
            id: (id != 0).then_some(id),
            r#type: Some(r#type.into()),
            node_id: Some(node_id),
            context: (!context.is_empty()).then_some(context),
        }
    }
}

impl Snapshot {
    /// A raft snapshot. Empty data is not set.
    pub fn of(index: u64, term: u64, conf_state: ConfState, data: Bytes) -> Snapshot {
        let metadata =
            SnapshotMetadata { conf_state: Some(conf_state), index: Some(index), term: Some(term) };
        Snapshot { data: (!data.is_empty()).then_some(data), metadata: Some(metadata) }
    }
}

impl Message {
    /// The message that keeps a stream between peers alive: a heartbeat from nobody to nobody.
    pub fn link_heartbeat() -> Message {
        Message { r#type: Some(MessageType::MsgHeartbeat.into()), ..Message::default() }
    }
}

impl walpb::Record {
    /// A record. Type and checksum are always set; empty data, as in a crc record, is not.
    pub fn of(r#type: i64, crc: u32, data: Bytes) -> walpb::Record {
        walpb::Record {
            r#type: Some(r#type),
            crc: Some(crc),
            data: (!data.is_empty()).then_some(data),
        }
    }
}

impl walpb::Snapshot {
    /// The log's note that a snapshot exists. Only the one at 0, which opens a new log, has no configuration.
    pub fn of(index: u64, term: u64, conf_state: Option<ConfState>) -> walpb::Snapshot {
        walpb::Snapshot { index: Some(index), term: Some(term), conf_state }
    }
}

impl snappb::Snapshot {
    /// The content of a `.snap` file; `data` is an encoded raft snapshot.
    pub fn of(crc: u32, data: Bytes) -> snappb::Snapshot {
        snappb::Snapshot { crc: Some(crc), data: Some(data) }
    }
}

impl Metadata {
    /// Whose log it is.
    pub fn of(node_id: u64, cluster_id: u64) -> Metadata {
        Metadata { node_id: Some(node_id), cluster_id: Some(cluster_id) }
    }
}

/// The bytes are those of a log that etcd 3.7.1 wrote: a new cluster of one, then requests.
#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::internal::{self, Header, RequestKind};
    use crate::pb::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest, PutRequest};

    const NODE: u64 = 0x6678_8015_7b88_12c8;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn record(r#type: i64, crc: u32, data: &impl prost::Message) -> Vec<u8> {
        walpb::Record::of(r#type, crc, data.encode_to_vec().into()).encode_to_vec()
    }

    #[test]
    fn opens_a_log_like_etcd() {
        assert_eq!(walpb::Record::of(4, 0, Bytes::new()).encode_to_vec(), unhex("08041000"));
        let metadata = record(1, 0x9f94_a4ea, &Metadata::of(NODE, 0xdc50_b8da_ae93_b3e0));
        let theirs = "080110eac9d2fc091a1508c8a5a0dcd782a0bc6610e0e7cef4aa9baea8dc01";
        assert_eq!(metadata, unhex(theirs));
        let snapshot = record(5, 0x546c_994e, &walpb::Snapshot::of(0, 0, None));
        assert_eq!(snapshot, unhex("080510ceb2b2a3051a0408001000"));
    }

    #[test]
    fn writes_states_and_snapshot_notes_like_etcd() {
        assert_eq!(
            HardState::of(2, NODE, 3).encode_to_vec(),
            unhex("080210c8a5a0dcd782a0bc661803")
        );
        let conf = ConfState::simple(vec![NODE], Vec::new());
        let note = walpb::Snapshot::of(4, 2, Some(conf.clone()));
        assert_eq!(note.encode_to_vec(), unhex("080410021a0c08c8a5a0dcd782a0bc662800"));
        let with_learner = ConfState::simple(vec![NODE], vec![0x66c5_f49d_8966_a145]);
        let theirs = "080c10021a1608c8a5a0dcd782a0bc6610c5c29acbd893fde2662800";
        assert_eq!(walpb::Snapshot::of(12, 2, Some(with_learner)).encode_to_vec(), unhex(theirs));
        let snapshot = Snapshot::of(4, 2, conf, Bytes::from_static(b"{}"));
        let theirs = "0a027b7d12120a0c08c8a5a0dcd782a0bc66280010041802";
        assert_eq!(snapshot.encode_to_vec(), unhex(theirs));
    }

    #[test]
    fn writes_entries_like_etcd() {
        assert_eq!(Entry::normal(2, 2, Bytes::new()).encode_to_vec(), unhex("10021802"));

        let put = PutRequest { key: "a1".into(), value: "b".into(), ..Default::default() };
        let id = 0x12c8_a1fc_8c80_c003;
        let data = internal::encode_entry(id, RequestKind::Put, &put.encode_to_vec());
        let theirs = "10021805221622070a026131120162a2060a08838083e4c8bfa8e412";
        assert_eq!(Entry::normal(2, 5, data).encode_to_vec(), unhex(theirs));

        let grant = LeaseGrantRequest { ttl: 60, id: 0x12c8_a1fc_8c80_c008 };
        let data = internal::encode_entry(id + 6, RequestKind::LeaseGrant, &grant.encode_to_vec());
        let theirs = "1002180a221b420c083c10888083e4c8bfa8e412a2060a08898083e4c8bfa8e412";
        assert_eq!(Entry::normal(2, 10, data).encode_to_vec(), unhex(theirs));

        let header = Header { id: id + 15, username: "root", auth_revision: 5 };
        let body = b"\x0a\x01k\x12\x01v";
        let data = internal::encode_entry_from(&header, RequestKind::Put, body);
        let theirs = "10021812221d22060a016b120176a2061208928083e4c8bfa8e4121204726f6f741805";
        assert_eq!(Entry::normal(2, 18, data).encode_to_vec(), unhex(theirs));

        let data = internal::encode_entry(id + 12, RequestKind::AuthEnable, b"");
        let theirs = "100218102210a2060a088f8083e4c8bfa8e412c23e00";
        assert_eq!(Entry::normal(2, 16, data).encode_to_vec(), unhex(theirs));
    }

    #[test]
    fn reads_what_etcd_wrote() {
        let entry =
            Entry::decode(&unhex("10021805221622070a026131120162a2060a08838083e4c8bfa8e412")[..]);
        let entry = entry.unwrap();
        assert_eq!((entry.r#type(), entry.term(), entry.index()), (EntryType::EntryNormal, 2, 5));
        let by_prost = InternalRaftRequest::decode(entry.data()).unwrap();
        let ours = internal::decode_entry(&entry.data.unwrap()).unwrap();
        assert_eq!(by_prost.header.unwrap().id, ours.id);
        assert_eq!(by_prost.put.unwrap(), PutRequest::decode(ours.body).unwrap());
        // A release before 3.7 spells the type out.
        assert_eq!(Entry::decode(&b"\x08\x00\x10\x02\x18\x05"[..]).unwrap().index(), 5);
    }

    #[test]
    fn writes_configuration_changes_like_etcd() {
        let json =
            br#"{"id":7407059411973289669,"peerURLs":["http://127.0.0.1:42390"],"isLearner":true}"#;
        let add = ConfChange::of(
            0x12c8_a1fc_8c80_c00a,
            ConfChangeType::ConfChangeAddLearnerNode,
            0x66c5_f49d_8966_a145,
            Bytes::from_static(json),
        );
        let entry = Entry::typed(EntryType::EntryConfChange, 2, 11, add.encode_to_vec().into());
        let head = "08011002180b2269088a8083e4c8bfa8e412100318c5c29acbd893fde2662251";
        assert_eq!(entry.encode_to_vec(), [&unhex(head)[..], json].concat());

        let first = ConfChange::of(0, ConfChangeType::ConfChangeAddNode, NODE, Bytes::new());
        assert_eq!(first.encode_to_vec(), unhex("100018c8a5a0dcd782a0bc66"));
    }
}
