//! Raft's snapshot files, and the tree inside of them. Not here: which one is taken.

use etch_api::pb::raftpb::{ConfState, Snapshot};
use etch_api::pb::snappb;
use etch_disk::snap::{self, MemberRecord};
use prost::Message;

use crate::{Bits, Target};

/// The first byte says whether the rest is a file, its content under a right checksum, or the tree inside.
pub const TARGET: Target = Target { name: "snap", run, seeds, memory: 8 << 20 };

fn run(input: &[u8]) {
    let mut bits = Bits(input);
    let mode = bits.below(3);
    let rest = bits.0;
    let found = match mode {
        0 => snap::decode(rest),
        1 => {
            let crc = crc32c::crc32c(rest);
            snap::decode(&snappb::Snapshot::of(crc, rest.to_vec().into()).encode_to_vec())
        }
        _ => {
            tree(rest);
            return;
        }
    };
    if let Ok(snapshot) = found {
        tree(snapshot.data());
        let again = snap::decode(&snap::encode(&snapshot));
        // A file without content is none.
        assert!(again.is_err() || again == Ok(snapshot));
    }
}

fn tree(json: &[u8]) {
    if let Some(members) = snap::decode_v2(json) {
        let again = snap::encode_v2(&members.members, &members.removed, members.version.as_deref());
        assert!(snap::decode_v2(&again).is_some(), "what was read can be written and read");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let member = MemberRecord {
        id: 0x1234,
        peer_urls: vec!["http://127.0.0.1:2380".into()],
        is_learner: true,
        name: "one".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
    };
    let json = snap::encode_v2(&[member], &[9], Some("3.7.0"));
    let file = Snapshot::of(9, 2, ConfState::simple(vec![0x1234], vec![]), json.clone());
    [(0, snap::encode(&file)), (1, file.encode_to_vec()), (2, json.to_vec())]
        .map(|(mode, bytes)| [vec![mode], bytes].concat())
        .into()
}
