//! What the bytes of a segment say: record after record, and the rule that tells a torn tail from corruption.
//!
//! The rule stands in full in `docs/format.md`. In short: a device writes sectors of 512 bytes as a whole, in
//! any order, and a sector that was not written reads as zeros, because a segment is zero ahead of its tail.
//! So a tear shows as zeros from a sector's border on, and damage that does not look so is not a tear. Only
//! the last segment can be torn, for it alone holds bytes that nobody was told are durable.
//!
//! Not here: opening files, and what the records mean.

use super::RecordKind;
use super::record::{self, FRAME, Raw, SECTOR};
use crate::mutants::{self, Mutant};

const PAST_THE_END: &str = "a record goes on past the end of the file";

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Sequence number of the segment.
    pub seq: u64,
    /// Offset of the frame in it.
    pub offset: u64,
}

/// What lies at some offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A good record; the next one starts at `next`.
    Record { kind: RecordKind, data: &'a [u8], crc: u32, next: usize },
    /// The end of what was written. Bytes that were never acknowledged may follow.
    End,
    /// A record that was being written when the machine stopped.
    Torn(&'static str),
    /// A record that was whole once.
    Corrupt(&'static str),
}

/// Reads the record at `at`, a multiple of eight. `crc` is the checksum so far; `None` before the first
/// record that is read, which must then be a crc record. `last` says that this is the last segment.
pub fn step(bytes: &[u8], at: usize, crc: Option<u32>, last: bool) -> Step<'_> {
    let rest = &bytes[at..];
    let Some((header, body)) = rest.split_first_chunk::<FRAME>() else {
        return if is_zero(rest) { Step::End } else { torn(last, "a frame header is cut off") };
    };
    if *header == [0; FRAME] {
        // Header and body in one sector: they are written together or not at all.
        let apart = at % SECTOR == SECTOR - FRAME;
        return match whole(body, crc) {
            Some(_) if !apart => Step::Corrupt("a frame header is gone"),
            _ => Step::End,
        };
    }
    let Some((len, pad)) = record::frame(u64::from_le_bytes(*header)) else {
        return match is_zero(body) {
            true => torn(last, "a frame header is cut off"),
            false => Step::Corrupt("not a frame header"),
        };
    };
    if let Some(found) = body.get(..len + pad).and_then(|b| good(&b[..len], crc)) {
        return found.into_step(at + FRAME + len + pad);
    }
    // A header lies whole in one sector. Where a whole record follows it that is of another length, it is
    // the header that is wrong, and no tear makes it so.
    if whole(body, crc).is_some_and(|raw| raw.len != len) {
        return Step::Corrupt("a frame header states a wrong length");
    }
    match body.get(..len) {
        None => torn(last && !mutants::on(Mutant::I14114), PAST_THE_END),
        Some(_) if body.len() < len + pad => torn(last, PAST_THE_END),
        Some(record) if misses_sector(record, at + FRAME) => {
            if mutants::on(Mutant::I6515)
                && let Some(raw) = record::parse(record)
            {
                return Good { crc: raw.crc, raw }.into_step(at + FRAME + len + pad);
            }
            torn(last && !mutants::on(Mutant::I6378), "a sector of a record is missing")
        }
        Some(_) => Step::Corrupt("a record's checksum is wrong"),
    }
}

fn torn(last: bool, what: &'static str) -> Step<'static> {
    if last { Step::Torn(what) } else { Step::Corrupt(what) }
}

/// A record with its checksum verified.
struct Good<'a> {
    raw: Raw<'a>,
    crc: u32,
}

impl<'a> Good<'a> {
    fn into_step(self, next: usize) -> Step<'a> {
        let kind = match self.raw.kind {
            record::METADATA => RecordKind::Metadata,
            record::ENTRY => RecordKind::Entry,
            record::STATE => RecordKind::State,
            record::CRC => RecordKind::Crc,
            _ => RecordKind::Snapshot,
        };
        Step::Record { kind, data: self.raw.data, crc: self.crc, next }
    }
}

/// The record that fills `bytes`, if it is good.
fn good(bytes: &[u8], crc: Option<u32>) -> Option<Good<'_>> {
    let raw = whole(bytes, crc)?;
    (raw.len == bytes.len()).then_some(Good { crc: raw.crc, raw })
}

/// The good record at the start of `bytes`, whatever its frame says.
fn whole(bytes: &[u8], crc: Option<u32>) -> Option<Raw<'_>> {
    let raw = record::parse(bytes)?;
    match crc {
        // A crc record in the midst of a log states what the log already has.
        Some(crc) if raw.kind == record::CRC && raw.crc != crc => None,
        Some(crc) => record::verify(&raw, crc).map(|_| raw),
        None => (raw.kind == record::CRC).then_some(raw),
    }
}

/// True if some sector holds nothing of a record that ought to have bytes in it.
fn misses_sector(record: &[u8], offset: usize) -> bool {
    let first = (SECTOR - offset % SECTOR).min(record.len());
    let (head, tail) = record.split_at(first);
    // A record that starts right behind a border has no part in the sector before it.
    (!head.is_empty() && is_zero(head)) || tail.chunks(SECTOR).any(is_zero)
}

/// True if there are only zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    // In blocks, which compare as words: this runs over whole segments.
    let mut blocks = bytes.chunks_exact(SECTOR);
    blocks.all(|b| b == [0; SECTOR]) && blocks.remainder().iter().all(|b| *b == 0)
}

/// Where the last byte that is not zero ends.
pub fn written_end(bytes: &[u8]) -> usize {
    let mut end = bytes.len();
    while end > 0 {
        let start = (end - 1) / SECTOR * SECTOR;
        let block = &bytes[start..end];
        if !is_zero(block) {
            return start + block.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        }
        end = start;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use etch_api::pb::raftpb::Entry;

    /// A log of a crc record and entries with these data; the bytes, and where each record starts.
    fn log(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut buf, mut crc, mut starts) = (Vec::new(), 0, vec![0]);
        record::put_crc(&mut buf, crc);
        for (i, size) in sizes.iter().enumerate() {
            starts.push(buf.len());
            let data = Bytes::from(vec![i as u8 + 1; *size]);
            record::put_entry(&mut buf, &mut crc, &Entry::normal(1, i as u64 + 1, data));
        }
        (buf, starts)
    }

    /// Reads to the end: how many records, where it ended, and how.
    fn read(bytes: &[u8], last: bool) -> (usize, usize, Step<'_>) {
        let (mut at, mut crc, mut n) = (0, None, 0);
        loop {
            match step(bytes, at, crc, last) {
                Step::Record { next, crc: c, .. } => (at, crc, n) = (next, Some(c), n + 1),
                end => return (n, at, end),
            }
        }
    }

    #[test]
    fn a_missing_sector_is_a_tear_in_the_last_segment_alone() {
        let (mut bytes, starts) = log(&[100, 1500, 100]);
        bytes.resize(4096, 0);
        bytes[512..1024].fill(0);
        assert!(matches!(read(&bytes, true), (2, at, Step::Torn(_)) if at == starts[2]));
        assert!(matches!(read(&bytes, false), (2, at, Step::Corrupt(_)) if at == starts[2]));
        // The sector with the record's head: the log just ends there, whatever comes after.
        let (mut bytes, starts) = log(&[600, 600]);
        bytes.resize(4096, 0);
        bytes[starts[2]..1024].fill(0);
        assert_eq!(read(&bytes, true), (2, starts[2], Step::End));
    }

    #[test]
    fn a_header_that_went_alone_is_corruption() {
        let (mut bytes, starts) = log(&[100, 100]);
        bytes.resize(1024, 0);
        let good = bytes.clone();
        bytes[starts[1]..starts[1] + 8].fill(0);
        assert_eq!(read(&bytes, true), (1, starts[1], Step::Corrupt("a frame header is gone")));
        bytes.copy_from_slice(&good);
        bytes[starts[1] + 3] = 1;
        let wrong = Step::Corrupt("a frame header states a wrong length");
        assert_eq!(read(&bytes, true), (1, starts[1], wrong));
    }

    #[test]
    fn a_header_in_its_sector_and_the_record_in_the_next() {
        // The crc record takes 16 bytes; make the entry end where the next header is the last of its sector.
        let size = (0..512).find(|n| log(&[*n, 50]).1[2] == 504).unwrap();
        let (mut bytes, starts) = log(&[size, 50]);
        bytes.resize(2048, 0);
        bytes[504..512].fill(0);
        assert_eq!(
            read(&bytes, true),
            (2, starts[2], Step::End),
            "only the later sector was written"
        );
        let (mut bytes, _) = log(&[size, 50]);
        bytes[512..].fill(0);
        assert!(matches!(read(&bytes, true), (2, 504, Step::Torn(_))), "only the earlier one was");
    }

    #[test]
    fn where_writing_ended() {
        for n in [0, 1, 511, 512, 513, 1300] {
            let mut bytes = vec![7; n];
            bytes.resize(2000, 0);
            assert_eq!(written_end(&bytes), n);
            assert_eq!(is_zero(&bytes), n == 0);
        }
    }
}
