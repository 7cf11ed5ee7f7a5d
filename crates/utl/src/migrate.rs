//! `migrate`: sets the storage version, so that an older or a newer etcd takes the directory. Not here: the rows
//! (`etch_state::offline`).

use std::path::Path;

use etch_api::internal::{RequestKind, decode_entry};
use etch_api::pb::etcdserverpb::DowngradeVersionTestRequest;
use etch_api::pb::raftpb::{Entry, EntryType};
use etch_api::pb::walpb;
use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_disk::backend::{Backend as _, Batch, Snapshot};
use etch_disk::wal::{self, Entries};
use etch_state::offline;
use etch_state::version::{ETCD, Version};
use prost::Message as _;
use serde_json::json;

use crate::{exit, files, log};

/// The first version that writes its number into the file.
const FIRST_WRITTEN: Version = Version { major: 3, minor: 6, patch: 0 };
/// The oldest that can be gone back to, which writes none.
const OLDEST: Version = Version { major: 3, minor: 5, patch: 0 };

/// The command.
pub fn command() -> Command {
    let target = "Target etcd version to migrate contents of data dir. Minimal value 3.5. Format \"X.Y\" for example 3.6.";
    let force =
        "Ignore migration failure and forcefully override storage version. Not recommended.";
    Command::new(
        "migrate",
        "Migrates schema of etcd data dir files to make them compatible with different etcd version",
        run,
    )
    .flags(vec![
        Flag::text("data-dir", "", "Path to the etcd data dir").required(),
        Flag::text("target-version", "", target).required(),
        Flag::switch("force", force),
    ])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let target =
        parse(matches.text("target-version")).map_err(|why| Failure::new(exit::BAD_ARGS, why))?;
    let dir = Path::new(matches.text("data-dir"));
    let bolt = files::open_to_write(&files::db_path(dir), matches)?;
    let failed = |why: String| Failure::new(exit::ERROR, why);
    let snapshot = bolt.snapshot();
    let current = detect(&snapshot).map_err(failed)?;
    if current == target {
        let fields = [("storage-version", json!(short(current)))];
        log::info("utl/migrate.rs", "storage version up-to-date", &fields);
        return Ok(());
    }
    let from_log = version_of_log(&files::wal_dir(dir)).map_err(failed)?;
    match check(current, target, from_log) {
        Ok(()) => {}
        Err(why) if matches.is_on("force") => {
            let fields = [("error", json!(why))];
            log::info("utl/migrate.rs", "normal migrate failed, trying with force", &fields);
        }
        Err(why) => return Err(failed(why)),
    }
    let mut batch = Batch::new();
    let written = (target >= FIRST_WRITTEN).then_some(target);
    offline::set_storage_version(&mut batch, written);
    bolt.commit(&mut batch).map_err(|e| failed(e.to_string()))?;
    report(target, written, matches.is_on("force"));
    Ok(())
}

fn report(target: Version, written: Option<Version>, forced: bool) {
    match (forced, written) {
        (true, None) => log::warn("utl/migrate.rs", "forcefully cleared storage version", &[]),
        (true, Some(_)) => {
            let fields = [("storage-version", json!(short(target)))];
            log::warn("utl/migrate.rs", "forcefully set storage version", &fields);
        }
        (false, _) => {
            let fields = [("new-storage-version", json!(target.to_string()))];
            log::info("utl/migrate.rs", "updated storage version", &fields);
        }
    }
}

fn short(version: Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

fn parse(text: &str) -> Result<Version, String> {
    let Some((major, minor)) = text.split_once('.').filter(|(_, minor)| !minor.contains('.'))
    else {
        return Err(format!(
            "wrong target version format, expected \"X.Y\", got {}",
            go::quote(text)
        ));
    };
    let number = |part: &str| {
        let number = go::parse_int(part).ok().and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| {
            let part = go::quote(part);
            format!(
                "failed to parse target version: strconv.ParseInt: parsing {part}: invalid syntax"
            )
        })
    };
    let version = Version { major: number(major)?, minor: number(minor)?, patch: 0 };
    if version < OLDEST {
        return Err(format!(
            "target version \"{}\" not supported. Minimal \"3.5\"",
            short(version)
        ));
    }
    Ok(version)
}

/// Which etcd's file it is. 3.5 writes no version, but a term; older ones neither.
fn detect(snapshot: &Snapshot) -> Result<Version, String> {
    let read = |e: std::io::Error| e.to_string();
    if let Some(version) = offline::storage_version(snapshot).map_err(read)? {
        return Ok(version.cluster());
    }
    match offline::term(snapshot).map_err(read)? {
        0 => Err("missing term information".to_owned()),
        _ => Ok(OLDEST),
    }
}

/// Whether there is a way from one version to the other.
fn check(current: Version, target: Version, from_log: Option<Version>) -> Result<(), String> {
    let plan = |why: String| format!("cannot create migration plan: {why}");
    if current.major != target.major {
        return Err(plan("changing major storage version is not supported".into()));
    }
    let newest = ETCD.cluster();
    if target > current && target > newest {
        let next = current.minor.max(newest.minor) + 1;
        let next = Version { minor: next, ..newest };
        return Err(plan(format!("version \"{next}\" is not supported")));
    }
    if target < current && current > newest {
        return Err(plan(format!("version \"{current}\" is not supported")));
    }
    if let Some(needed) = from_log.filter(|needed| target < current && target < *needed) {
        return Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is \
             lower than the version ({needed}) detected from WAL logs"
        ));
    }
    Ok(())
}

/// What a log's entries need of the etcd that reads them, as they come.
#[derive(Default)]
struct Needs {
    /// Each version that is above all before it, and how many entries came before the one that needs it.
    versions: Vec<(u64, Version)>,
    count: u64,
    broken: Option<String>,
}

impl Needs {
    /// The only entry that such a version has and older ones have not names a version itself. What is in the other
    /// requests, however odd or deep, does not matter here.
    fn see(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        if entry.r#type() != EntryType::EntryNormal {
            return Ok(());
        }
        let request = decode_entry(&entry.data.clone().unwrap_or_default())?;
        if request.kind == Some(RequestKind::DowngradeVersionTest) {
            let test = DowngradeVersionTestRequest::decode(request.body)?;
            let named = test.ver.parse().unwrap_or(FIRST_WRITTEN).max(FIRST_WRITTEN);
            if self.versions.last().is_none_or(|(_, needed)| *needed < named) {
                self.versions.push((self.count, named));
            }
        }
        Ok(())
    }
}

impl Entries for Needs {
    fn truncate(&mut self, count: u64) {
        self.count = count;
        self.versions.retain(|(before, _)| *before < count);
    }

    fn push(&mut self, entry: Entry) {
        if let Err(e) = self.see(&entry) {
            self.broken.get_or_insert(format!("failed to read wal: entry {}: {e}", entry.index()));
        }
        self.count += 1;
    }
}

/// The oldest etcd that reads the log behind its newest snapshot, where that is one after 3.5.
fn version_of_log(dir: &Path) -> Result<Option<Version>, String> {
    let disk = files::disk();
    let newest = wal::newest_snapshot(disk.as_ref(), dir)
        .map_err(|e| format!("failed to get the lastest snapshot: {e}"))?;
    let at = newest.unwrap_or_else(|| walpb::Snapshot::of(0, 0, None));
    let mut needs = Needs::default();
    wal::replay(disk.as_ref(), dir, &at, &mut needs)
        .map_err(|e| format!("failed to read wal: {e}"))?;
    match needs.broken {
        Some(why) => Err(why),
        None => Ok(needs.versions.last().map(|(_, version)| *version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn v(minor: u32) -> Version {
        Version { major: 3, minor, patch: 0 }
    }

    #[test]
    fn targets_are_read_as_etcdutl_reads_them() {
        assert_eq!(parse("3.6"), Ok(v(6)));
        let rows = [
            ("3", "wrong target version format, expected \"X.Y\", got \"3\""),
            ("3.4", "target version \"3.4\" not supported. Minimal \"3.5\""),
            (
                "a.b",
                "failed to parse target version: strconv.ParseInt: parsing \"a\": invalid syntax",
            ),
        ];
        for (text, why) in rows {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_log_that_an_old_etcd_cannot_read_forbids_the_way_back() {
        assert_eq!(check(v(7), v(5), None), Ok(()));
        assert_eq!(check(v(5), v(7), Some(v(7))), Ok(()));
        assert!(check(v(7), v(6), Some(v(7))).is_err());
        assert_eq!(
            check(v(7), v(9), None),
            Err("cannot create migration plan: version \"3.8.0\" is not supported".into())
        );
    }
}
