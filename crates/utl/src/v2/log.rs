//! A log of etcd 2 or 3, from a snapshot on. Before 3.0 records were not filled up to a multiple of eight bytes,
//! which etch's own reader (`etch_disk::wal`) takes for damage; this one knows both forms. Not here: what the
//! entries ask for (`request`).

use std::fs;
use std::path::{Path, PathBuf};

use crc32c::crc32c_append;
use etch_api::pb::raftpb::Entry;
use etch_api::pb::walpb;
use etch_cli::go;
use prost::Message;

/// Bytes of a frame's header.
const HEADER: usize = 8;
/// The least that a device writes as a whole.
const SECTOR: usize = 512;

/// Kinds of records.
const ENTRY: u64 = 2;
const CRC: u64 = 4;
const SNAPSHOT: u64 = 5;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    kind: u64,
    #[prost(uint32, tag = "2")]
    crc: u32,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// One step of reading.
enum Step {
    Record(Record, usize),
    End,
    Torn,
    Damaged(&'static str),
}

/// The entries behind a snapshot, `(index, term)`; all of them from `(0, 0)` on.
///
/// # Errors
/// The log is damaged, or does not know of the snapshot.
pub fn entries(dir: &Path, from: (u64, u64)) -> Result<Vec<Entry>, String> {
    let mut found = Found { from, knows: false, entries: Vec::new() };
    let segments = segments(dir, from.0)?;
    let mut crc = None;
    for (at, path) in segments.iter().enumerate() {
        let bytes = fs::read(path).map_err(|e| go::io_error("open", path, &e))?;
        read(&bytes, &mut crc, at + 1 == segments.len(), &mut |record| found.see(record))
            .map_err(|why| format!("{}: {why}", path.display()))?;
    }
    if found.knows { Ok(found.entries) } else { Err("wal: snapshot not found".to_owned()) }
}

/// What was read so far.
struct Found {
    from: (u64, u64),
    /// Whether the log has a note of the snapshot.
    knows: bool,
    entries: Vec<Entry>,
}

impl Found {
    fn see(&mut self, record: Record) -> Result<(), String> {
        match record.kind {
            ENTRY => {
                let entry = Entry::decode(&record.data[..]).map_err(|e| e.to_string())?;
                let Some(at) = entry.index().checked_sub(self.from.0 + 1) else { return Ok(()) };
                // An entry takes the place of what a former leader had put there, and of all behind it.
                match usize::try_from(at) {
                    Ok(at) if at <= self.entries.len() => self.entries.truncate(at),
                    _ => return Err(format!("wal: entry {} comes too early", entry.index())),
                }
                self.entries.push(entry);
            }
            SNAPSHOT => {
                let note = walpb::Snapshot::decode(&record.data[..]).map_err(|e| e.to_string())?;
                if note.index() == self.from.0 {
                    if note.term() != self.from.1 {
                        return Err("wal: snapshot mismatch".to_owned());
                    }
                    self.knows = true;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The segments in order, from the last one that begins at or before an index.
fn segments(dir: &Path, index: u64) -> Result<Vec<PathBuf>, String> {
    let names = fs::read_dir(dir).map_err(|e| go::io_error("open", dir, &e))?;
    let mut found: Vec<(u64, u64, PathBuf)> = names
        .flatten()
        .filter_map(|name| {
            let path = name.path();
            let (seq, index) = path.file_name()?.to_str()?.strip_suffix(".wal")?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((number(seq)?, number(index)?, path))
        })
        .collect();
    found.sort();
    let first = found.iter().rposition(|(_, begins, _)| *begins <= index);
    let first = first.ok_or("wal: file not found")?;
    let found = found.split_off(first);
    if found.windows(2).any(|pair| pair[0].0 + 1 != pair[1].0) {
        return Err("wal: file sequence numbers do not increase continuously".to_owned());
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Reads a segment. `crc` is the checksum of the log so far; the first segment that is read states it itself.
fn read(
    bytes: &[u8],
    crc: &mut Option<u32>,
    is_last: bool,
    see: &mut dyn FnMut(Record) -> Result<(), String>,
) -> Result<(), String> {
    let mut at = 0;
    loop {
        match step(bytes, at, crc) {
            Step::Record(record, next) => {
                see(record)?;
                at = next;
            }
            Step::End => return Ok(()),
            // The machine stopped while this was written: nobody was told that it is there.
            Step::Torn if is_last => return Ok(()),
            Step::Torn => return Err(format!("byte {at}: a record is cut off")),
            Step::Damaged(why) => return Err(format!("byte {at}: {why}")),
        }
    }
}

fn step(bytes: &[u8], at: usize, crc: &mut Option<u32>) -> Step {
    let rest = &bytes[at.min(bytes.len())..];
    let Some((header, body)) = rest.split_first_chunk::<HEADER>() else {
        return if rest.is_empty() { Step::End } else { Step::Torn };
    };
    let header = u64::from_le_bytes(*header);
    if header == 0 {
        return Step::End;
    }
    let pad = if header >> 63 == 1 { (header >> 56 & 7) as usize } else { 0 };
    let Ok(len) = usize::try_from(header & (u64::MAX >> 8)) else { return Step::Torn };
    if len.checked_add(pad).is_none_or(|frame| frame > body.len()) {
        return Step::Torn;
    }
    let content = &body[..len];
    let wrong = |why| match misses_sector(content, at + HEADER) {
        true => Step::Torn,
        false => Step::Damaged(why),
    };
    let Ok(record) = Record::decode(content) else { return wrong("this is no record") };
    if record.kind == CRC {
        if crc.is_some_and(|crc| crc != record.crc) {
            return wrong("wal: crc mismatch");
        }
        *crc = Some(record.crc);
    } else {
        let sum = crc32c_append(crc.unwrap_or_default(), &record.data);
        if sum != record.crc {
            return wrong("wal: crc mismatch");
        }
        *crc = Some(sum);
    }
    Step::Record(record, at + HEADER + len + pad)
}

/// Whether some sector holds only zeros where a record ought to be: it was never written.
fn misses_sector(record: &[u8], offset: usize) -> bool {
    let (head, tail) = record.split_at((SECTOR - offset % SECTOR).min(record.len()));
    let is_zero = |part: &[u8]| !part.is_empty() && part.iter().all(|b| *b == 0);
    is_zero(head) || tail.chunks(SECTOR).any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u64, crc: &mut u32, data: Vec<u8>) -> Vec<u8> {
        *crc = crc32c_append(*crc, &data);
        Record { kind, crc: *crc, data }.encode_to_vec()
    }

    /// A log of an entry each with these data, with or without filling.
    fn log(is_filled: bool, data: &[&str]) -> Vec<u8> {
        let mut crc = 0;
        let mut records = vec![record(CRC, &mut crc, Vec::new())];
        for (text, index) in data.iter().zip(1..) {
            let entry = Entry::normal(1, index, (*text).to_owned().into());
            records.push(record(ENTRY, &mut crc, entry.encode_to_vec()));
        }
        let mut bytes = Vec::new();
        for record in records {
            let pad = if is_filled { record.len().wrapping_neg() % 8 } else { 0 };
            let mark = if pad > 0 { (0x80 | pad as u64) << 56 } else { 0 };
            bytes.extend_from_slice(&(record.len() as u64 | mark).to_le_bytes());
            bytes.extend_from_slice(&record);
            bytes.extend_from_slice(&[0; 8][..pad]);
        }
        bytes
    }

    fn read_all(bytes: &[u8], is_last: bool) -> Result<Vec<String>, String> {
        let mut found = Found { from: (0, 0), knows: true, entries: Vec::new() };
        read(bytes, &mut None, is_last, &mut |record| found.see(record))?;
        let text = |e: Entry| String::from_utf8(e.data.unwrap_or_default().to_vec());
        Ok(found.entries.into_iter().map(|e| text(e).expect("text")).collect())
    }

    #[test]
    fn both_forms_are_read_up_to_zeros_or_the_end() {
        for is_filled in [true, false] {
            let mut bytes = log(is_filled, &["a", "bcd"]);
            assert_eq!(read_all(&bytes, false), Ok(vec!["a".into(), "bcd".into()]));
            bytes.extend_from_slice(&[0; 100]);
            assert_eq!(read_all(&bytes, false).map(|e| e.len()), Ok(2));
        }
    }

    #[test]
    fn a_torn_end_is_left_out_and_damage_is_an_error() {
        let bytes = log(false, &["first", "second"]);
        let cut = &bytes[..bytes.len() - 3];
        assert_eq!(read_all(cut, true), Ok(vec!["first".into()]));
        assert!(read_all(cut, false).is_err());
        let mut flipped = bytes.clone();
        let at = flipped.len() - 2;
        flipped[at] ^= 1;
        let why = read_all(&flipped, true).expect_err("damaged");
        assert!(why.ends_with(": wal: crc mismatch"), "{why}");
    }
}
