//! `snapshot save`: a member's whole store as a file. Not here: what is done with such a file (`etch_utl`).

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use etch_cli::progress::Progress;
use etch_cli::{Command, Failure, Matches, go, human};
use etch_client::{Client, Error, Refusal};
use tokio::io::AsyncReadExt as _;

use crate::connect::Ctl;
use crate::display::print;
use crate::fail::text;
use crate::{bad_args, exit, log, program};

/// Bytes of the digest at a snapshot's end, and what the rest is a multiple of.
const DIGEST: u64 = 32;
const SECTOR: u64 = 512;
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

const EXAMPLE: &str = "  # Save snapshot to a given file
  etcdctl snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address and save it to file
  etcdctl snapshot save --endpoints=127.0.0.1:3000 /backup/etcd-snapshot.db
  
  # Get snapshot from given address with certificates
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/etcd.crt --key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot with certain user and password
  etcdctl --user=root --password=password123 snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address with timeout
  etcdctl --endpoints=https://127.0.0.1:2379 --dial-timeout=20s snapshot save /backup/etcd-snapshot.db
  
  # Save snapshot with desirable time format
  etcdctl snapshot save /mnt/backup/etcd/backup_$(date +%Y%m%d_%H%M%S).db";

/// The command.
pub fn command() -> Command {
    let short = "Stores an etcd node backend snapshot to a given file";
    let save = Command::new("save <filename>", short, save).example(EXAMPLE);
    Command::parent("snapshot <subcommand>", "Manages etcd node snapshots", vec![save])
        .example(EXAMPLE)
        .group(program::CLUSTER)
}

fn save(matches: &Matches) -> Result<(), Failure> {
    let [path] = &matches.args[..] else {
        return Err(bad_args("snapshot save expects one argument <filename>"));
    };
    // It takes as long as it takes, unless somebody says how long it may.
    let is_bounded = matches.is_given("command-timeout");
    let ctl = if is_bounded { Ctl::new(matches)? } else { Ctl::lasting(matches)? };
    let failed = |why: String| Failure::new(exit::INTERRUPTED, why);
    let endpoints = ctl.client.endpoints();
    let [endpoint] = &endpoints[..] else {
        let many = endpoints.join(" ");
        let why = format!("snapshot must be requested to one selected node, not multiple [{many}]");
        return Err(failed(why));
    };
    let work = fetch(&ctl.client, endpoint, Path::new(path));
    let version = ctl.run(async {
        match is_bounded {
            false => work.await,
            true => tokio::time::timeout(ctl.limit(), work)
                .await
                .unwrap_or_else(|_| Err("context deadline exceeded".to_owned())),
        }
    });
    let part = part(Path::new(path));
    if version.is_err() {
        // Half a snapshot is none. Where there is no such file, it could not be made.
        let _ = std::fs::remove_file(part);
    }
    let version = version.map_err(failed)?;
    let mut said = format!("Snapshot saved at {path}\n");
    if !version.is_empty() {
        said.push_str(&format!("Server version {version}\n"));
    }
    print(said.as_bytes())
}

/// Where a snapshot grows until it is whole.
fn part(path: &Path) -> std::path::PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Fetches a snapshot, which gets its name when it is whole and durable. Returns the server's version.
async fn fetch(client: &Client, endpoint: &str, path: &Path) -> Result<String, String> {
    let part = part(path);
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600);
    let file = open.open(&part).map_err(|e| {
        let why = go::io_error("open", &part, &e);
        format!("could not open {} ({why})", part.display())
    })?;
    log::line("info", "created temporary db file", &[("path", &part.to_string_lossy())]);
    let started = Instant::now();
    let snapshot = client.snapshot().await.map_err(|e| refused(&e))?;
    let version = snapshot.version().to_owned();
    log::line("info", "fetching snapshot", &[("endpoint", endpoint)]);
    let size = copy(snapshot, file).await.map_err(|e| format!("could not write snapshot: {e}"))?;
    if size % SECTOR != DIGEST {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    let took = go::duration(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX));
    let fields = [
        ("endpoint", endpoint),
        ("size", &human::bytes(size)),
        ("took", &took),
        ("etcd-version", &version),
    ];
    log::line("info", "fetched snapshot", &fields);
    fs::rename(&part, path).map_err(|e| {
        let (part, path) = (part.display(), path.display());
        let why = go::io_error(&format!("rename {part}"), Path::new(&path.to_string()), &e);
        format!("could not rename {part} to {path} ({why})")
    })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(dir.unwrap_or(Path::new(".")));
    // The name is to outlive a power cut as well; a file system that cannot promise it is left to itself.
    if let Ok(dir) = dir {
        let _ = dir.sync_all();
    }
    log::line("info", "saved", &[("path", &path.to_string_lossy())]);
    Ok(version)
}

/// A stream's refusal, which Go's client gives on as gRPC has it.
fn refused(error: &Error) -> String {
    match error {
        Error::Refused(Refusal { code, message, .. }) => {
            format!("rpc error: code = {code:?} desc = {message}")
        }
        _ => text(error),
    }
}

/// This thread has nothing else to do: it may wait for the disk.
async fn copy(mut from: etch_client::Snapshot, mut to: File) -> std::io::Result<u64> {
    let (mut piece, mut size) = (vec![0; PIECE], 0);
    let mut progress: Option<Progress> = None;
    loop {
        let got = from.read(&mut piece).await?;
        if got == 0 {
            break;
        }
        to.write_all(&piece[..got])?;
        size += got as u64;
        let all = from.remaining() + size;
        progress.get_or_insert_with(|| Progress::new("saving", Some(all))).add(got as u64);
    }
    to.sync_all()?;
    Ok(size)
}
