//! `etchctl migrate`, as etcdctl had it up to 3.4: the keys of etcd's second store, out of a data directory of etcd
//! 2.0 to 3.4 that nobody serves, become keys of the third. Not here: the second store itself (`store`, `request`),
//! its log (`log`), rows (`etch_state::offline`).
//!
//! A file `/a/b` becomes the key `/a/b`, with the indexes at which it was made and changed last as its revisions.
//! Directories and hidden nodes, whose names begin with `_`, are left out. There is nothing like a node's own time to
//! live in the third store: such keys stay for ever, or are left out with `--no-ttl`. All keys are written in one
//! commit or not at all.

mod log;
mod request;
mod store;
mod transform;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use etch_api::internal::{RequestKind, decode_entry};
use etch_api::pb::mvccpb::KeyValue;
use etch_api::pb::raftpb::{Entry, EntryType};
use etch_cli::{Command, Failure, Flag, Matches, go, print_line};
use etch_disk::backend::{self, Backend as _, Bolt};
use etch_disk::snap;
use etch_state::offline;

use crate::{exit, files, time};
use store::{Node, Store};

/// Where clients' keys are.
const KEYS: &str = "/1";

/// The command.
pub fn command() -> Command {
    Command::new("migrate", "Migrates keys in a v2 store to a mvcc store", run).flags(vec![
        Flag::switch("no-ttl", "Do not convert TTL keys"),
        Flag::text("data-dir", "", "Path to the data directory"),
        Flag::text("wal-dir", "", "Path to the WAL directory"),
        Flag::text("transformer", "", "Path to the user-provided transformer program"),
    ])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(exit::ERROR, why);
    let transformer = matches.text("transformer");
    if transformer.is_empty() {
        print_line("using default transformer")?;
    }
    let dir = Path::new(matches.text("data-dir"));
    let wal_dir = match matches.text("wal-dir") {
        "" => files::wal_dir(dir),
        dir => dir.into(),
    };
    let old = read(dir, &wal_dir).map_err(failed)?;
    let Some(keys) = old.store.get(KEYS) else {
        return print_line("no v2 keys to migrate");
    };
    let nodes = listed(keys, matches.is_on("no-ttl"), now());
    let rows = if transformer.is_empty() {
        transform::by_default(&nodes)
    } else {
        transform::by_program(Path::new(transformer), &nodes).map_err(|why| {
            print_line("failed to transform keys").err().unwrap_or_else(|| failed(why))
        })?
    };
    write(dir, &rows, &old, matches)?;
    print_line("finished transforming keys")
}

fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or_default()
}

/// The second store as a directory has it.
struct Old {
    store: Store,
    /// The index of the last entry that is in it.
    index: u64,
    /// The last entry that changed keys of the third store.
    last_v3: u64,
}

/// Reads the newest snapshot and the log behind it.
fn read(dir: &Path, wal_dir: &Path) -> Result<Old, String> {
    let mut old = Old { store: Store::default(), index: 0, last_v3: 0 };
    let mut from = (0, 0);
    if let Some(found) = newest_snapshot(&dir.join("member").join("snap"))? {
        let at = found.metadata.clone().unwrap_or_default();
        from = (at.index(), at.term());
        old.store = Store::from_snapshot(&found.data.unwrap_or_default())?;
        old.index = from.0;
    }
    for entry in log::entries(wal_dir, from)? {
        request::apply(&mut old.store, &entry)?;
        old.index = entry.index();
        if writes_v3(&entry) {
            old.last_v3 = entry.index();
        }
    }
    Ok(old)
}

/// The newest snapshot that is whole.
fn newest_snapshot(dir: &Path) -> Result<Option<etch_api::pb::raftpb::Snapshot>, String> {
    let names = fs::read_dir(dir).map_err(|e| go::io_error("open", dir, &e))?;
    let mut paths: Vec<PathBuf> = names
        .flatten()
        .map(|name| name.path())
        .filter(|path| path.extension().is_some_and(|e| e == "snap"))
        .collect();
    paths.sort();
    let disk = files::disk();
    let mut broken = None;
    for path in paths.iter().rev() {
        match snap::read(disk.as_ref(), path) {
            Ok(found) => return Ok(Some(found)),
            Err(e) => broken = broken.or(Some(e.to_string())),
        }
    }
    // Without any the log is whole from its beginning; with broken ones alone, nobody knows.
    broken.map_or(Ok(None), Err)
}

fn writes_v3(entry: &Entry) -> bool {
    use RequestKind::{DeleteRange, Put, Txn};
    let data = entry.data.clone().unwrap_or_default();
    entry.r#type() == EntryType::EntryNormal
        && !request::is_bare(&data)
        && decode_entry(&data).is_ok_and(|e| matches!(e.kind, Some(Put | DeleteRange | Txn)))
}

/// A node as it is shown to whoever turns it into a key: its path as clients know it.
struct Listed<'s> {
    path: String,
    node: &'s Node,
    /// Seconds that it has left.
    ttl: i64,
}

/// All nodes, upper ones first, by name; without hidden ones.
fn listed(keys: &Node, leaves_out_ttl: bool, now: i128) -> Vec<Listed<'_>> {
    let mut out = Vec::new();
    let mut rest = vec![(String::new(), keys)];
    while let Some((path, node)) = rest.pop() {
        // What has begun counts as a whole second.
        let ttl = node.expires.map_or(0, |at| seconds_up(at - now));
        for (name, child) in node.children.iter().flatten().rev() {
            if !name.starts_with('_') {
                rest.push((format!("{path}/{name}"), child));
            }
        }
        if !leaves_out_ttl || ttl == 0 {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            out.push(Listed { path, node, ttl });
        }
    }
    out
}

fn seconds_up(ns: i128) -> i64 {
    let whole = ns / time::SECOND + i128::from(ns % time::SECOND > 0);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// Writes the keys into the database, which is made if there is none.
fn write(dir: &Path, rows: &[KeyValue], old: &Old, matches: &Matches) -> Result<(), Failure> {
    let path = files::db_path(dir);
    let failed = |why: String| Failure::new(exit::ERROR, why);
    let bolt: Arc<Bolt> = if path.exists() {
        files::open_to_write(&path, matches)?
    } else {
        let made = Bolt::open(files::disk(), &path, backend::Options::default());
        made.map_err(|e| failed(e.to_string()))?
    };
    let snapshot = bolt.snapshot();
    let held = offline::consistent_index(&snapshot).map_err(|e| failed(e.to_string()))?;
    if old.last_v3 > held {
        return Err(failed(format!(
            "the log holds writes of v3 keys up to entry {}, and the database only those up to entry {held}: \
             start etcd on this directory and stop it in order first",
            old.last_v3
        )));
    }
    let mut batch =
        offline::import(&snapshot, rows, old.index).map_err(|e| failed(e.to_string()))?;
    bolt.commit(&mut batch).map_err(|e| failed(e.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.4.23 wrote with `--enable-v2`: values set, compared, refreshed, deleted and expired, a queue, a
    /// hidden node, and one key of the third store.
    fn fixture(keeps: &[&str]) -> Old {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v2");
        let name = format!("etch-v2-{}-{}", std::process::id(), keeps.len());
        let dir = std::env::temp_dir().join(name);
        let snap = dir.join("member/snap");
        fs::create_dir_all(&snap).expect("a directory");
        for name in keeps {
            fs::copy(from.join("snap").join(name), snap.join(name)).expect("a copy");
        }
        let old = read(&dir, &from.join("wal"));
        fs::remove_dir_all(&dir).expect("ours");
        old.expect("whole")
    }

    /// The keys that `etcdctl migrate` of 3.4.23 made of that directory.
    const KEYS_OF_3_4: &[(&str, &str, i64, i64)] = &[
        ("/dir/x", "xx", 6, 6),
        ("/ttldir/k", "in", 10, 10),
        ("/queue/00000000000000000011", "q1", 11, 11),
        ("/queue/00000000000000000012", "q2", 12, 12),
        ("/a", "3", 5, 13),
        ("/created", "c3", 16, 17),
        ("/dir/y", "yy", 7, 23),
        ("/uni", "ü<>&", 25, 25),
        ("/empty", "", 26, 26),
    ];

    #[test]
    fn keys_are_those_that_etcdctl_makes_whatever_is_in_the_snapshot_and_what_in_the_log() {
        let snaps = [
            "0000000000000002-0000000000000021.snap",
            "0000000000000002-0000000000000016.snap",
            "0000000000000002-000000000000000b.snap",
        ];
        for keeps in [&snaps[..], &snaps[1..], &snaps[2..], &[]] {
            let old = fixture(keeps);
            assert_eq!((old.index, old.last_v3), (34, if keeps.len() < 3 { 31 } else { 0 }));
            let nodes = listed(old.store.get(KEYS).expect("keys"), false, 0);
            let mut rows = transform::by_default(&nodes);
            rows.sort_by_key(|kv| kv.mod_revision);
            let rows: Vec<_> = rows
                .iter()
                .map(|kv| {
                    let text = |b: &[u8]| String::from_utf8(b.to_vec()).expect("text");
                    (text(&kv.key), text(&kv.value), kv.create_revision, kv.mod_revision)
                })
                .collect();
            let want: Vec<_> = KEYS_OF_3_4
                .iter()
                .map(|(key, value, created, modified)| {
                    ((*key).to_owned(), (*value).to_owned(), *created, *modified)
                })
                .collect();
            assert_eq!(rows, want, "{keeps:?}");
            let kept = listed(old.store.get(KEYS).expect("keys"), true, 0);
            assert!(!kept.iter().any(|n| n.path == "/dir/y" || n.path == "/ttldir"));
        }
    }

    #[test]
    fn what_has_begun_counts_as_a_second() {
        let rows = [(1, 1), (time::SECOND, 1), (time::SECOND + 1, 2), (-1, 0), (-time::SECOND, -1)];
        for (ns, want) in rows {
            assert_eq!(seconds_up(ns), want, "{ns}");
        }
    }
}
