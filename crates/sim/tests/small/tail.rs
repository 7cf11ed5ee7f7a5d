//! The tail of the log: cut at each byte, and with every subset of its sectors that are not flushed. Over twenty
//! workloads. Not here: damage that no crash leaves.

use etch_disk::fs::mem::{Crash, MemDisk};
use etch_disk::fs::{Disk, Open};
use etch_disk::wal;

use crate::check::Tally;
use crate::model::Request;
use crate::world::{Known, SEGMENT, World, wal_dir};

/// How many workloads there are.
pub const WORKLOADS: usize = 20;
/// Sectors not flushed, at the most: 4,096 subsets.
const UNITS: usize = 12;
/// What the log has around a request, about.
const FRAME: usize = 70;

/// The lengths of a workload's values. Records end before, at and behind the borders of sectors.
const SIZES: [&[usize]; WORKLOADS] = [
    &[0, 1, 2, 3],
    &[10, 20, 30],
    &[400],
    &[430, 430],
    &[460, 470, 480],
    &[500, 10],
    &[600, 600, 600],
    &[1000],
    &[10, 1500, 10],
    &[1500, 10, 1500],
    &[2500],
    &[3000, 1],
    &[484, 484, 484, 100],
    &[3, 3, 3, 2600],
    &[900, 800, 700],
    &[1024, 1024],
    &[2048, 100, 100],
    &[5, 5, 5, 5, 5, 5],
    &[350, 351, 352, 353],
    &[1400, 1400],
];

/// The requests of a workload: puts of its lengths, and other requests between them.
fn requests(world: &World, number: usize) -> Vec<Request> {
    let mut requests = Vec::new();
    for (at, size) in SIZES[number].iter().enumerate() {
        requests.push(Request::Put { key: "a", value: vec![at as u8 + 1; *size], lease: 0 });
        match (number + at) % 8 {
            0 => requests.push(Request::Delete("b")),
            1 => requests.push(Request::Txn(["txn", "b", "c"])),
            2 => requests.push(Request::Revoke(5)),
            3 => requests.push(Request::Compact(world.model().revision)),
            4 => requests.push(Request::Revoke(99)),
            _ => {}
        }
    }
    requests
}

/// A member in the midst of its life, at the beginning of a segment, with no commit and no raft snapshot due.
pub fn begin() -> World {
    let mut world = World::new();
    world.save_snapshot();
    world.put("fill", vec![1; SEGMENT as usize]);
    world.commit();
    world
}

/// More puts of a workload's lengths, up to about so many sectors.
fn more(number: usize, requests: &[Request], sectors: usize) -> Vec<Request> {
    let mut bytes: usize = requests.iter().map(|r| r.encode().1.len() + FRAME).sum();
    let mut more = Vec::new();
    for size in SIZES[number].iter().cycle().map(|size| size + 100) {
        bytes += size + FRAME;
        if bytes > sectors * 512 {
            break;
        }
        more.push(Request::Put { key: "more", value: vec![9; size], lease: 0 });
    }
    more
}

/// The power fails with the whole workload written and not flushed: each sector came through or did not.
pub fn subsets(number: usize, tally: &mut Tally) -> Result<u64, String> {
    let first = requests(&begin(), number);
    let mut more = more(number, &first, UNITS - number % 4);
    let (world, units) = loop {
        let mut world = begin();
        // What is more is another write of the log.
        for part in [&first, &more] {
            part.iter().for_each(|request| world.propose(request.clone()));
            world.turn();
            world.write_log();
        }
        let units = world.disk.disk.unsynced();
        if units <= UNITS {
            break (world, units);
        }
        more.pop().ok_or(format!("workload {number}: {units} units"))?;
    };
    let (disk, known) = (&world.disk.disk, world.known());
    if units < 3 || known.models.len() != first.len() + more.len() + 1 {
        return Err(format!("workload {number}: {units} units, {} requests", known.models.len()));
    }
    for subset in 0..1u64 << units {
        tally
            .case(&disk.crash(Crash::Subset(subset)), &known)
            .map_err(|e| format!("workload {number}, subset {subset:b} of {units}: {e}"))?;
    }
    Ok(1 << units)
}

/// The file ends at each byte of the workload: all requests that lie before are there.
pub fn cuts(number: usize, tally: &mut Tally) -> Result<u64, String> {
    let mut world = begin();
    // Where each request's write ends.
    let (seq, mut ends) = (world.wal.tail_seq(), vec![world.wal.tail_bytes()]);
    for request in requests(&world, number) {
        world.ask(request);
        ends.push(world.wal.tail_bytes());
    }
    if world.wal.tail_seq() != seq {
        return Err(format!("workload {number} does not lie in one segment"));
    }
    let end = ends[ends.len() - 1];
    let name = wal::segments(&world.disk.disk, &wal_dir()).map_err(|e| e.to_string())?;
    let path = &name[name.len() - 1].path;
    let left = |change: &dyn Fn(&dyn etch_disk::fs::File)| -> MemDisk {
        let disk = world.disk.disk.crash(Crash::KeepAll);
        change(disk.open(path, Open::Write).expect("it is there").as_ref());
        disk
    };
    let known = |whole: u64| -> Known {
        let answered = ends.iter().rposition(|end| *end <= whole).unwrap_or(0);
        let models = world.models[answered..].to_vec();
        Known { revision: models[0].revision, models }
    };
    for cut in ends[0]..=end {
        let disk = left(&|file| file.set_len(cut).expect("there is room"));
        let told = |e| format!("workload {number}, cut at {cut}: {e}");
        tally.case(&disk, &known(cut)).map_err(told)?;
    }
    for sector in ends[0].div_ceil(512)..end.div_ceil(512) {
        let at = sector * 512;
        let told = |e| format!("workload {number}, zeros at {at}: {e}");
        let one = left(&|file| file.write_at(&[0; 512], at).expect("there is room"));
        tally.case(&one, &known(at)).map_err(told)?;
        let rest = vec![0; (SEGMENT - at) as usize];
        let all = left(&|file| file.write_at(&rest, at).expect("there is room"));
        tally.case(&all, &known(at)).map_err(told)?;
    }
    Ok(end - ends[0])
}
