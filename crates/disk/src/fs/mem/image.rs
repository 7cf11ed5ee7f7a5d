//! One file's bytes in the double: as they are now, and what a crash may find instead.
//!
//! Not here: names, and which call is to fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::Crash;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// How many versions of a sector are remembered between two syncs; the first is the durable one.
const VERSIONS: usize = 4;

type Sector = [u8; SECTOR];

/// Decides, unit after unit, what a crash keeps.
pub struct Coin {
    how: Crash,
    state: u64,
    unit: u32,
}

impl Coin {
    pub fn new(how: Crash) -> Self {
        let state = if let Crash::Seed(seed) = how { seed } else { 0 };
        Self { how, state, unit: 0 }
    }

    /// Which of `versions`, oldest first, survives.
    pub fn pick(&mut self, versions: usize) -> usize {
        let unit = self.unit;
        self.unit += 1;
        let newest = versions - 1;
        match self.how {
            Crash::LoseAll => 0,
            Crash::KeepAll => newest,
            Crash::Subset(bits) if bits.checked_shr(unit).unwrap_or(0) & 1 == 1 => newest,
            Crash::Subset(_) => 0,
            Crash::Seed(_) => (self.random() % versions as u64) as usize,
        }
    }

    /// Whether a change survives.
    pub fn keeps(&mut self) -> bool {
        self.pick(2) == 1
    }

    /// Whether the kernel outlives the crash, and with it what no device has.
    fn keeps_cache(&self) -> bool {
        self.how == Crash::KeepAll
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A file's content. A page of zeros is not stored.
#[derive(Clone, Default)]
pub struct Image {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
    len: u64,
    durable_len: u64,
    /// Room taken: what was allocated, or written up to.
    room: u64,
    /// Sectors written since the last sync, with the versions they had before.
    dirty: BTreeMap<u64, Vec<Sector>>,
    /// Sectors that a failed sync gave up: what a crash finds there, whatever is synced later.
    lost: BTreeMap<u64, Sector>,
    view: Option<Arc<Vec<u8>>>,
}

impl Image {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn footprint(&self) -> u64 {
        self.room
    }

    pub fn unsynced(&self) -> usize {
        self.dirty.len() + usize::from(self.len != self.durable_len)
    }

    pub fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = (buf.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let piece = (PAGE - within).min(n - done);
            let out = &mut buf[done..done + piece];
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => out.copy_from_slice(&page[within..within + piece]),
                None => out.fill(0),
            }
            done += piece;
        }
        n
    }

    pub fn write(&mut self, buf: &[u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR as u64) as usize;
            let piece = (SECTOR - within).min(buf.len() - done);
            let index = at / SECTOR as u64;
            let mut sector = self.sector(index);
            sector[within..within + piece].copy_from_slice(&buf[done..done + piece]);
            self.set_sector(index, &sector);
            done += piece;
        }
        self.len = self.len.max(offset + buf.len() as u64);
        self.room = self.room.max(self.len.min(offset + buf.len() as u64));
        self.view = None;
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.clear_from(len);
            self.room = self.room.min(len);
        }
        self.len = len;
        self.view = None;
    }

    pub fn allocate(&mut self, len: u64) {
        self.room = self.room.max(len);
        self.len = self.len.max(len);
        self.view = None;
    }

    pub fn sync(&mut self) {
        self.dirty.clear();
        self.durable_len = self.len;
    }

    /// A sync that fails: what was to be made durable is not, and nobody will try again.
    pub fn fail_sync(&mut self) {
        for (index, versions) in std::mem::take(&mut self.dirty) {
            if let Some(durable) = versions.into_iter().next() {
                self.lost.entry(index).or_insert(durable);
            }
        }
    }

    /// Becomes what is found after a crash.
    pub fn crash(&mut self, coin: &mut Coin) {
        for (index, versions) in std::mem::take(&mut self.dirty) {
            if let Some(version) = versions.get(coin.pick(versions.len() + 1)) {
                self.store(index, version);
            }
        }
        for (index, durable) in std::mem::take(&mut self.lost) {
            if !coin.keeps_cache() {
                self.store(index, &durable);
            }
        }
        if self.len != self.durable_len && !coin.keeps() {
            self.len = self.durable_len;
        }
        self.clear_from(self.len);
        self.sync();
        self.view = None;
    }

    /// The first `len` bytes as they are now.
    pub fn view(&mut self, len: u64) -> io::Result<Arc<Vec<u8>>> {
        if len > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(view) = self.view.as_ref().filter(|v| v.len() as u64 == len) {
            return Ok(view.clone());
        }
        let mut bytes = vec![0; len as usize];
        self.read(&mut bytes, 0);
        let view = Arc::new(bytes);
        self.view = Some(view.clone());
        Ok(view)
    }

    fn sector(&self, index: u64) -> Sector {
        let mut sector = [0; SECTOR];
        let (page, within) = place(index);
        if let Some(page) = self.pages.get(&page) {
            sector.copy_from_slice(&page[within..within + SECTOR]);
        }
        sector
    }

    /// Writes a sector and remembers what it was.
    fn set_sector(&mut self, index: u64, new: &Sector) {
        let old = self.sector(index);
        let lost = self.lost.remove(&index);
        if let Some(versions) = self.dirty.get_mut(&index) {
            if versions.len() == VERSIONS {
                versions.pop();
            }
            versions.push(old);
        } else if let Some(durable) = lost {
            self.dirty.insert(index, vec![durable, old]);
        } else if old != *new {
            self.dirty.insert(index, vec![old]);
        }
        self.store(index, new);
    }

    fn store(&mut self, index: u64, sector: &Sector) {
        let (page, within) = place(index);
        if !self.pages.contains_key(&page) && *sector == [0; SECTOR] {
            return;
        }
        let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
        Arc::make_mut(page)[within..within + SECTOR].copy_from_slice(sector);
    }

    /// Puts zeros from `from` on, as a cut does: what is there when the file grows again is not the old.
    fn clear_from(&mut self, from: u64) {
        let first = from / SECTOR as u64;
        let pages: Vec<u64> =
            self.pages.range(from / PAGE as u64..).map(|(page, _)| *page).collect();
        let per_page = (PAGE / SECTOR) as u64;
        for index in pages.into_iter().flat_map(|p| p * per_page..(p + 1) * per_page) {
            if index < first {
                continue;
            }
            let mut sector = self.sector(index);
            let keep = from.saturating_sub(index * SECTOR as u64).min(SECTOR as u64) as usize;
            if sector[keep..].iter().any(|b| *b != 0) {
                sector[keep..].fill(0);
                self.set_sector(index, &sector);
            }
        }
    }
}

fn place(index: u64) -> (u64, usize) {
    let at = index * SECTOR as u64;
    (at / PAGE as u64, (at % PAGE as u64) as usize)
}
