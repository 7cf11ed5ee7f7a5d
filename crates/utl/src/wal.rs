//! `wal dump`: the log, record by record. etcd has no such command in etcdutl; its `etcd-dump-logs` is a program
//! apart. Not here: the records' format (`etch_disk::wal`), whether the log fits its database (`verify`).

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use etch_api::internal::{RequestKind, decode_entry};
use etch_api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, Metadata,
    PutRequest, TxnRequest,
};
use etch_api::pb::raftpb::{ConfChange, Entry, EntryType, HardState};
use etch_api::pb::walpb;
use etch_cli::{Args, Command, Failure, Flag, Matches, go, print_line};
use etch_disk::wal::{self, Position, RecordKind, Torn};
use prost::Message;

use crate::{exit, files};

/// The command.
pub fn command() -> Command {
    Command::new("dump <data-dir>", "Prints the records of the write-ahead log", run)
        .args(Args::Exactly(1))
        .flags(vec![
            Flag::text("wal-dir", "", "Path to the WAL directory (use <data-dir> if none given)"),
            Flag::uint("start-index", 0, "Entries with a lower index are left out"),
        ])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let dir = match matches.text("wal-dir") {
        "" => files::wal_dir(Path::new(&matches.args[0])),
        dir => dir.into(),
    };
    let start = matches.unsigned("start-index");
    let mut printed = Ok(());
    let visit = |at: Position, kind: RecordKind, data: &[u8]| {
        if printed.is_ok()
            && let Some(line) = line(kind, data, start)
        {
            printed = print_line(&format!("{:016x}+{:<9} {line}", at.seq, at.offset));
        }
    };
    let torn = wal::records(files::disk().as_ref(), &dir, start, visit)
        .map_err(|e| Failure::new(exit::ERROR, e.to_string()))?;
    printed?;
    let Some(torn) = torn else { return Ok(()) };
    let Torn { path, offset, what, .. } = torn;
    print_line(&format!("torn tail: {} from byte {offset}: {what}", path.display()))
}

/// One record on one line; nothing for an entry that was not asked for.
fn line(kind: RecordKind, data: &[u8], start: u64) -> Option<String> {
    Some(match kind {
        RecordKind::Crc => "crc".to_owned(),
        RecordKind::Metadata => read::<Metadata>("metadata", data, |m| {
            format!("metadata node={:x} cluster={:x}", m.node_id(), m.cluster_id())
        }),
        RecordKind::State => read::<HardState>("state", data, |s| {
            format!("state term={} vote={:x} commit={}", s.term(), s.vote(), s.commit())
        }),
        RecordKind::Snapshot => read::<walpb::Snapshot>("snapshot", data, |s| {
            format!("snapshot index={} term={}", s.index(), s.term())
        }),
        RecordKind::Entry => match Entry::decode(data) {
            Ok(entry) if entry.index() < start => return None,
            Ok(entry) => format!(
                "entry index={} term={} {}",
                entry.index(),
                entry.term(),
                content(entry.r#type(), entry.data.unwrap_or_default())
            ),
            Err(e) => format!("entry cannot be read: {e}"),
        },
    })
}

fn read<M: Message + Default>(name: &str, data: &[u8], show: impl FnOnce(&M) -> String) -> String {
    match M::decode(data) {
        Ok(message) => show(&message),
        Err(e) => format!("{name} cannot be read: {e}"),
    }
}

/// What an entry asks for.
fn content(kind: EntryType, data: Bytes) -> String {
    if kind != EntryType::EntryNormal {
        return read::<ConfChange>("configuration change", &data, |change| {
            format!("conf-change {} member={:x}", change.r#type().as_str_name(), change.node_id())
        });
    }
    if data.is_empty() {
        return "empty (a leader's first)".to_owned();
    }
    let entry = match decode_entry(&data) {
        Ok(entry) => entry,
        Err(e) => return format!("request cannot be read: {e}"),
    };
    let Some(kind) = entry.kind else {
        return format!("request of no known kind, {} bytes", data.len());
    };
    let mut out = format!("{} id={:x}", kind.name(), entry.id);
    if !entry.username.is_empty() {
        let _ = write!(out, " user={}", go::quote(&entry.username));
    }
    out.push_str(&details(kind, &entry.body));
    out
}

/// What people look for in the requests that there are most of. Secrets are never shown.
fn details(kind: RequestKind, body: &[u8]) -> String {
    let text = |bytes: &[u8]| go::quote(bytes);
    match kind {
        RequestKind::Put => read::<PutRequest>(" put", body, |r| {
            format!(" key={} value={} bytes lease={:x}", text(&r.key), r.value.len(), r.lease)
        }),
        RequestKind::DeleteRange => read::<DeleteRangeRequest>(" delete", body, |r| {
            format!(" key={} range_end={}", text(&r.key), text(&r.range_end))
        }),
        RequestKind::Txn => read::<TxnRequest>(" txn", body, |r| {
            let (compare, success, failure) = (r.compare.len(), r.success.len(), r.failure.len());
            format!(" compare={compare} success={success} failure={failure}")
        }),
        RequestKind::Compaction => {
            read::<CompactionRequest>(" compaction", body, |r| format!(" revision={}", r.revision))
        }
        RequestKind::LeaseGrant => read::<LeaseGrantRequest>(" grant", body, |r| {
            format!(" lease={:x} ttl={}", r.id, r.ttl)
        }),
        RequestKind::LeaseRevoke => {
            read::<LeaseRevokeRequest>(" revoke", body, |r| format!(" lease={:x}", r.id))
        }
        _ => format!(" {} bytes", body.len()),
    }
}

#[cfg(test)]
mod tests {
    use etch_api::internal::encode_entry;

    use super::*;

    #[test]
    fn entries_say_what_they_ask_for() {
        let put = PutRequest { key: "k\n".into(), value: "secret".into(), ..Default::default() };
        let data = encode_entry(255, RequestKind::Put, &put.encode_to_vec());
        let entry = Entry::normal(2, 9, data).encode_to_vec();
        assert_eq!(
            line(RecordKind::Entry, &entry, 0).as_deref(),
            Some("entry index=9 term=2 put id=ff key=\"k\\n\" value=6 bytes lease=0")
        );
        assert_eq!(line(RecordKind::Entry, &entry, 10), None);
        let bad = line(RecordKind::State, &[0xff], 0).expect("a line");
        assert!(bad.starts_with("state cannot be read: "), "{bad}");
    }
}
