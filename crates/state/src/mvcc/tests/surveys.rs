//! What a file says without an index, against the store that opens it: with room for one key at a time, for a few,
//! and for all.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use etch_disk::backend::Bucket;

use super::super::survey::{LiveKeys, ROOM, Survey};
use super::*;

const ROOMS: [usize; 5] = [1, 2, 3, 7, ROOM];

/// A few transactions by chance; now and then all keys go in one of them.
fn write(world: &mut World, chance: &mut Chance, keys: u64) {
    let mut batch = world.writer.begin();
    for _ in 0..chance.below(30) {
        batch.txn_begin();
        if chance.one_in(12) {
            batch.delete_range(&mut world.leases, &KeyRange::All);
        }
        for _ in 0..1 + chance.below(3) {
            let key = format!("k{}", chance.below(keys));
            if chance.one_in(3) {
                let range = KeyRange::Single(key.into());
                batch.delete_range(&mut world.leases, &range);
            } else {
                let lease = chance.below(5) as i64;
                batch.put(&mut world.leases, key.as_bytes(), b"v", lease);
            }
        }
        batch.txn_end();
    }
    batch.finish();
}

/// A compaction that is cut short, or that comes to its end.
fn compact(world: &mut World, chance: &mut Chance) {
    let (newest, compacted) = (world.store.revision(), world.store.compact_revision());
    let at = compacted.max(0) + 1 + chance.below((newest - compacted.max(0)) as u64) as i64;
    let mut batch = world.writer.begin();
    let _ = batch.compact(at);
    batch.finish();
    if chance.one_in(2) {
        world.compact_all(3);
    } else {
        for _ in 0..chance.below(12) {
            if world.writer.compact_step(2).unwrap() == Step::Waits {
                world.commit();
            }
        }
    }
}

/// Everything that a survey tells, against the opened store.
fn compare(world: &World, attached: &[(Bytes, i64)]) {
    let store = &world.store;
    let compacted = store.compact_revision();
    let told = |outcome: Result<HashKv, ReadError>| match outcome {
        Ok(hash) => Ok(hash),
        Err(ReadError::Request(error)) => Err(error),
        Err(ReadError::Io(error)) => panic!("{error}"),
    };
    let leases: BTreeSet<i64> = [1, 2].into();
    let mut lost: Vec<_> = attached.to_vec();
    lost.retain(|(_, lease)| !leases.contains(lease));
    for room in ROOMS {
        let survey = Survey::new(store.backend().snapshot(), room).unwrap();
        assert_eq!(survey.revision(), store.revision());
        for at in std::iter::once(0).chain(compacted.max(2) - 1..=store.revision() + 1) {
            let right = told(store.hash_kv(at));
            assert_eq!(told(survey.hash_kv(at)), right, "at {at} with room for {room}");
        }
        let mut live = LiveKeys::new(room);
        let see = |row: &super::super::survey::Row<'_>| {
            live.see(row);
            Ok(ControlFlow::Continue(()))
        };
        survey.rows(Revision::default(), see).unwrap();
        assert_eq!(survey.count(live).unwrap(), store.current_keys(), "with room for {room}");
        let mut found = Vec::new();
        let take = |row: &super::super::survey::Row<'_>| {
            found.push((Bytes::copy_from_slice(row.kv.key), row.kv.lease));
            Ok(())
        };
        survey.lost_leases(take).unwrap();
        found.sort();
        assert_eq!(found, lost, "with room for {room}");
    }
}

#[test]
fn surveys_agree_with_the_store_whatever_the_room() {
    let mut unfinished = 0;
    for seed in 1..24 {
        let (mut world, mut chance) = (World::new(), Chance(seed * 7_919));
        for lease in [1_i64, 2] {
            let id = lease.to_be_bytes();
            world.writer.pending_mut().put(Bucket::Lease, id, Bytes::new());
        }
        world.commit();
        for _ in 0..6 {
            write(&mut world, &mut chance, 3 + seed % 20);
            if world.store.revision() > 1 && chance.one_in(2) {
                compact(&mut world, &mut chance);
            }
            world.commit();
            let attached = world.reopen().unwrap();
            unfinished += u32::from(world.writer.is_compacting());
            compare(&world, &attached);
            world.leases.keys = attached.into_iter().map(|(k, v)| (k.to_vec(), v)).collect();
        }
    }
    assert!(unfinished > 7, "{unfinished} compactions were cut short");
}
