//! Finding the file: making a new one, checking an old one. Not here: what is done with it then.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::bolt::{Bolt, Writer};
use super::meta::{Meta, NO_FREELIST};
use super::page::{self, BUCKET_HEAD, HEADER, IS_BUCKET, LEAF, damaged};
use super::snapshot::{Root, Snapshot};
use super::space::Space;
use super::walk::walk;
use super::{Bucket, page::View};
use crate::fs::{Disk, File, Open};
use crate::mutants::{self, Mutant};

/// How the file is made and grows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Page size of a new file, a power of two; an old one has its own.
    pub page_size: usize,
    /// By how many bytes more than it needs the file grows.
    pub grow: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { page_size: 4096, grow: 16 << 20 }
    }
}

impl Bolt {
    /// Opens a database and takes its lock; a new one is made if there is none. The whole file is walked:
    /// that finds the free pages, which it does not list, and any damage.
    ///
    /// A file that another process holds is an error of kind `ResourceBusy`; a damaged one is `InvalidData`
    /// and names the page.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: Options) -> io::Result<Arc<Self>> {
        let file = if disk.exists(path) {
            let file = disk.open(path, Open::Write)?;
            lock(&*file, path)?;
            file
        } else {
            create(&*disk, path, &options)?
        };
        let meta = Meta::read(&*file).map_err(|e| named(e, path))?;
        let mut file_len = file.len()?;
        let writer = |space, file_len| Writer {
            file: Arc::clone(&file),
            space,
            page_size: meta.page_size,
            file_len,
            grow: options.grow,
            saved: 0,
            roots: VecDeque::new(),
            broken: None,
            buf: Vec::new(),
        };
        // Free pages may lie behind the end, where a crash came between a cut and the next commit. They are
        // given back to the file, so that all pages below the high-water mark can be read.
        let map = file.map(file_len.min(meta.len()))?;
        let view = View { bytes: map.bytes(), page_size: meta.page_size, high: meta.high };
        let reached = walk(view, &meta).map_err(|e| named(e, path))?;
        drop(map);
        // Who was killed may have left a meta page that only the kernel holds. From here on its root counts, and
        // the next commit writes over pages of the one before: so it is made durable first.
        if !mutants::on(Mutant::UnflushedRoot) {
            file.sync()?;
        }
        if file_len < meta.len() {
            file.set_len(meta.len())?;
            file_len = meta.len();
        }
        let space = Space::new(&reached.used, reached.heads);
        let free = space.free_pages();
        let writer = writer(space, file_len);
        let map = writer.map(None, meta.len())?;
        let root = Root::new(map, meta, free).map_err(|e| named(e, path))?;
        Ok(Arc::new(Self::new(root, writer)))
    }
}

/// Opens a database for reading, without a lock and without a walk: for tools, on a file that nobody
/// writes. [`Snapshot::check`] walks it.
pub fn open_read_only(disk: &dyn Disk, path: &Path) -> io::Result<Snapshot> {
    let file = disk.open(path, Open::Read)?;
    let meta = Meta::read(&*file).map_err(|e| named(e, path))?;
    let map = file.map(file.len()?.min(meta.len()))?;
    let root = Root::new(map, meta, 0).map_err(|e| named(e, path))?;
    Ok(Snapshot { root: Arc::new(root) })
}

fn named(e: io::Error, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn lock(file: &dyn File, path: &Path) -> io::Result<()> {
    if file.try_lock()? {
        return Ok(());
    }
    let why = format!("{}: the database is in use by another process", path.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
}

/// A new database with all buckets, empty. It gets its name when it is whole.
fn create(disk: &dyn Disk, path: &Path, options: &Options) -> io::Result<Arc<dyn File>> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let fresh = path.with_file_name(name);
    if disk.exists(&fresh) && !mutants::on(Mutant::I11613) {
        disk.remove(&fresh)?;
    }
    let file = disk.open(&fresh, Open::Create)?;
    lock(&*file, path)?;
    file.write_at(&first_pages(options.page_size)?, 0)?;
    file.sync()?;
    disk.rename(&fresh, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// Two metas, a page that is free, and the root with an empty inline leaf for each bucket.
fn first_pages(page_size: usize) -> io::Result<Vec<u8>> {
    let meta = |txid| Meta {
        page_size,
        flags: 0,
        root: 3,
        sequence: 0,
        freelist: NO_FREELIST,
        high: 4,
        txid,
    };
    Meta::parse(&meta(0).page(0))
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let mut bytes = meta(0).page(0);
    bytes.extend(meta(1).page(1));
    bytes.resize(3 * page_size, 0);
    let mut value = [0; BUCKET_HEAD + HEADER];
    value[BUCKET_HEAD + 8..BUCKET_HEAD + 10].copy_from_slice(&LEAF.to_le_bytes());
    let mut names = Bucket::ALL.map(Bucket::name);
    names.sort();
    let items = names.iter().map(|name| (u64::from(IS_BUCKET), *name, &value[..]));
    page::write(&mut bytes, 3, true, 0, items);
    if bytes.len() > 4 * page_size {
        return Err(damaged(3, "a page too small for the buckets"));
    }
    bytes.resize(4 * page_size, 0);
    Ok(bytes)
}
