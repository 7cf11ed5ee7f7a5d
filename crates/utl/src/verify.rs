//! `verify`: reads a whole data directory, of etch or of etcd, and says what is wrong with it and where. It
//! changes nothing. Not here: mending; what each format is (`etch_disk`), what rows mean (`etch_state`).
//!
//! Nothing that grows with the file is held, but for two bits a page: entries and rows are looked at one by one,
//! findings are printed as they come.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use etch_api::internal::decode_entry;
use etch_api::pb::authpb;
use etch_api::pb::etcdserverpb::Metadata;
use etch_api::pb::leasepb;
use etch_api::pb::raftpb::{Entry, EntryType};
use etch_api::pb::walpb;
use etch_cli::{Args, Command, Failure, Flag, Matches, go, print_line};
use etch_disk::backend::{Bucket, Snapshot};
use etch_disk::snap::{self, decode_v2};
use etch_disk::wal::{self, Entries, Torn};
use etch_state::alarm::Alarms;
use etch_state::members::Members;
use etch_state::mvcc::Revision;
use etch_state::mvcc::survey::{ROOM, Row, Survey};
use etch_state::offline;
use prost::Message as _;

use crate::exit;
use crate::files;

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
struct Findings {
    count: u64,
    /// Of printing them.
    printed: Result<(), Failure>,
}

impl Findings {
    fn add(&mut self, what: impl AsRef<str>) {
        self.count += 1;
        self.note(what);
    }

    /// Says what is no fault.
    fn note(&mut self, what: impl AsRef<str>) {
        if self.printed.is_ok() {
            self.printed = print_line(what.as_ref());
        }
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
    let mut findings = Findings { count: 0, printed: Ok(()) };
    let log = check_log(&wal_dir, &mut findings);
    check_snapshots(&dir.join("member").join("snap"), log.as_ref(), &mut findings);
    check_database(&snapshot, log.as_ref(), &mut findings);
    findings.printed?;
    if findings.count == 0 {
        return print_line(&format!("{} is whole", dir.display()));
    }
    Err(Failure::new(exit::ERROR, format!("{}: {} finding(s)", dir.display(), findings.count)))
}

/// Looks at a log's entries as they come.
struct Entered<'f> {
    findings: &'f mut Findings,
    /// Where each term begins, of the last committed entry and of those behind it.
    terms: Vec<(u64, u64)>,
    commit: u64,
    /// The index of the snapshot that the entries follow.
    start: u64,
    last: u64,
}

impl Entries for Entered<'_> {
    fn truncate(&mut self, count: u64) {
        self.last = self.start + count;
        if self.last < self.commit {
            let (from, commit) = (self.last + 1, self.commit);
            self.findings.add(format!(
                "log: entries from {from} on are replaced, but committed up to {commit}"
            ));
        }
        while self.terms.len() > 1 && self.terms.last().is_some_and(|(from, _)| *from > self.last) {
            self.terms.pop();
        }
    }

    fn push(&mut self, entry: Entry) {
        let (index, term) = (entry.index(), entry.term());
        let before = self.terms.last().map_or(0, |(_, term)| *term);
        if term < before {
            self.findings.add(format!("log: the term falls from {before} at entry {index}"));
        }
        if term != before {
            self.terms.push((index, term));
        }
        self.last = index;
        let is_request = entry.r#type() == EntryType::EntryNormal;
        if is_request && let Err(e) = decode_entry(&entry.data.unwrap_or_default()) {
            self.findings.add(format!("log: entry {index} is no request: {e}"));
        }
    }

    fn committed(&mut self, index: u64) {
        self.commit = index;
        let settled = self.terms.iter().rposition(|(from, _)| *from <= index).unwrap_or(0);
        self.terms.drain(..settled);
    }
}

/// Every record's checksum, every entry's content, indexes without a gap, terms that never fall.
fn check_log(dir: &Path, findings: &mut Findings) -> Option<Log> {
    let disk = files::disk();
    let newest = findings.take("log", wal::newest_snapshot(disk.as_ref(), dir))?;
    let at = newest.unwrap_or_else(|| walpb::Snapshot::of(0, 0, None));
    let (start, terms) = (at.index(), vec![(at.index(), at.term())]);
    let mut entered = Entered { findings: &mut *findings, terms, commit: 0, start, last: start };
    let found = wal::replay(disk.as_ref(), dir, &at, &mut entered);
    let last = entered.last;
    let found = findings.take("log", found)?;
    if let Some(torn) = &found.torn {
        let Torn { path, offset, what, .. } = torn;
        findings.note(format!(
            "note: {} ends in a torn record at byte {offset} ({what}), which the next start cuts off",
            path.display()
        ));
    }
    let commit = found.hard_state.commit();
    if commit > last {
        findings.add(format!("log: entries up to {commit} are committed, but it ends at {last}"));
    }
    let metadata = findings.take("log: metadata", Metadata::decode(found.metadata))?;
    Some(Log { snapshot: (at.index(), at.term()), commit, last, member: metadata.node_id() })
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
    let leases = check_rows(snapshot, Bucket::Lease, |key, value| {
        let lease = leasepb::Lease::decode(value).map_err(|e| e.to_string())?;
        if key != lease.id.to_be_bytes() { Err("it is another one".to_owned()) } else { Ok(()) }
    });
    let _ = findings.take("db: leases", leases);
    let roles = check_rows(snapshot, Bucket::AuthRoles, |key, value| {
        let role = authpb::Role::decode(value).map_err(|e| e.to_string())?;
        if key != &role.name[..] { Err("it is another one".to_owned()) } else { Ok(()) }
    });
    let _ = findings.take("db: roles", roles);
    let users = check_rows(snapshot, Bucket::AuthUsers, |key, value| {
        let user = authpb::User::decode(value).map_err(|e| e.to_string())?;
        if key != &user.name[..] { Err("it is another one".to_owned()) } else { Ok(()) }
    });
    let _ = findings.take("db: users", users);
    let keys = check_keys(snapshot, findings);
    let _ = findings.take("db: keys", keys);
}

/// Every row of a bucket.
fn check_rows(
    snapshot: &Snapshot,
    bucket: Bucket,
    check: impl Fn(&[u8], &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut rows = snapshot.cursor(bucket).map_err(|e| e.to_string())?;
    while let Some((key, value)) = rows.next().map_err(|e| e.to_string())? {
        check(key, value).map_err(|why| format!("{}: {why}", go::quote(key)))?;
    }
    Ok(())
}

/// The history: each change by itself, the revisions, and that the leases of keys are there.
fn check_keys(snapshot: &Snapshot, findings: &mut Findings) -> std::io::Result<()> {
    let survey = Survey::new(snapshot.clone(), ROOM)?;
    survey.rows(Revision::default(), |row| {
        if let Some(why) = wrong(row) {
            let Revision { main, sub } = row.revision;
            let key = go::quote(row.kv.key);
            findings.add(format!("db: key {key} at revision {main}_{sub}: {why}"));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let (scheduled, finished) = survey.compactions();
    if let (Some(finished), Some(scheduled)) = (finished, scheduled.or(Some(0)))
        && finished > scheduled
    {
        findings.add(format!(
            "db: compacted to {finished}, but the last compaction was asked for at {scheduled}"
        ));
    }
    survey.lost_leases(|row| {
        let (key, lease) = (go::quote(row.kv.key), row.kv.lease);
        findings.add(format!("db: key {key} is attached to lease {lease:x}, which is not there"));
        Ok(())
    })
}

/// What is wrong with a change.
fn wrong(row: &Row<'_>) -> Option<String> {
    let kv = &row.kv;
    // A jump of the revision leaves a mark that says nothing; and of a key that is deleted only its name is there.
    if row.tombstone || row.stored_value.is_empty() {
        return None;
    }
    if kv.modified != row.revision.main {
        return Some(format!("it says that it was written at {}", kv.modified));
    }
    if !(1..=kv.modified).contains(&kv.created) || kv.version < 1 {
        return Some(format!("created at {}, version {}", kv.created, kv.version));
    }
    None
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

#[cfg(test)]
mod tests {
    use etch_api::internal::{RequestKind, encode_entry};
    use etch_state::mvcc::KeyValue;

    use super::*;

    #[test]
    fn a_log_whose_terms_fall_or_that_replaces_what_is_committed_is_found() {
        let mut findings = Findings { count: 0, printed: Ok(()) };
        let terms = vec![(10, 2)];
        let mut log = Entered { findings: &mut findings, terms, commit: 0, start: 10, last: 10 };
        let data = encode_entry(1, RequestKind::Put, &[]);
        let entries = |log: &mut Entered<'_>, list: &[(u64, u64)]| {
            for (index, term) in list {
                log.push(Entry::normal(*term, *index, data.clone()));
            }
            log.findings.count
        };
        assert_eq!(entries(&mut log, &[(11, 2), (12, 3), (13, 5)]), 0);
        log.committed(11);
        // What was not committed is replaced by an entry of an older term than it had.
        log.truncate(1);
        assert_eq!(entries(&mut log, &[(12, 4), (13, 4)]), 0);
        log.committed(13);
        assert_eq!(log.terms.len(), 1, "what is settled is not held");
        assert_eq!(entries(&mut log, &[(14, 3)]), 1, "the term falls");
        log.truncate(2);
        assert_eq!(log.findings.count, 2, "13 was committed");
        log.push(Entry::normal(6, 13, vec![0xff].into()));
        assert_eq!(findings.count, 3, "no request");
    }

    #[test]
    fn changes_that_contradict_their_place_are_found() {
        let stored_key = Revision::new(7, 0).encode();
        let found = |created, modified, version, stored_value: &[u8]| {
            let kv = KeyValue { key: b"k", created, modified, version, value: b"", lease: 0 };
            let (revision, stored_key) = (Revision::new(7, 0), &stored_key[..]);
            wrong(&Row { revision, tombstone: false, kv, stored_key, stored_value }).is_some()
        };
        assert!(!found(5, 7, 2, b"x"));
        assert!(!found(0, 0, 0, b""), "the mark of a jump");
        assert!(found(5, 6, 2, b"x") && found(8, 7, 1, b"x") && found(0, 7, 1, b"x"));
        assert!(found(5, 7, 0, b"x"));
    }
}
