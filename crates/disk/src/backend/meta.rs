//! The two meta pages: which root counts. Not here: what hangs below it.

use std::io;

use super::page::{HEADER, META, damaged, u16_at, u32_at, u64_at};
use crate::fs::File;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const LEN: usize = 64;
/// The page id that says "no free list in the file".
pub(super) const NO_FREELIST: u64 = u64::MAX;
const MIN_PAGE: usize = 1024;
/// Larger ones could hold more elements than a page's header can count.
const MAX_PAGE: usize = 1 << 20;

/// What a meta page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_size: usize,
    pub flags: u32,
    pub root: u64,
    pub sequence: u64,
    pub freelist: u64,
    /// Pages from here on are not in use.
    pub high: u64,
    pub txid: u64,
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

impl Meta {
    /// The meta in a page's bytes; an error says why there is none.
    pub fn parse(page: &[u8]) -> Result<Self, &'static str> {
        let body = page.get(HEADER..HEADER + LEN).ok_or("cut short")?;
        let (u32_in, u64_in) =
            (|at| u32_at(body, at).unwrap_or(0), |at| u64_at(body, at).unwrap_or(0));
        if u32_in(0) != MAGIC {
            return Err("not a bbolt database");
        }
        if u32_in(4) != VERSION {
            return Err("a version of the format that is not 2");
        }
        if u64_in(56) != fnv1a(&body[..56]) {
            return Err("checksum wrong");
        }
        if u16_at(page, 8) != Some(META) {
            return Err("not marked as a meta page");
        }
        let meta = Self {
            page_size: u32_in(8) as usize,
            flags: u32_in(12),
            root: u64_in(16),
            sequence: u64_in(24),
            freelist: u64_in(32),
            high: u64_in(40),
            txid: u64_in(48),
        };
        meta.check().map(|()| meta)
    }

    /// A right checksum says nothing about who wrote the numbers.
    fn check(&self) -> Result<(), &'static str> {
        if !self.page_size.is_power_of_two() || !(MIN_PAGE..=MAX_PAGE).contains(&self.page_size) {
            return Err("a page size out of range");
        }
        if self.high < 3 || self.high > i64::MAX as u64 / self.page_size as u64 {
            return Err("a high-water page out of range");
        }
        if self.root < 2 || self.root >= self.high {
            return Err("the root page out of range");
        }
        if self.freelist != NO_FREELIST && !(2..self.high).contains(&self.freelist) {
            return Err("the free list's page out of range");
        }
        if self.txid > u64::MAX / 2 {
            return Err("a transaction number out of range");
        }
        Ok(())
    }

    /// Length in bytes of the file as this root sees it.
    pub fn len(&self) -> u64 {
        self.high * self.page_size as u64
    }

    /// The page, for slot `slot` (0 or 1).
    pub fn page(&self, slot: u64) -> Vec<u8> {
        let mut page = vec![0; self.page_size];
        page[..8].copy_from_slice(&slot.to_le_bytes());
        page[8..10].copy_from_slice(&META.to_le_bytes());
        let body = &mut page[HEADER..HEADER + LEN];
        body[..4].copy_from_slice(&MAGIC.to_le_bytes());
        body[4..8].copy_from_slice(&VERSION.to_le_bytes());
        body[8..12].copy_from_slice(&(self.page_size as u32).to_le_bytes());
        body[12..16].copy_from_slice(&self.flags.to_le_bytes());
        let words = [self.root, self.sequence, self.freelist, self.high, self.txid];
        for (place, word) in body[16..56].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let sum = fnv1a(&body[..56]);
        body[56..].copy_from_slice(&sum.to_le_bytes());
        page
    }

    /// The meta that counts: the valid one with the higher transaction.
    pub fn read(file: &dyn File) -> io::Result<Self> {
        let first = Self::read_at(file, 0)?;
        // Without the first page its size is not known: the second one lies at its own page size.
        let second = match first {
            Ok(meta) => Self::read_at(file, meta.page_size as u64)?,
            Err(_) => {
                let mut found = Err("no valid meta page at any page size");
                for size in (MIN_PAGE.ilog2()..=MAX_PAGE.ilog2()).map(|bits| 1u64 << bits) {
                    match Self::read_at(file, size)? {
                        Ok(meta) if meta.page_size as u64 == size => {
                            found = Ok(meta);
                            break;
                        }
                        _ => {}
                    }
                }
                found
            }
        };
        match (first, second) {
            (Ok(a), Ok(b)) if b.page_size == a.page_size && b.txid > a.txid => Ok(b),
            (Ok(a), _) => Ok(a),
            (Err(_), Ok(b)) => Ok(b),
            (Err(a), Err(b)) => {
                Err(damaged(0, &format!("no usable meta page: page 0: {a}; page 1: {b}")))
            }
        }
    }

    fn read_at(file: &dyn File, at: u64) -> io::Result<Result<Self, &'static str>> {
        let mut buf = [0; HEADER + LEN];
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], at + done as u64)? {
                0 => return Ok(Err("beyond the end of the file")),
                n => done += n,
            }
        }
        Ok(Self::parse(&buf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta {
        page_size: 4096,
        flags: 0,
        root: 3,
        sequence: 7,
        freelist: NO_FREELIST,
        high: 9,
        txid: 5,
    };

    #[test]
    fn comes_back_as_it_went() {
        assert_eq!(Meta::parse(&META.page(1)), Ok(META));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let page = META.page(0);
        for bit in 0..LEN * 8 {
            let mut bad = page.clone();
            bad[HEADER + bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_whatever_the_checksum() {
        for bad in [
            Meta { root: 9, ..META },
            Meta { root: 1, ..META },
            Meta { high: u64::MAX, ..META },
            Meta { high: 2, ..META },
            Meta { page_size: 4095, ..META },
            Meta { page_size: 0, ..META },
            Meta { freelist: 9, ..META },
            Meta { txid: u64::MAX, ..META },
        ] {
            let mut page = Meta { page_size: 4096, ..bad }.page(0);
            let body = &mut page[HEADER..HEADER + LEN];
            body[8..12].copy_from_slice(&(bad.page_size as u32).to_le_bytes());
            let sum = fnv1a(&body[..56]);
            body[56..].copy_from_slice(&sum.to_le_bytes());
            assert!(Meta::parse(&page).is_err(), "{bad:?}");
        }
    }
}
