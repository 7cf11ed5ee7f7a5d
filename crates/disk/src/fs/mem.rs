//! The double of a disk: a file system in memory that knows what a crash may take.
//!
//! Here: [`MemDisk`], its faults and its crashes. Below: `image`, one file's bytes with what is not durable yet.
//! Not here: time, threads and chance. The same calls and the same seed give the same bytes.
//!
//! The model, harsher than most real systems: a file's sectors of 512 bytes written since its last sync survive
//! each by its own coin, in any version they had since; so does its length. A name created, renamed or removed
//! survives by its own coin until the directory is synced, also when the file was synced; one rename is one
//! coin. A sync that fails drops what it had to make durable, and the next one does not bring it back; where all
//! calls fail from some point on, the caller is gone, and what it wrote is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File, Mapping, Open};

mod image;
#[cfg(test)]
mod tests;

use image::{Coin, Image};

/// A file or a directory, whatever its name is by now.
type Id = u64;

/// The directory that everything is in. Paths are taken from here, whether they start with `/` or not.
const ROOT: Id = 0;

/// What a device writes as a whole.
const SECTOR: u64 = 512;

/// What a crash takes of what is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All: the power failed before anything was written back.
    LoseAll,
    /// Nothing: the process was killed, the kernel lives.
    KeepAll,
    /// What a coin says, for each sector, length and name; the same seed throws the same coins.
    Seed(u64),
    /// Unit `i` of [`MemDisk::unsynced`] is kept where bit `i` is set, and lost otherwise.
    Subset(u64),
}

/// A fault to come: the call with this number, as [`MemDisk::calls`] counts them, fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Number of the call; the first one has 0.
    pub call: u64,
    /// The error that it answers.
    pub kind: io::ErrorKind,
    /// Whether all calls after it fail too, as when the power is gone.
    pub forever: bool,
}

/// A file system in memory. Clones are the same one.
#[derive(Clone)]
pub struct MemDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<Id, Node>,
    /// Changes of names that are not durable, oldest first.
    pending: Vec<Rename>,
    last_id: Id,
    calls: u64,
    fault: Option<Fault>,
    capacity: Option<u64>,
}

/// A file, or a directory's names: as they are, and as a crash finds them.
#[derive(Clone)]
enum Node {
    File { image: Image, locked: bool, handles: usize },
    Dir { now: BTreeMap<String, Id>, durable: BTreeMap<String, Id> },
}

/// One change of names: in this directory, this name is now that, all at once.
#[derive(Clone)]
struct Rename(Vec<(Id, String, Option<Id>)>);

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::empty_dir())]);
        Self { inner: Arc::new(Mutex::new(Inner { nodes, ..Inner::default() })) }
    }

    /// The disk as a machine finds it that starts again after a crash now. This one goes on unharmed, so
    /// that many crashes can be tried from one moment, and late calls of the dead touch nothing that lives.
    pub fn crash(&self, how: Crash) -> MemDisk {
        let inner = self.lock();
        let mut coin = Coin::new(how);
        let mut nodes = inner.nodes.clone();
        for change in &inner.pending {
            if coin.keeps() {
                make_durable(&mut nodes, change);
            }
        }
        for node in nodes.values_mut() {
            match node {
                Node::File { image, locked, handles } => {
                    image.crash(&mut coin);
                    (*locked, *handles) = (false, 0);
                }
                Node::Dir { now, durable } => now.clone_from(durable),
            }
        }
        let live = reachable(&nodes);
        nodes.retain(|id, _| live.contains(id));
        let after = Inner { nodes, last_id: inner.last_id, ..Inner::default() };
        MemDisk { inner: Arc::new(Mutex::new(after)) }
    }

    /// How many units, each kept or lost by itself, a crash now would decide on.
    pub fn unsynced(&self) -> usize {
        let inner = self.lock();
        let files = inner.nodes.values().map(|n| match n {
            Node::File { image, .. } => image.unsynced(),
            Node::Dir { .. } => 0,
        });
        inner.pending.len() + files.sum::<usize>()
    }

    /// How many calls that change or flush something were made. Reading does not count.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Sets the fault to come, or none.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// Sets how many bytes fit, allocated ones included; more is `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes in use, as the capacity counts them.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panics on another thread leaves a state that is still good to look at.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    fn empty_dir() -> Node {
        Node::Dir { now: BTreeMap::new(), durable: BTreeMap::new() }
    }
}

/// Makes one change of names survive.
fn make_durable(nodes: &mut BTreeMap<Id, Node>, Rename(changes): &Rename) {
    for (dir, name, id) in changes {
        if let Some(Node::Dir { durable, .. }) = nodes.get_mut(dir) {
            match id {
                Some(id) => durable.insert(name.clone(), *id),
                None => durable.remove(name),
            };
        }
    }
}

/// What names lead to.
fn reachable(nodes: &BTreeMap<Id, Node>) -> BTreeSet<Id> {
    let mut live = BTreeSet::from([ROOT]);
    let mut next = vec![ROOT];
    while let Some(id) = next.pop() {
        if let Some(Node::Dir { now, .. }) = nodes.get(&id) {
            next.extend(now.values().filter(|id| live.insert(**id)));
        }
    }
    live
}

impl Inner {
    /// Counts a call, and fails it where a fault says so.
    fn call(&mut self) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        match self.fault {
            Some(f) if number == f.call || (f.forever && number > f.call) => Err(f.kind.into()),
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        let size = |id: &Id| match self.nodes.get(id) {
            Some(Node::File { image, .. }) => image.footprint(),
            _ => 0,
        };
        reachable(&self.nodes).iter().map(size).sum()
    }

    /// Refuses what would take more room than there is. `more` is by how much a file would grow.
    fn room(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn names(&self, dir: Id) -> io::Result<&BTreeMap<String, Id>> {
        match self.nodes.get(&dir) {
            Some(Node::Dir { now, .. }) => Ok(now),
            Some(Node::File { .. }) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Id> {
        let mut at = ROOT;
        for name in parts(path)? {
            at = *self.names(at)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The directory that a path's last part is in, and that part.
    fn parent(&self, path: &Path) -> io::Result<(Id, String)> {
        let mut names = parts(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(&names.iter().collect::<PathBuf>())?;
        self.names(dir)?;
        Ok((dir, name))
    }

    fn add(&mut self, node: Node) -> Id {
        self.last_id += 1;
        self.nodes.insert(self.last_id, node);
        self.last_id
    }

    /// Changes names now; a crash may undo it until the directory is synced.
    fn apply(&mut self, change: Rename) {
        for (dir, name, id) in &change.0 {
            if let Some(Node::Dir { now, .. }) = self.nodes.get_mut(dir) {
                match id {
                    Some(id) => now.insert(name.clone(), *id),
                    None => now.remove(name),
                };
            }
        }
        self.pending.push(change);
    }

    fn image(&mut self, id: Id) -> io::Result<&mut Image> {
        match self.nodes.get_mut(&id) {
            Some(Node::File { image, .. }) => Ok(image),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn sync_dir(&mut self, dir: Id) {
        for change in std::mem::take(&mut self.pending) {
            if change.0.iter().any(|(d, _, _)| *d == dir) {
                make_durable(&mut self.nodes, &change);
            } else {
                self.pending.push(change);
            }
        }
        self.forget();
    }

    /// Drops the files that nobody can reach any more, not even after a crash.
    fn forget(&mut self) {
        let mut live: BTreeSet<Id> = [ROOT].into();
        for node in self.nodes.values() {
            if let Node::Dir { now, durable } = node {
                live.extend(now.values().chain(durable.values()));
            }
        }
        live.extend(self.pending.iter().flat_map(|r| &r.0).filter_map(|(_, _, id)| *id));
        let held = |n: &Node| matches!(n, Node::File { handles, .. } if *handles > 0);
        self.nodes.retain(|id, node| live.contains(id) || held(node));
    }

    fn handles(&mut self, id: Id, more: isize) {
        if let Some(Node::File { handles, .. }) = self.nodes.get_mut(&id) {
            *handles = handles.saturating_add_signed(more);
        }
    }
}

/// The names that a path is made of.
fn parts(path: &Path) -> io::Result<Vec<String>> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(parts)
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut inner = self.lock();
        let id = match (inner.find(path), how) {
            (Ok(_), Open::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Err(e), Open::Create) if e.kind() == io::ErrorKind::NotFound => {
                let (dir, name) = inner.parent(path)?;
                inner.call()?;
                let id =
                    inner.add(Node::File { image: Image::default(), locked: false, handles: 0 });
                inner.apply(Rename(vec![(dir, name, Some(id))]));
                id
            }
            (found, _) => found?,
        };
        inner.image(id)?;
        inner.handles(id, 1);
        let writable = how != Open::Read;
        Ok(Arc::new(MemFile { disk: self.clone(), id, writable, lock: Mutex::new(false) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        Ok(inner.names(inner.find(dir)?)?.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.lock().find(path).is_ok()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let mut at = ROOT;
        for name in parts(dir)? {
            at = match inner.names(at)?.get(&name) {
                Some(id) => *id,
                None => {
                    inner.call()?;
                    let id = inner.add(Node::empty_dir());
                    inner.apply(Rename(vec![(at, name, Some(id))]));
                    id
                }
            };
        }
        inner.names(at).map(|_| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let id = inner.find(from)?;
        let (from_dir, from) = inner.parent(from)?;
        let (to_dir, to) = inner.parent(to)?;
        if let Some(there) = inner.names(to_dir)?.get(&to)
            && let Some(Node::Dir { now, .. }) = inner.nodes.get(there)
            && !now.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        inner.call()?;
        inner.apply(Rename(vec![(from_dir, from, None), (to_dir, to, Some(id))]));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let id = inner.find(path)?;
        inner.image(id)?;
        let (dir, name) = inner.parent(path)?;
        inner.call()?;
        inner.apply(Rename(vec![(dir, name, None)]));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for name in self.list(path)? {
            let child = path.join(name);
            if self.list(&child).is_ok() {
                self.remove_dir_all(&child)?;
            } else {
                self.remove(&child)?;
            }
        }
        let mut inner = self.lock();
        let (dir, name) = inner.parent(path)?;
        inner.call()?;
        inner.apply(Rename(vec![(dir, name, None)]));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let dir = inner.find(dir)?;
        inner.names(dir)?;
        inner.call()?;
        inner.sync_dir(dir);
        Ok(())
    }
}

/// An open file. It stays itself when its name changes.
struct MemFile {
    disk: MemDisk,
    id: Id,
    writable: bool,
    /// Whether this handle holds the file's lock.
    lock: Mutex<bool>,
}

impl MemFile {
    /// Runs a call that changes something.
    fn change<T>(&self, run: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        run(&mut self.disk.lock())
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.disk.lock().image(self.id)?.read(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(|inner| {
            let end = offset + buf.len() as u64;
            let size = inner.image(self.id)?.footprint();
            inner.room(end.saturating_sub(size))?;
            let fails = inner.call();
            // A write that fails has done some of its work, up to the border of a sector.
            let half = (offset + buf.len() as u64 / 2) / SECTOR * SECTOR;
            let done = if fails.is_ok() { buf.len() } else { half.saturating_sub(offset) as usize };
            inner.image(self.id)?.write(&buf[..done], offset);
            fails
        })
    }

    fn sync(&self) -> io::Result<()> {
        // A handle for reading may flush as well.
        let mut inner = self.disk.lock();
        let fails = inner.call();
        let gone = inner.fault.is_some_and(|fault| fault.forever);
        let image = inner.image(self.id)?;
        match (&fails, gone) {
            (Ok(()), _) => image.sync(),
            (Err(_), true) => {}
            (Err(_), false) => image.fail_sync(),
        }
        fails
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().image(self.id)?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|inner| {
            inner.call()?;
            inner.image(self.id)?.set_len(len);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|inner| {
            let size = inner.image(self.id)?.footprint();
            inner.room(len.saturating_sub(size))?;
            inner.call()?;
            inner.image(self.id)?.allocate(len);
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut inner = self.disk.lock();
        let mut mine = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Node::File { locked, .. }) = inner.nodes.get_mut(&self.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if *locked && !*mine {
            return Ok(false);
        }
        (*locked, *mine) = (true, true);
        Ok(true)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(MemMapping(self.disk.lock().image(self.id)?.view(len)?)))
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mine = *self.lock.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.disk.lock();
        inner.handles(self.id, -1);
        if mine && let Some(Node::File { locked, .. }) = inner.nodes.get_mut(&self.id) {
            *locked = false;
        }
    }
}

/// The bytes as they were when the view was taken: what is written later is not seen.
struct MemMapping(Arc<Vec<u8>>);

impl Mapping for MemMapping {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}
