//! `snapshot restore`: a data directory for a member of a new cluster, from an old cluster's snapshot. Not here:
//! the rows that change (`etch_state::offline`), the files' formats (`etch_disk`).
//!
//! All is made beside its place and gets its name when it is whole: a restore that fails leaves nothing behind,
//! and never touches a directory that has something in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::Metadata;
use etch_api::pb::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Snapshot,
};
use etch_cli::progress::Progress;
use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_disk::backend::{self, Backend as _, Batch, Bolt};
use etch_disk::fs::{Disk, File, Open};
use etch_disk::snap::{MemberRecord, Snapshotter, encode_v2};
use etch_disk::wal::{self, Wal};
use etch_state::members::{Member, cluster_id};
use etch_state::offline;
use prost::Message as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{cluster, exit, files, log};

/// Bytes of the digest at a snapshot's end.
const DIGEST: u64 = 32;
/// What a file's size without a digest is a multiple of, whatever the page size.
const SECTOR: u64 = 512;
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;
/// The term in which the new cluster's log begins.
const TERM: u64 = 1;

/// The command.
pub fn command() -> Command {
    Command::new(
        "restore <filename> --data-dir {output dir} [options]",
        "Restores an etcd member snapshot to an etcd directory",
        run,
    )
    .flags(flags())
}

fn flags() -> Vec<Flag> {
    vec![
        Flag::text("data-dir", "", "Path to the output data directory"),
        Flag::text("wal-dir", "", "Path to the WAL directory (use --data-dir if none given)"),
        Flag::text(
            "initial-cluster",
            "default=http://localhost:2380",
            "Initial cluster configuration for restore bootstrap",
        ),
        Flag::text(
            "initial-cluster-token",
            "etcd-cluster",
            "Initial cluster token for the etcd cluster during restore bootstrap",
        ),
        Flag::text(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "List of this member's peer URLs to advertise to the rest of the cluster",
        ),
        Flag::text("name", "default", "Human-readable name for this member"),
        Flag::switch(
            "skip-hash-check",
            "Ignore snapshot integrity hash value (required if copied from data directory)",
        ),
        Flag::uint(
            "initial-memory-map-size",
            10_737_418_240,
            "Initial memory map size of the database in bytes. It uses the default value if not defined or defined to 0",
        ),
        Flag::uint("bump-revision", 0, "How much to increase the latest revision after restore"),
        Flag::switch(
            "mark-compacted",
            "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)",
        ),
    ]
}

/// What is restored, and where to.
struct Restore {
    source: PathBuf,
    data_dir: PathBuf,
    /// `--wal-dir`, where it is not in the data directory.
    wal_dir: Option<PathBuf>,
    /// Everything is made in here first.
    work: PathBuf,
    members: Vec<Member>,
    us: Member,
    skip_hash_check: bool,
    bump_revision: u64,
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let [source] = &matches.args[..] else {
        let why = "snapshot restore requires exactly one argument";
        return Err(Failure::new(exit::BAD_ARGS, why));
    };
    let bump = matches.unsigned("bump-revision");
    if (bump > 0) != matches.is_on("mark-compacted") {
        let why = "--mark-compacted required if --revision-bump > 0";
        return Err(Failure::new(exit::BAD_ARGS, why));
    }
    let restore = Restore::plan(source, bump, matches).map_err(error)?;
    let fields = [
        ("path", json!(restore.source)),
        ("wal-dir", json!(restore.wal_dir())),
        ("data-dir", json!(restore.data_dir)),
        ("snap-dir", json!(restore.data_dir.join("member").join("snap"))),
        ("initial-memory-map-size", json!(matches.unsigned("initial-memory-map-size"))),
    ];
    log::info("utl/restore.rs", "restoring snapshot", &fields);
    restore.run().map_err(error)?;
    log::info("utl/restore.rs", "restored snapshot", &fields);
    Ok(())
}

fn error(why: String) -> Failure {
    Failure::new(exit::ERROR, why)
}

impl Restore {
    /// Looks at everything that can be wrong before anything is written.
    fn plan(source: &str, bump_revision: u64, matches: &Matches) -> Result<Self, String> {
        let members = cluster::members(matches)?;
        let name = matches.text("name");
        let us = members.iter().find(|m| m.name == name).cloned().ok_or("no such member")?;
        let data_dir = match matches.text("data-dir") {
            "" => PathBuf::from(format!("{name}.etcd")),
            dir => PathBuf::from(dir),
        };
        if data_dir.exists() && !is_empty_dir(&data_dir) {
            let dir = go::quote(data_dir.to_string_lossy().as_ref());
            return Err(format!("data-dir {dir} not empty or could not be read"));
        }
        let wal_dir = match matches.text("wal-dir") {
            "" => None,
            dir => Some(PathBuf::from(dir)),
        };
        if let Some(dir) = wal_dir.as_deref().filter(|dir| dir.exists()) {
            let dir = go::quote(dir.to_string_lossy().as_ref());
            return Err(format!("wal-dir {dir} exists"));
        }
        Ok(Self {
            source: source.into(),
            work: data_dir.join("member.restoring"),
            data_dir,
            wal_dir,
            members,
            us,
            skip_hash_check: matches.is_on("skip-hash-check"),
            bump_revision,
        })
    }

    fn wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| files::wal_dir(&self.data_dir))
    }

    /// Makes the directory, or takes away what was made of it.
    fn run(&self) -> Result<(), String> {
        let (had_dir, disk) = (self.data_dir.exists(), files::disk());
        let outcome = self.make(&disk);
        if outcome.is_err() {
            let _ = fs::remove_dir_all(&self.work);
            if let Some(dir) = &self.wal_dir {
                let _ = fs::remove_dir_all(dir);
            }
            if !had_dir {
                let _ = fs::remove_dir(&self.data_dir);
            }
        }
        outcome
    }

    fn make(&self, disk: &Arc<dyn Disk>) -> Result<(), String> {
        let snap_dir = self.work.join("snap");
        let source = disk.open(&self.source, Open::Read);
        let source = source.map_err(|e| go::io_error("open", &self.source, &e))?;
        disk.create_dir_all(&snap_dir).map_err(text)?;
        let db = snap_dir.join("db");
        self.copy(source.as_ref(), disk.as_ref(), &db)?;
        self.rewrite(disk, &db)?;
        self.write_log(disk, &snap_dir)?;
        let member = self.data_dir.join("member");
        disk.rename(&self.work, &member).map_err(text)?;
        for dir in [member.as_path(), &self.data_dir, parent(&self.data_dir)] {
            disk.sync_dir(dir).map_err(text)?;
        }
        Ok(())
    }

    /// The database without the digest at its end, which must be right where there is one.
    fn copy(&self, source: &dyn File, disk: &dyn Disk, db: &Path) -> Result<(), String> {
        let len = source.len().map_err(text)?;
        if len < DIGEST {
            return Err(format!("seek {}: invalid argument", self.source.display()));
        }
        let has_digest = len % SECTOR == DIGEST;
        if !has_digest && !self.skip_hash_check {
            return Err("snapshot missing hash but --skip-hash-check=false".into());
        }
        let len = if has_digest { len - DIGEST } else { len };
        let target = disk.open(db, Open::Create).map_err(text)?;
        let mut sum = (!self.skip_hash_check).then(Sha256::new);
        let (mut at, mut piece) = (0, vec![0; PIECE]);
        let mut progress = Progress::new("restoring", Some(len));
        while at < len {
            let want = PIECE.min(usize::try_from(len - at).unwrap_or(PIECE));
            let got = source.read_at(&mut piece[..want], at).map_err(text)?;
            if got == 0 {
                return Err(format!("{} ends while it is read", self.source.display()));
            }
            if let Some(sum) = &mut sum {
                sum.update(&piece[..got]);
            }
            target.write_at(&piece[..got], at).map_err(|e| go::io_error("write", db, &e))?;
            at += got as u64;
            progress.add(got as u64);
        }
        target.sync().map_err(|e| go::io_error("sync", db, &e))?;
        drop(progress);
        if let Some(sum) = sum {
            let mut want = [0; DIGEST as usize];
            source.read_at(&mut want, len).map_err(text)?;
            let got: [u8; DIGEST as usize] = sum.finalize().into();
            if want != got {
                return Err(format!("expected sha256 {}, got {}", numbers(&want), numbers(&got)));
            }
        }
        Ok(())
    }

    /// Puts the new cluster's members in the place of the old one's, in one commit.
    fn rewrite(&self, disk: &Arc<dyn Disk>, db: &Path) -> Result<(), String> {
        let bolt =
            Bolt::open(Arc::clone(disk), db, backend::Options { grow: 0, ..Default::default() })
                .map_err(|e| files::invalid(&e).text)?;
        let snapshot = bolt.snapshot();
        log::info("utl/restore.rs", "Trimming membership information from the backend...", &[]);
        let commit = self.members.len() as u64;
        let mut batch =
            offline::new_cluster(&snapshot, &self.members, commit, TERM).map_err(text)?;
        if self.bump_revision > 0 {
            self.bump(&snapshot, &mut batch)?;
        }
        bolt.commit(&mut batch).map_err(text)?;
        let cluster = format!("{:x}", cluster_id(&self.members));
        for member in &self.members {
            let fields = [
                ("cluster-id", json!(cluster)),
                ("local-member-id", json!("0")),
                ("added-peer-id", json!(format!("{:x}", member.id))),
                ("added-peer-peer-urls", json!(member.peer_urls)),
                ("added-peer-is-learner", json!(false)),
            ];
            log::info("utl/restore.rs", "added member", &fields);
        }
        Ok(())
    }

    fn bump(&self, snapshot: &backend::Snapshot, batch: &mut Batch) -> Result<(), String> {
        let (old, new) =
            offline::bump_revision(snapshot, self.bump_revision, batch).map_err(text)?;
        let fields = [
            ("latest-revision", json!(old)),
            ("bump-amount", json!(self.bump_revision)),
            ("new-latest-revision", json!(new)),
        ];
        log::info("utl/restore.rs", "bumping latest revision", &fields);
        log::info("utl/restore.rs", "marking revision compacted", &[("revision", json!(new))]);
        Ok(())
    }

    /// The log of the new cluster: the addition of each member, all committed, and a snapshot behind them.
    fn write_log(&self, disk: &Arc<dyn Disk>, snap_dir: &Path) -> Result<(), String> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|m| m.id);
        let voters: Vec<u64> = members.iter().map(|m| m.id).collect();
        let entries: Vec<Entry> =
            members.iter().zip(1..).map(|(m, index)| added(m, index)).collect();
        let commit = entries.len() as u64;
        let conf_state = ConfState { voters: voters.clone(), ..ConfState::default() };

        let records: Vec<MemberRecord> = members.iter().map(|m| record(m)).collect();
        let data = encode_v2(&records, &[], None);
        Snapshotter::new(Arc::clone(disk), snap_dir)
            .save(&Snapshot::of(commit, TERM, conf_state.clone(), data))
            .map_err(text)?;

        let metadata = Metadata::of(self.us.id, cluster_id(&self.members)).encode_to_vec();
        let dir = self.wal_dir.clone().unwrap_or_else(|| self.work.join("wal"));
        if let Some(upper) = dir.parent().filter(|upper| !upper.as_os_str().is_empty()) {
            disk.create_dir_all(upper).map_err(text)?;
        }
        let mut wal = Wal::create(Arc::clone(disk), &dir, &metadata, wal::Options::default())
            .map_err(text)?;
        let hard_state = Some(HardState::of(TERM, voters[0], commit));
        wal.append(&wal::Batch { entries, hard_state }).map_err(text)?;
        wal.save_snapshot(commit, TERM, &conf_state).map_err(text)?;
        wal.close().map_err(text)
    }
}

fn added(member: &Member, index: u64) -> Entry {
    let change = ConfChange::of(0, ConfChangeType::ConfChangeAddNode, member.id, member.to_json());
    Entry::typed(EntryType::EntryConfChange, TERM, index, Bytes::from(change.encode_to_vec()))
}

fn record(member: &Member) -> MemberRecord {
    MemberRecord {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        is_learner: false,
        name: member.name.clone(),
        client_urls: Vec::new(),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|up| !up.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_empty_dir(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut names| names.next().is_none())
}

/// Bytes as Go prints a list of numbers.
fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_printed_as_go_prints_them() {
        assert_eq!(numbers(&[1, 255, 0]), "[1 255 0]");
        let missing = std::io::Error::from_raw_os_error(2);
        assert_eq!(
            go::io_error("open", Path::new("nofile"), &missing),
            "open nofile: no such file or directory"
        );
    }
}
