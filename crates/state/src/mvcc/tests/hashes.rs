//! The hashes of what is stored, against those of etcd.

use super::*;

/// The hashes that etcd 3.7.1 answered to the same requests, before compactions and after them.
#[test]
fn hashes_are_etcds() {
    // A compaction that comes before the deletes of the last are committed has its hash all the same.
    [true, false].into_iter().for_each(hashes_are_etcds_if);
}

fn hashes_are_etcds_if(commits_between: bool) {
    let mut world = World::new();
    let mut batch = world.writer.begin();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", ""), ("c", "4")] {
        batch.txn_begin();
        if value.is_empty() {
            batch.delete_range(&mut world.leases, &KeyRange::Single(bytes(key)));
        } else {
            batch.put(&mut world.leases, key.as_bytes(), value.as_bytes(), 0);
        }
        batch.txn_end();
    }
    batch.finish();
    let hash = |world: &World, revision| {
        let hash = world.store.hash_kv(revision).unwrap();
        assert_eq!((hash.hash_revision, hash.current_revision), (revision, 6));
        (hash.hash, hash.compact_revision)
    };
    let before = [1_827_592_406, 2_069_675_932, 1_125_682_900, 2_750_537_463];
    for (i, expected) in before.into_iter().enumerate() {
        assert_eq!(hash(&world, 3 + i as i64), (expected, -1));
    }
    let compact = |world: &mut World, at| {
        let mut batch = world.writer.begin();
        batch.compact(at).unwrap();
        batch.finish();
        world.compact_all(2);
        if commits_between {
            world.commit();
        }
    };
    compact(&mut world, 4);
    let after = [(2_069_675_932, -1), (1_468_967_122, 4), (2_450_235_489, 4)];
    assert_eq!([4, 5, 6].map(|revision| hash(&world, revision)), after);
    compact(&mut world, 5);
    let after = [(2_069_675_932, -1), (1_468_967_122, 4), (168_415_639, 5)];
    assert_eq!([4, 5, 6].map(|revision| hash(&world, revision)), after);
}
