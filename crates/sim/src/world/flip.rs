//! One bit of a member's files that is not what was written: where it is, and which refusals to start it explains.
//! Not here: when one is flipped (`nemesis`).

use std::io;
use std::path::{Path, PathBuf};

use etch_disk::fs::mem::MemDisk;
use etch_disk::fs::{Disk as _, Open};

/// A flipped bit.
pub struct Flip {
    path: PathBuf,
    at: u64,
    was: u8,
    is: u8,
}

impl Flip {
    /// Flips a bit of the byte at `at`, durably.
    pub fn make(disk: &MemDisk, path: &Path, at: u64, bit: u32) -> io::Result<Self> {
        let was = byte(disk, path, at)?;
        let flip = Self { path: path.into(), at, was, is: was ^ (1 << bit) };
        flip.write(disk, flip.is)?;
        Ok(flip)
    }

    /// Whether the bit is still flipped: it may have been written over, or its file be gone.
    pub fn is_there(&self, disk: &MemDisk) -> bool {
        byte(disk, &self.path, self.at).is_ok_and(|byte| byte == self.is)
    }

    /// Whether it is for this that a member does not start: the refusal names its file, and the place of a record
    /// that may have it within.
    pub fn explains(&self, disk: &MemDisk, why: &str) -> bool {
        let Some((_, place)) = why.split_once(&*self.path.to_string_lossy()) else { return false };
        let place = place.strip_prefix(" is corrupt at byte ").and_then(|at| at.split_once(':'));
        let named = place.and_then(|(at, _)| at.parse::<u64>().ok());
        named.is_some_and(|at| at <= self.at) && self.is_there(disk)
    }

    /// Makes the byte what it was.
    pub fn undo(&self, disk: &MemDisk) -> io::Result<()> {
        self.write(disk, self.was)
    }

    fn write(&self, disk: &MemDisk, byte: u8) -> io::Result<()> {
        let file = disk.open(&self.path, Open::Write)?;
        file.write_at(&[byte], self.at)?;
        file.sync()
    }
}

fn byte(disk: &MemDisk, path: &Path, at: u64) -> io::Result<u8> {
    let mut byte = [0];
    match disk.open(path, Open::Read)?.read_at(&mut byte, at)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAL: &str = "/wal/0.wal";
    const REFUSAL: &str = "wal: /wal/0.wal is corrupt at byte 96: a record's checksum is wrong";

    fn flipped() -> (MemDisk, Flip) {
        let disk = MemDisk::new();
        disk.create_dir_all("/wal".as_ref()).expect("memory can be written");
        let file = disk.open(WAL.as_ref(), Open::Create).expect("memory can be written");
        file.write_at(&[7; 200], 0).expect("memory can be written");
        let flip = Flip::make(&disk, WAL.as_ref(), 100, 3).expect("the byte is there");
        (disk, flip)
    }

    #[test]
    fn a_flip_explains_the_refusal_that_names_it_and_no_other() {
        let (disk, flip) = flipped();
        assert!(flip.explains(&disk, REFUSAL));
        for other in [
            "wal: /wal/0.wal is corrupt at byte 104: a record's checksum is wrong",
            "wal: /wal/1.wal is corrupt at byte 96: a record's checksum is wrong",
            "wal: /wal/0.wal.broken: no storage space",
            "wal: snapshot at index 7, term 2 not found",
            "/snap/db: db page 2: keys out of order",
        ] {
            assert!(!flip.explains(&disk, other), "{other}");
        }
        flip.undo(&disk).expect("memory can be written");
        assert!(!flip.explains(&disk, REFUSAL), "once it is taken back");
    }

    /// Room behind the log's end is written over one day: what was flipped there is no excuse then, and must not
    /// be put back.
    #[test]
    fn a_flip_that_was_written_over_explains_nothing() {
        let (disk, flip) = flipped();
        let file = disk.open(WAL.as_ref(), Open::Write).expect("it is there");
        file.write_at(&[1; 100], 50).expect("memory can be written");
        assert!(!flip.explains(&disk, REFUSAL) && !flip.is_there(&disk));
        disk.remove(WAL.as_ref()).expect("it is there");
        assert!(!flip.is_there(&disk));
    }
}
