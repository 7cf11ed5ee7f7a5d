//! The server's log, read back from its files: what truly happened, in the order in which it did. Not here:
//! the format (`etch_disk::wal`).

use std::path::Path;

use etch_api::pb::raftpb::EntryType;
use etch_api::pb::walpb;
use etch_disk::fs::RealDisk;
use etch_disk::wal;
use etch_sim::history::LogEntry;

/// All entries from the first on. The server has ended in order, so that all of them are committed and
/// nothing is torn.
pub fn read(data_dir: &Path) -> Result<Vec<LogEntry>, String> {
    let dir = data_dir.join("member").join("wal");
    let recovered = wal::read(&RealDisk::new(), &dir, &walpb::Snapshot::of(0, 0, None))
        .map_err(|e| format!("the log cannot be read: {e}"))?;
    if let Some(torn) = recovered.torn {
        return Err(format!("the log has a torn tail after an orderly end: {torn:?}"));
    }
    let mut expected = 1;
    let mut entries = Vec::new();
    for entry in recovered.entries {
        if entry.index() != expected {
            return Err(format!("the log goes from {} to {}", expected - 1, entry.index()));
        }
        expected += 1;
        if entry.r#type() != EntryType::EntryNormal {
            continue;
        }
        let data = entry.data.unwrap_or_default();
        entries.push(LogEntry {
            index: expected - 1,
            term: entry.term.unwrap_or_default(),
            applied_ns: None,
            data,
        });
    }
    Ok(entries)
}
