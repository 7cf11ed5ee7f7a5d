//! The log: a segment of any bytes, and records of any content in good frames. Not here: several segments.

use std::path::Path;
use std::sync::Arc;

use etch_api::pb::raftpb::{ConfState, Entry, HardState};
use etch_api::pb::walpb;
use etch_disk::fs::{Disk, MemDisk, Open};
use etch_disk::wal::{self, Batch, Options, Wal};
use prost::Message;

use crate::{Bits, Target};

/// A segment of any bytes.
pub const TARGET: Target =
    Target { name: "wal", run: segment, seeds: || vec![good(), cut()], memory: 8 << 20 };

/// Records of any kind and content, framed and with the right checksum.
pub const RECORDS: Target =
    Target { name: "wal_records", run: records, seeds: || vec![framed()], memory: 8 << 20 };

const OPTIONS: Options = Options { segment_bytes: 8192, fill: 0 };
const DIR: &str = "/wal";
const NAME: &str = "/wal/0000000000000000-0000000000000000.wal";

fn open_all(bytes: &[u8]) {
    let disk = MemDisk::new();
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).expect("memory");
    let file = disk.open(Path::new(NAME), Open::Create).expect("memory");
    file.write_at(bytes, 0).expect("memory");
    drop(file);
    let _ = wal::records(&disk, dir, 0, |_, _, _| {});
    let notes = wal::valid_snapshots(&disk, dir).unwrap_or_default();
    for at in notes.iter().chain([&walpb::Snapshot::of(0, 0, None)]) {
        let looked = wal::read(&disk, dir, at);
        let opened = Wal::open(Arc::new(disk.clone()), dir, at, OPTIONS);
        assert_eq!(looked.is_ok(), opened.is_ok(), "looking and opening agree");
        let (Ok((mut wal, found)), Ok(looked)) = (opened, looked) else { continue };
        assert_eq!(found.entries, looked.entries);
        goes_on(&disk, &mut wal, at, found.last_index);
        return;
    }
}

/// What opens can be written on, and what is written is there.
fn goes_on(disk: &MemDisk, wal: &mut Wal, at: &walpb::Snapshot, index: u64) {
    if index == u64::MAX {
        return;
    }
    let entry = Entry::normal(9, index + 1, bytes::Bytes::from_static(b"more"));
    let batch = Batch { entries: vec![entry.clone()], hard_state: None };
    wal.append(&batch).and_then(|()| wal.sync()).expect("memory");
    let found = wal::read(disk, Path::new(DIR), at).expect("it was good and is written on");
    assert_eq!(found.entries.last(), Some(&entry));
}

fn segment(input: &[u8]) {
    open_all(input);
}

fn records(input: &[u8]) {
    let (mut bits, mut crc, mut bytes) = (Bits(input), 0, Vec::new());
    frame(&mut bytes, 4, 0, b"");
    frame_data(&mut bytes, &mut crc, 1, b"");
    frame_data(&mut bytes, &mut crc, 5, &walpb::Snapshot::of(0, 0, None).encode_to_vec());
    while !bits.is_empty() {
        let kind = 1 + bits.below(6) as i64;
        let data = bits.piece();
        if kind == 4 {
            frame(&mut bytes, 4, crc, data)
        } else {
            frame_data(&mut bytes, &mut crc, kind, data)
        }
    }
    open_all(&bytes);
}

fn frame_data(bytes: &mut Vec<u8>, crc: &mut u32, kind: i64, data: &[u8]) {
    *crc = crc32c::crc32c_append(*crc, data);
    frame(bytes, kind, *crc, data);
}

fn frame(bytes: &mut Vec<u8>, kind: i64, crc: u32, data: &[u8]) {
    let record = walpb::Record::of(kind, crc, data.to_vec().into()).encode_to_vec();
    let pad = record.len().next_multiple_of(8) - record.len();
    let marked = if pad > 0 { (0x80 | pad as u64) << 56 } else { 0 };
    bytes.extend((record.len() as u64 | marked).to_le_bytes());
    bytes.extend(record);
    bytes.resize(bytes.len() + pad, 0);
}

fn entries() -> Vec<Entry> {
    (1..6).map(|i| Entry::normal(1, i, vec![i as u8; 100 * i as usize].into())).collect()
}

/// A segment as we write it.
fn good() -> Vec<u8> {
    let disk = MemDisk::new();
    let mut wal =
        Wal::create(Arc::new(disk.clone()), Path::new(DIR), b"meta", OPTIONS).expect("memory");
    let batch = Batch { entries: entries(), hard_state: Some(HardState::of(1, 7, 5)) };
    wal.append(&batch).and_then(|()| wal.sync()).expect("memory");
    wal.save_snapshot(3, 1, &ConfState::simple(vec![7], vec![8])).expect("memory");
    let len = wal.tail_bytes() as usize;
    let file = disk.open(Path::new(NAME), Open::Read).expect("memory");
    let mut bytes = vec![0; len + 64];
    file.read_at(&mut bytes, 0).expect("memory");
    bytes
}

fn cut() -> Vec<u8> {
    let mut bytes = good();
    bytes.truncate(700);
    bytes
}

fn framed() -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |kind: u8, data: Vec<u8>| {
        out.push(kind - 1);
        Bits::put(&mut out, &data);
    };
    for entry in entries() {
        put(2, entry.encode_to_vec());
    }
    put(3, HardState::of(1, 7, 5).encode_to_vec());
    put(5, walpb::Snapshot::of(3, 1, Some(ConfState::simple(vec![7], vec![8]))).encode_to_vec());
    put(4, Vec::new());
    put(1, Vec::new());
    out
}
