//! Readers that stop in the middle of an answer: the file does not grow on their account, and what they get
//! in the end is what they asked for.

use super::*;

const KEYS: u64 = 200;

fn overwrite(world: &mut World, round: u64) {
    let mut batch = world.writer.begin();
    for key in 0..KEYS {
        batch.txn_begin();
        let (key, value) = (format!("{key:03}"), format!("{round}-{key}-").repeat(100));
        batch.put(&mut world.leases, key.as_bytes(), value.as_bytes(), 0);
        batch.txn_end();
    }
    batch.finish();
    world.commit();
}

fn everything() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

/// Overwrites all keys many times, with a compaction each time, while somebody has read a little of a range.
/// How large the file is then; and the answer must be whole.
fn grown(let_go: bool) -> u64 {
    let mut world = World::new();
    overwrite(&mut world, 0);
    let expected = world.store.range(&everything()).unwrap().into_bytes().unwrap();
    let mut reply = world.store.range(&everything()).unwrap();
    let mut out = BytesMut::new();
    reply.fill(&mut out, 1000).unwrap();
    for round in 1..60 {
        overwrite(&mut world, round);
        let at = world.store.revision();
        let mut batch = world.writer.begin();
        batch.compact(at).unwrap();
        batch.finish();
        world.compact_all(1000);
        world.commit();
        if let_go && !reply.renew(&world.store) {
            reply.detach().unwrap();
        }
    }
    while reply.fill(&mut out, 1000).unwrap() {}
    assert!(out == expected, "another answer than was asked for");
    world.store.backend().size()
}

#[test]
fn a_reader_that_stops_does_not_make_the_file_grow() {
    let (held, let_go) = (grown(false), grown(true));
    assert!(let_go * 4 < held, "{let_go} bytes, and {held} if the root were held");
}

/// Without a compaction everything is in the newest root: nothing is copied.
#[test]
fn an_answer_goes_on_from_the_newest_root() {
    let mut world = World::new();
    overwrite(&mut world, 0);
    let at = world.store.revision();
    let expected = world.store.range(&everything()).unwrap().into_bytes().unwrap();
    let mut reply = world.store.range(&everything()).unwrap();
    let request = RangeRequest { key: "000".into(), ..everything() };
    let single = RangeRequest { range_end: Bytes::new(), ..request };
    let mut one = world.store.range(&single).unwrap();
    let mut out = BytesMut::new();
    for round in 1..20 {
        reply.fill(&mut out, 777).unwrap();
        overwrite(&mut world, round);
        assert!(reply.renew(&world.store) && one.renew(&world.store));
    }
    // A compaction to what is read takes nothing of it away; one beyond does.
    let mut batch = world.writer.begin();
    batch.compact(at).unwrap();
    batch.finish();
    world.compact_all(1000);
    world.commit();
    assert!(reply.renew(&world.store));
    while reply.fill(&mut out, 777).unwrap() {}
    assert!(out == expected);
    let mut batch = world.writer.begin();
    batch.compact(at + 1).unwrap();
    batch.finish();
    assert!(!one.renew(&world.store), "its version may go now");
}
