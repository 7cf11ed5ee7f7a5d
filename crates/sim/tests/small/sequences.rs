//! Every sequence of at most three storage operations, with a crash at each flush: most faults of storage show in
//! that few. Not here: the operations of several members.

use etch_disk::fs::mem::Crash;

use crate::check::Tally;
use crate::crash::{Watched, Ways};
use crate::model::Request;
use crate::world::{Known, SEGMENT, World};

/// A storage operation: a request of a client, or something that the member or its operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put,
    /// Spans sectors of the log.
    Large,
    /// Fills a segment of the log, which goes on to the next.
    Fill,
    Delete,
    Txn,
    Grant,
    Revoke,
    /// Up to the newest revision; its steps go on beside what comes after.
    Compact,
    /// From then on puts are refused.
    Alarm,
    /// Requests that are refused.
    Refused,
    /// A put whose entry is written and not flushed when the next operation begins.
    Late,
    /// Of the B+tree.
    Commit,
    /// A raft snapshot, with its note in the log; old segments go.
    Snapshot,
    Defragment,
    /// The process is killed and starts again.
    Restart,
    /// The power fails while a large put is written, and the member starts again.
    PowerLoss,
}

pub const OPS: [Op; 16] = [
    Op::Put,
    Op::Large,
    Op::Fill,
    Op::Delete,
    Op::Txn,
    Op::Grant,
    Op::Revoke,
    Op::Compact,
    Op::Alarm,
    Op::Refused,
    Op::Late,
    Op::Commit,
    Op::Snapshot,
    Op::Defragment,
    Op::Restart,
    Op::PowerLoss,
];

fn put(key: &'static str, byte: u8, len: usize) -> Request {
    Request::Put { key, value: vec![byte; len], lease: 0 }
}

/// Does one operation. `at` tells one from the other.
pub fn run(mut world: World, op: Op, at: u8) -> Result<World, String> {
    let revision = world.model().revision;
    match op {
        Op::Put => world.ask(put("a", at, 10)),
        Op::Large => world.ask(put("b", at, 1100)),
        Op::Fill => world.ask(put("fill", at, SEGMENT as usize)),
        Op::Delete => world.ask(Request::Delete("c")),
        Op::Txn => world.ask(Request::Txn(["a", "txn", "b"])),
        Op::Grant => {
            let id = 100 + i64::from(at);
            world.ask(Request::Grant(id));
            world.ask(Request::Put { key: "c", value: vec![at; 3], lease: id });
        }
        Op::Revoke => world.ask(Request::Revoke(5)),
        Op::Compact => world.ask(Request::Compact(revision)),
        Op::Alarm => world.ask(Request::Alarm(true)),
        Op::Refused => {
            world.propose(Request::Put { key: "a", value: vec![at], lease: 99 });
            world.propose(Request::Revoke(99));
            world.propose(Request::Compact(revision + 50));
            world.rest();
        }
        Op::Late => {
            world.propose(put("late", at, 600));
            world.turn();
            world.write_log();
        }
        Op::Commit => world.commit(),
        Op::Snapshot => world.save_snapshot(),
        Op::Defragment => drop(world.defragment()),
        Op::Restart => {
            let disk = world.disk.disk.crash(Crash::KeepAll);
            return world.restart(disk);
        }
        Op::PowerLoss => {
            world.propose(put("b", at, 1500));
            world.turn();
            world.write_log();
            let disk = world.disk.disk.crash(Crash::Seed(u64::from(at)));
            return world.restart(disk);
        }
    }
    Ok(world)
}

/// Does a sequence of operations, the last one with a crash at each of its flushes: a crash in an earlier one is
/// the case of a shorter sequence.
fn sequence(base: &World, ops: &[Op], tally: &mut Tally) -> Result<(), String> {
    let disk = Watched::new(base.disk.disk.crash(Crash::KeepAll));
    let mut world = World::open(disk, &Known::all(base.model()))?;
    let (last, before) = ops.split_last().expect("a sequence has an operation");
    for (at, op) in before.iter().enumerate() {
        world = run(world, *op, at as u8)?;
    }
    world.disk.start(if before.len() < 2 { Ways::Many } else { Ways::Few });
    let mut world = run(world, *last, before.len() as u8)?;
    world.disk.crash();
    for (known, disk) in world.crashes() {
        tally.case(&disk, &known)?;
    }
    Ok(())
}

/// Every sequence of up to `longest` operations.
pub fn all(longest: usize, tally: &mut Tally) -> Result<u64, String> {
    let base = World::new();
    let (mut ops, mut sequences) = (vec![0], 0);
    // Counts in digits of operations: 0, 1, .. 0 0, 0 1, ..
    while ops.len() <= longest {
        let named: Vec<Op> = ops.iter().map(|i| OPS[*i]).collect();
        sequence(&base, &named, tally).map_err(|e| format!("{named:?}: {e}"))?;
        sequences += 1;
        match ops.iter().rposition(|i| i + 1 < OPS.len()) {
            Some(at) => {
                ops[at] += 1;
                ops[at + 1..].fill(0);
            }
            None => ops = vec![0; ops.len() + 1],
        }
    }
    Ok(sequences)
}
