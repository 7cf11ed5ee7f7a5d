//! `etcdserverpb.Maintenance.Snapshot`: the file at one root, piece by piece, then its SHA-256. It is read and hashed
//! beside the store (`aside`): a net thread that did it would keep its other connections waiting for the disk. A client
//! that reads slower than others write does not make the file grow: what is left for it is copied ahead. Not here: the
//! file (`etch_disk::backend`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use etch_api::pb::etcdserverpb as pb;
use etch_disk::backend::{self, Backend as _};
use etch_rpc::{CallInfo, Code, MessageStream, Status, StreamSender};
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;

use super::methods::Method;
use super::{decode_streamed, internal, status};
use crate::aside::Aside;
use crate::auth::claim::Claim;
use crate::log_info;
use crate::net::Net;

/// Bytes in one message.
const BLOB: usize = 32 << 10;
/// Messages that are made at a time. It is what a client holds of our memory that does not read; to make a thread for it
/// takes a tenth of its time.
const STRETCH: usize = 8;
/// Bytes of pages that would be free but for readers of older roots, from which on what is left of a snapshot
/// is copied ahead. An idle store's snapshot may take as long as it likes without one.
const HELD: u64 = 32 << 20;
/// How often a snapshot looks for that.
const LOOK: Duration = Duration::from_millis(500);
/// Copies at a time: each takes up to the size of the database.
const COPIES: usize = 2;

/// What a member's snapshots share.
pub struct Snapshots {
    reading: Aside,
    copying: Aside,
    copies: Arc<AtomicUsize>,
}

impl Default for Snapshots {
    fn default() -> Self {
        let (reading, copying) = (Aside::new("snapshot"), Aside::new("snapshot-copy"));
        Self { reading, copying, copies: Arc::default() }
    }
}

/// `Snapshot`.
pub async fn snapshot(
    net: Rc<Net>,
    call: &CallInfo,
    mut messages: MessageStream,
    sender: StreamSender,
) -> Status {
    let began = Instant::now();
    let status = match send(&net, call, &mut messages, &sender).await {
        Ok(()) => Status::OK,
        Err(status) => status,
    };
    net.member.metrics.disk.backend_snapshot.observe(began.elapsed());
    status
}

/// Where the pieces come from.
enum Source {
    /// The root that was the newest at the start, which keeps its pages from being used again.
    Root(backend::Snapshot),
    /// A copy of what was left of it from an offset on.
    Copy { file: File, from: u64, _place: Place },
}

impl Source {
    fn read(&self, at: u64) -> io::Result<BytesMut> {
        let mut blob = BytesMut::zeroed(BLOB);
        let read = match self {
            Self::Root(root) => root.read_at(at, &mut blob),
            Self::Copy { file, from, .. } => file.read_at(&mut blob, at - from)?,
        };
        blob.truncate(read);
        Ok(blob)
    }
}

/// How far a snapshot was read.
struct Reader {
    source: Source,
    at: u64,
    total: u64,
    sum: Sha256,
    version: String,
}

impl Reader {
    /// The next messages.
    fn read(&mut self) -> io::Result<Vec<Bytes>> {
        let mut pieces = Vec::with_capacity(STRETCH);
        while self.at < self.total && pieces.len() < STRETCH {
            let blob = self.source.read(self.at)?.freeze();
            if blob.is_empty() {
                return Err(io::Error::other("the snapshot ended early"));
            }
            self.at += blob.len() as u64;
            self.sum.update(&blob);
            pieces.push(piece(self.total - self.at, blob, &self.version));
        }
        Ok(pieces)
    }

    /// The last one.
    fn digest(self) -> Bytes {
        piece(0, Bytes::copy_from_slice(&self.sum.finalize()), &self.version)
    }
}

async fn send(
    net: &Rc<Net>,
    call: &CallInfo,
    messages: &mut MessageStream,
    sender: &StreamSender,
) -> Result<(), Status> {
    let no_request = || Status::new(Code::Internal, "no request");
    let message = messages.next().await?.ok_or_else(no_request)?;
    decode_streamed::<pb::SnapshotRequest>(&message)?;
    let counts = &net.member.metrics.grpc;
    counts.received(Method::Snapshot, 1);
    Claim::of(net, call).require_admin(net).map_err(status)?;
    // What is acknowledged is in the snapshot: it is committed to the file first.
    net.member.commit_everything().await.map_err(status)?;
    let version =
        net.member.members().storage_version().map_or_else(String::new, |v| v.to_string());
    let root = net.member.backend.snapshot();
    let total = root.size();
    log_info!(net.member.log, "sending database snapshot to client", "total-bytes" => total);
    let source = Source::Root(root);
    let mut reader = Reader { source, at: 0, total, sum: Sha256::new(), version };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while reader.at < total {
        let read = move || (reader.read(), reader);
        let (pieces, back) =
            net.member.snapshots.reading.run(read).await.map_err(|e| internal(&e))?;
        reader = back;
        for piece in pieces.map_err(|e| internal(&e))? {
            let sending = sender.send(piece);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    biased;
                    _ = looks.tick(), if matches!(reader.source, Source::Root(_)) => {
                        if net.member.backend.held_bytes() > HELD {
                            reader.source = copy_ahead(net, reader.source, reader.at, total).await?;
                        }
                    }
                    sent = &mut sending => { sent?; break }
                }
            }
            counts.sent(Method::Snapshot, 1);
        }
    }
    sender.send(reader.digest()).await?;
    counts.sent(Method::Snapshot, 1);
    log_info!(net.member.log, "successfully sent database snapshot to client", "total-bytes" => total);
    Ok(())
}

fn piece(remaining_bytes: u64, blob: Bytes, version: &str) -> Bytes {
    let response =
        pb::SnapshotResponse { header: None, remaining_bytes, blob, version: version.to_owned() };
    response.encode_to_vec().into()
}

/// One of the copies that there may be at a time.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Option<Self> {
        let free = |taken| (taken < COPIES).then_some(taken + 1);
        places.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Self(Arc::clone(places)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Copies what is left of a root into a file without a name, and lets go of the root.
async fn copy_ahead(net: &Net, source: Source, from: u64, to: u64) -> Result<Source, Status> {
    let Source::Root(root) = source else { return Ok(source) };
    let Some(place) = Place::take(&net.member.snapshots.copies) else {
        let why = "the snapshot is read more slowly than the database changes, and so are others";
        return Err(Status::new(Code::ResourceExhausted, why));
    };
    log_info!(net.member.log, "copying ahead a snapshot that is read slowly", "remaining-bytes" => to - from);
    let dir = net.member.snap_dir.clone();
    let copied = net.member.snapshots.copying.run(move || copy(&root, &dir, from, to)).await;
    let file = copied.flatten().map_err(|e| {
        let why = format!("cannot copy ahead a snapshot that is read slowly: {e}");
        Status::new(Code::Unavailable, why)
    })?;
    Ok(Source::Copy { file, from, _place: place })
}

fn copy(root: &backend::Snapshot, dir: &Path, from: u64, to: u64) -> io::Result<File> {
    /// Tells the files of two copies apart in the moment in which they have names.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // A start removes what begins with `tmp`, should we end before we do.
    let path = dir.join(format!("tmp.snapshot.{}.{number}", process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    let mut buf = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let read = root.read_at(at, &mut buf);
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(&buf[..read], at - from)?;
        at += read as u64;
    }
    Ok(file)
}
