//! `verify`: reads a whole data directory, of etch or of etcd, and says what is wrong with it and where. It
//! changes nothing. Not here: mending; what each format is (`etch_disk`), what rows mean (`etch_state`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::internal::decode_entry;
use etch_api::pb::etcdserverpb::Metadata;
use etch_api::pb::leasepb;
use etch_api::pb::raftpb::EntryType;
use etch_api::pb::walpb;
use etch_cli::{Args, Command, Failure, Flag, Matches, print_line};
use etch_disk::backend::{Bucket, Snapshot};
use etch_disk::snap::{self, decode_v2};
use etch_disk::wal::{self, Torn};
use etch_state::alarm::Alarms;
use etch_state::members::Members;
use etch_state::mvcc::Store;
use etch_state::offline;
use prost::Message as _;

use crate::exit;
use crate::files::{self, ReadOnly};

/// The command.
pub fn command() -> Command {
    Command::new(
        "verify <data-dir>",
        "Reads a whole data directory and says what is wrong with it; changes nothing",
        run,
    )
    .args(Args::Exactly(1))
    .flags(vec![Flag::text(
        "wal-dir",
        "",
        "Path to the WAL directory (use <data-dir> if none given)",
    )])
}

/// What has been found so far.
#[derive(Default)]
struct Findings {
    wrong: Vec<String>,
    /// What is no fault.
    notes: Vec<String>,
}

impl Findings {
    fn add(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// The value, or a finding.
    fn take<T, E: std::fmt::Display>(&mut self, what: &str, outcome: Result<T, E>) -> Option<T> {
        outcome.map_err(|e| self.add(format!("{what}: {e}"))).ok()
    }
}

/// What the log says of the database.
struct Log {
    snapshot: (u64, u64),
    commit: u64,
    last: u64,
    member: u64,
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let dir = Path::new(&matches.args[0]);
    let wal_dir = match matches.text("wal-dir") {
        "" => files::wal_dir(dir),
        wal_dir => PathBuf::from(wal_dir),
    };
    let (snapshot, _held) = files::open_to_read(&files::db_path(dir), matches)?;
    let mut findings = Findings::default();
    let log = check_log(&wal_dir, &mut findings);
    check_snapshots(&dir.join("member").join("snap"), log.as_ref(), &mut findings);
    check_database(&snapshot, log.as_ref(), &mut findings);
    for note in &findings.notes {
        print_line(note)?;
    }
    if findings.wrong.is_empty() {
        return print_line(&format!("{} is whole", dir.display()));
    }
    print_line(&findings.wrong.join("\n"))?;
    let count = findings.wrong.len();
    Err(Failure::new(exit::ERROR, format!("{}: {count} finding(s)", dir.display())))
}

/// Every record's checksum, every entry's content, indexes without a gap, terms that never fall.
fn check_log(dir: &Path, findings: &mut Findings) -> Option<Log> {
    let disk = files::disk();
    let notes = findings.take("log", wal::valid_snapshots(disk.as_ref(), dir))?;
    let at = notes.last().cloned().unwrap_or_else(|| walpb::Snapshot::of(0, 0, None));
    let found = findings.take("log", wal::read(disk.as_ref(), dir, &at))?;
    if let Some(torn) = &found.torn {
        let Torn { path, offset, what, .. } = torn;
        findings.notes.push(format!(
            "note: {} ends in a torn record at byte {offset} ({what}), which the next start cuts off",
            path.display()
        ));
    }
    let (mut index, mut term) = (at.index(), at.term());
    for entry in &found.entries {
        if entry.index() != index + 1 {
            findings.add(format!("log: entry {} follows entry {index}", entry.index()));
        }
        if entry.term() < term {
            findings.add(format!("log: the term falls from {term} at entry {}", entry.index()));
        }
        (index, term) = (entry.index(), entry.term());
        let data: Bytes = entry.data.clone().unwrap_or_default();
        if entry.r#type() == EntryType::EntryNormal
            && let Err(e) = decode_entry(&data)
        {
            findings.add(format!("log: entry {index} is no request: {e}"));
        }
    }
    let commit = found.hard_state.commit();
    if commit > index {
        findings.add(format!("log: entries up to {commit} are committed, but it ends at {index}"));
    }
    let metadata = findings.take("log: metadata", Metadata::decode(found.metadata))?;
    Some(Log { snapshot: (at.index(), at.term()), commit, last: index, member: metadata.node_id() })
}

/// Every snapshot file's checksum and tree, and that the log's newest note has its file.
fn check_snapshots(dir: &Path, log: Option<&Log>, findings: &mut Findings) {
    let disk = files::disk();
    let Some(names) = findings.take("snapshots", disk.list(dir)) else { return };
    let mut noted = log.is_none_or(|log| log.snapshot.0 == 0);
    for name in names.iter().filter(|name| name.ends_with(".snap")) {
        let Some(file) = findings.take("snapshot", snap::read(disk.as_ref(), &dir.join(name)))
        else {
            continue;
        };
        let metadata = file.metadata.clone().unwrap_or_default();
        let place = (metadata.index(), metadata.term());
        noted |= log.is_some_and(|log| log.snapshot == place);
        if decode_v2(&file.data.unwrap_or_default()).is_none() {
            findings.add(format!("snapshot: {name}: its data is no tree of members"));
        }
    }
    if let Some(log) = log.filter(|_| !noted) {
        let (index, term) = log.snapshot;
        findings.add(format!("snapshot: no file for the log's note at index {index}, term {term}"));
    }
}

/// The tree page by page, then every row of every bucket that etcd has.
fn check_database(snapshot: &Snapshot, log: Option<&Log>, findings: &mut Findings) {
    if findings.take("tree", snapshot.check()).is_none() {
        return;
    }
    check_index(snapshot, log, findings);
    let members = findings.take("db: members", Members::load(snapshot));
    if let (Some(members), Some(log)) = (&members, log)
        && members.get(log.member).is_none()
    {
        findings.add(format!("db: member {:x}, whose log it is, is not in it", log.member));
    }
    let _ = findings.take("db: alarms", Alarms::load(snapshot));
    let leases = findings.take("db: leases", leases(snapshot)).unwrap_or_default();
    let store = Store::open(Arc::new(ReadOnly(snapshot.clone())));
    let Some((store, _, loaded)) = findings.take("db: keys", store) else { return };
    for (key, lease) in loaded.attachments {
        if !leases.contains(&lease) {
            let key = etch_cli::go::quote(&key);
            findings
                .add(format!("db: key {key} is attached to lease {lease:x}, which is not there"));
        }
    }
    if store.compact_revision() > store.revision() {
        findings.add(format!(
            "db: compacted to {}, beyond the newest revision {}",
            store.compact_revision(),
            store.revision()
        ));
    }
}

/// The applied index lies between the log's newest snapshot and its commit.
fn check_index(snapshot: &Snapshot, log: Option<&Log>, findings: &mut Findings) {
    let index = findings.take("db: consistent_index", offline::consistent_index(snapshot));
    let (Some(index), Some(log)) = (index, log) else { return };
    if index < log.snapshot.0 {
        findings.add(format!(
            "db: holds entries up to {index}, but the log begins after {}",
            log.snapshot.0
        ));
    }
    if index > log.last {
        findings.add(format!(
            "db: holds entries up to {index}, but the log ends at {} (committed: {})",
            log.last, log.commit
        ));
    }
}

fn leases(snapshot: &Snapshot) -> std::io::Result<HashSet<i64>> {
    let mut ids = HashSet::new();
    let mut rows = snapshot.cursor(Bucket::Lease)?;
    while let Some((_, value)) = rows.next()? {
        let lease = leasepb::Lease::decode(value)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))?;
        ids.insert(lease.id);
    }
    Ok(ids)
}
