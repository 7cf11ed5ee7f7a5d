//! Tests of leases: rules one by one, and everything at random against a naive model in virtual time. Not
//! here: the wheel, which is tested beside its code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use etch_api::Error;
use etch_disk::backend::{Batch, Bucket};

use super::{Lessor, LessorConfig, MAX_TTL, RenewError};
use crate::watch::Wake;
use crate::watch::tests::Dice;

fn lessor() -> Arc<Lessor> {
    Lessor::new(LessorConfig::default())
}

fn grant(lessor: &Lessor, id: i64, ttl: i64) {
    lessor.grant(id, ttl, &mut Batch::new()).unwrap();
}

fn keys(lessor: &Lessor, id: i64) -> Vec<Bytes> {
    lessor.keys(id).unwrap()
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn grants_are_checked_and_short_ones_raised() {
    let lessor = lessor();
    let mut batch = Batch::new();
    assert_eq!(lessor.grant(0, 10, &mut batch), Err(Error::LeaseNotFound));
    assert_eq!(lessor.grant(1, MAX_TTL + 1, &mut batch), Err(Error::LeaseTtlTooLarge));
    assert!(batch.is_empty());
    assert_eq!(lessor.grant(1, MAX_TTL, &mut batch), Ok(MAX_TTL));
    assert_eq!(lessor.grant(2, 1, &mut batch), Ok(2));
    assert_eq!(lessor.grant(3, -7, &mut batch), Ok(2));
    assert_eq!(lessor.grant(1, 10, &mut batch), Err(Error::LeaseExist));
    assert_eq!(lessor.len(), 3);
}

#[test]
fn i12535_negative_and_huge_ids_survive_the_disk() {
    let first = lessor();
    let mut batch = Batch::new();
    for id in [-1, i64::MAX, i64::MIN, 5] {
        first.grant(id, 60, &mut batch).unwrap();
    }
    first.checkpoint(5, 7, true, &mut batch);
    let second = lessor();
    for id in [-1_i64, i64::MAX, i64::MIN, 5] {
        let row = batch.last(Bucket::Lease, &id.to_be_bytes()).unwrap().unwrap();
        second.load(row).unwrap();
        second.attach_key(id, b"k");
        assert_eq!(second.lease_of(b"k"), id);
        assert_eq!(second.granted_ttl(id), Some(60));
    }
    assert_eq!(keys(&second, 5), ["k"]);
    assert!(keys(&second, -1).is_empty(), "a key is attached to one lease");
    second.promote(0, 0);
    assert_eq!(second.time_to_live(5, 0), Some(7), "the checkpoint was kept");
    assert_eq!(second.time_to_live(-1, 0), Some(60));
    assert!(second.load(b"\xff\xff").is_err());
}

#[test]
fn revoking_names_the_keys_in_order_and_takes_the_row_out() {
    let lessor = lessor();
    grant(&lessor, 9, 60);
    grant(&lessor, 3, 60);
    for key in ["c", "a", "b", "d"] {
        lessor.attach_key(9, key.as_bytes());
    }
    lessor.attach_key(3, b"d");
    lessor.detach_key(9, b"b");
    assert_eq!(lessor.leases(0), [9, 3], "in order of grant");
    let mut batch = Batch::new();
    assert_eq!(lessor.revoke(9, &mut batch).unwrap(), ["a", "c"]);
    assert_eq!(batch.last(Bucket::Lease, &9_i64.to_be_bytes()), Some(None));
    assert_eq!((lessor.lease_of(b"a"), lessor.lease_of(b"d")), (0, 3));
    assert_eq!(lessor.revoke(9, &mut batch), Err(Error::LeaseNotFound));
    assert!(!lessor.exists(9));
}

#[test]
fn time_runs_on_the_leader_alone_and_starts_with_its_look_at_the_clock() {
    let lessor = lessor();
    grant(&lessor, 1, 10);
    assert_eq!(lessor.renew(1, 0), Err(RenewError::NotPrimary));
    assert!(lessor.expired(1 << 40, 10).is_empty());
    lessor.promote(5_000, 1_000);
    assert_eq!(lessor.renew(2, 5_000), Err(RenewError::NotFound));
    assert_eq!(lessor.time_to_live(1, 5_000), Some(11));
    grant(&lessor, 2, 20);
    assert_eq!(lessor.time_to_live(2, 7_000), Some(20));
    assert!(lessor.expired(15_900, 10).is_empty());
    assert_eq!(lessor.expired(16_100, 10), [1]);
    assert!(lessor.expired(16_200, 10).is_empty(), "named once");
    assert!(lessor.expired(18_900, 10).is_empty());
    assert_eq!(lessor.expired(19_200, 10), [1], "and again after the retry interval");
    assert_eq!(lessor.expired(35_800, 10), [1]);
    assert_eq!(lessor.expired(35_900, 10), [2], "its time started at 15.9 s");
    assert_eq!(lessor.time_to_live(1, 36_000), Some(0));
    lessor.demote();
    assert!(lessor.expired(1 << 40, 10).is_empty());
}

#[test]
fn i14758_an_expired_lease_is_not_renewed_but_waited_for() {
    let lessor = lessor();
    grant(&lessor, 1, 10);
    grant(&lessor, 2, 10);
    lessor.promote(0, 0);
    assert_eq!(lessor.renew(1, 9_999), Ok(10));
    assert_eq!(lessor.renew(2, 10_000), Err(RenewError::Expired));
    assert_eq!(lessor.expired(10_100, 10), [2]);
    // A thread whose clock is behind comes after the lease was named: it must not succeed.
    assert_eq!(lessor.renew(2, 5), Err(RenewError::Expired));
    let bell = Arc::new(Bell::default());
    assert!(lessor.wait_revoked(2, bell.clone()));
    lessor.revoke(2, &mut Batch::new()).unwrap();
    // Its keys may still be seen: nobody is told that it is gone, whether he waits or asks.
    assert_eq!(bell.0.load(Ordering::Relaxed), 0);
    assert_eq!(lessor.renew(2, 5), Err(RenewError::Expired));
    assert!(lessor.wait_revoked(2, bell.clone()));
    lessor.published();
    assert_eq!(bell.0.swap(1, Ordering::Relaxed), 2);
    assert_eq!(lessor.renew(2, 5), Err(RenewError::NotFound));
    assert!(!lessor.wait_revoked(2, bell.clone()));
    assert!(lessor.wait_revoked(1, bell.clone()));
    lessor.demote();
    assert_eq!(bell.0.load(Ordering::Relaxed), 2, "or until another one leads");
}

#[test]
fn a_renewal_with_an_older_clock_takes_nothing_away() {
    let lessor = lessor();
    grant(&lessor, 1, 10);
    lessor.promote(0, 0);
    lessor.renew(1, 8_000).unwrap();
    lessor.renew(1, 7_000).unwrap();
    assert!(lessor.expired(17_999, 10).is_empty());
    assert_eq!(lessor.expired(18_000, 10), [1]);
}

#[test]
fn a_lease_granted_again_is_another_one() {
    let lessor = lessor();
    lessor.promote(0, 0);
    grant(&lessor, 1, 10);
    lessor.expired(0, 10);
    lessor.revoke(1, &mut Batch::new()).unwrap();
    lessor.published();
    grant(&lessor, 1, 100);
    lessor.expired(5_000, 10);
    assert!(lessor.expired(60_000, 10).is_empty());
    assert_eq!(lessor.expired(105_000, 10), [1]);
}

#[test]
fn i9888_checkpoints_carry_the_remaining_time_to_the_next_leader() {
    let config = LessorConfig { checkpoint_interval_ms: Some(300_000), ..Default::default() };
    let lessor = Lessor::new(config);
    grant(&lessor, 1, 1000);
    grant(&lessor, 2, 100);
    lessor.promote(0, 0);
    assert!(lessor.due_checkpoints(299_900, 10).is_empty());
    assert_eq!(lessor.due_checkpoints(300_000, 10), [(1, 700)], "the short one needs none");
    let mut batch = Batch::new();
    lessor.checkpoint(1, 700, true, &mut batch);
    lessor.checkpoint(77, 5, true, &mut batch);
    assert_eq!(batch.len(), 1);
    assert_eq!(lessor.due_checkpoints(600_000, 10), [(1, 400)]);
    lessor.checkpoint(1, 400, false, &mut batch);
    assert_eq!(batch.len(), 1, "not kept where the cluster's version does not keep it");
    lessor.demote();
    lessor.promote(600_000, 0);
    assert_eq!(lessor.time_to_live(1, 600_000), Some(400));
    assert_eq!(lessor.renew(1, 600_000), Err(RenewError::Checkpointed));
    lessor.checkpoint(1, 0, true, &mut batch);
    assert_eq!(lessor.renew(1, 600_000), Ok(1000));
}

/// Invariant I10: a checkpoint on its way knows nothing of a renewal that comes before it in time, and a later
/// leader would go by it. So the renewal waits, as it does for one that is applied.
#[test]
fn a_lease_is_not_renewed_while_a_checkpoint_of_it_is_on_its_way() {
    let config = LessorConfig { checkpoint_interval_ms: Some(1000), ..Default::default() };
    let (lessor, mut batch) = (Lessor::new(config), Batch::new());
    grant(&lessor, 1, 3);
    lessor.promote(0, 0);
    assert_eq!(lessor.renew(1, 500), Ok(3));
    assert_eq!(lessor.due_checkpoints(1500, 10), [(1, 2)]);
    assert_eq!(lessor.renew(1, 1500), Err(RenewError::Checkpointed), "proposed");
    lessor.checkpoint(1, 2, true, &mut batch);
    assert_eq!(lessor.renew(1, 1500), Err(RenewError::Checkpointed), "applied");
    lessor.checkpoint(1, 0, true, &mut batch);
    assert_eq!(lessor.renew(1, 1500), Ok(3));
    // What could not be proposed is not waited for, nor what was lost with its leader.
    for lost in [Lessor::forget_checkpoints, |lessor: &Lessor, _: &[(i64, i64)]| {
        lessor.demote();
        lessor.promote(2500, 0);
    }] {
        let due = lessor.due_checkpoints(2600, 10);
        assert_eq!(due, [(1, 2)]);
        lost(&lessor, &due);
        assert_eq!(lessor.renew(1, 2600), Ok(3));
        lessor.demote();
        lessor.promote(1000, 0);
    }
    // One that would say nothing is not made, and in nobody's way.
    assert_eq!(lessor.renew(1, 2900), Ok(3));
    assert!(lessor.due_checkpoints(2000, 10).is_empty());
    assert_eq!(lessor.renew(1, 2900), Ok(3));
}

#[test]
fn a_new_leader_spreads_what_would_end_together() {
    let lessor = lessor();
    for id in 1..=4000 {
        grant(&lessor, id, 10);
    }
    lessor.promote(0, 0);
    assert!(lessor.expired(9_900, 10_000).is_empty(), "none ends before its time");
    let mut total = 0;
    for second in 0..8_usize {
        let ended = lessor.expired(10_000 + 1000 * second as u64, 10_000);
        assert!(ended.len() <= 1000, "{} in one second", ended.len());
        total += ended.len();
        for id in ended {
            lessor.revoke(id, &mut Batch::new()).unwrap();
            lessor.published();
        }
    }
    assert_eq!(total, 4000);
}

#[test]
fn max_bounds_one_answer_and_loses_nothing() {
    let lessor = lessor();
    for id in 1..=100 {
        grant(&lessor, id, 10);
    }
    lessor.promote(0, 0);
    let mut all = BTreeSet::new();
    for _ in 0..10 {
        let some = lessor.expired(10_000, 10);
        assert_eq!(some.len(), 10);
        all.extend(some);
    }
    assert_eq!(all.len(), 100);
}

#[test]
fn clearing_forgets_leases_and_keys() {
    let lessor = lessor();
    grant(&lessor, 1, 10);
    lessor.attach_key(1, b"k");
    lessor.promote(0, 0);
    lessor.clear();
    assert!(lessor.is_empty() && !lessor.is_primary());
    assert_eq!(lessor.lease_of(b"k"), 0);
}

/// What the model knows of a lease.
struct Known {
    ttl: u64,
    /// Its time since the last grant, renewal or election; it may not end before that and its TTL.
    since: u64,
    named: Option<u64>,
    keys: BTreeSet<String>,
}

#[test]
fn at_random_no_lease_ends_early_and_none_is_forgotten() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let lessor = lessor();
        let mut model: BTreeMap<i64, Known> = BTreeMap::new();
        let mut now = 1_000_000;
        lessor.promote(now, 0);
        for _ in 0..5000 {
            now += dice.below(300);
            let id = dice.below(40) as i64 - 20;
            let key = format!("k{}", dice.below(10));
            match dice.below(12) {
                0..=2 => {
                    let ttl = 2 + dice.below(60);
                    let granted = lessor.grant(id, ttl as i64, &mut Batch::new());
                    assert_eq!(granted.is_ok(), id != 0 && !model.contains_key(&id));
                    if granted.is_ok() {
                        let keys = BTreeSet::new();
                        model.insert(id, Known { ttl: ttl * 1000, since: now, named: None, keys });
                    }
                }
                3 if dice.below(3) == 0 => {
                    let revoked = lessor.revoke(id, &mut Batch::new());
                    lessor.published();
                    let known = model.remove(&id).map(|known| known.keys);
                    let revoked = revoked.ok().map(|keys| {
                        keys.iter().map(|k| String::from_utf8(k.to_vec()).unwrap()).collect()
                    });
                    assert_eq!(revoked, known);
                }
                4 => {
                    lessor.attach_key(id, key.as_bytes());
                    if model.contains_key(&id) {
                        for known in model.values_mut() {
                            known.keys.remove(&key);
                        }
                        model.get_mut(&id).unwrap().keys.insert(key);
                    }
                }
                5 => {
                    let attached = lessor.lease_of(key.as_bytes());
                    let known = model.iter().find(|(_, known)| known.keys.contains(&key));
                    assert_eq!(attached, known.map_or(0, |(&id, _)| id));
                    if let Some(known) = model.get_mut(&attached) {
                        known.keys.remove(&key);
                        lessor.detach_key(attached, key.as_bytes());
                    }
                }
                6..=8 => match (lessor.renew(id, now), model.get_mut(&id)) {
                    (Ok(ttl), Some(known)) => {
                        assert_eq!((ttl as u64 * 1000, known.named), (known.ttl, None));
                        known.since = now;
                    }
                    (Err(RenewError::NotFound), None) => {}
                    (Err(RenewError::Expired), Some(known)) => {
                        assert!(known.named.is_some() || known.since + known.ttl <= now);
                    }
                    (other, known) => panic!("{other:?}, known: {}", known.is_some()),
                },
                9 if dice.below(20) == 0 => {
                    lessor.demote();
                    now += dice.below(50_000);
                    lessor.promote(now, 0);
                    for known in model.values_mut() {
                        (known.since, known.named) = (now, None);
                    }
                }
                _ => look(&lessor, &mut model, now, &mut dice),
            }
        }
        // The first look starts the time of those just granted.
        for _ in 0..2 {
            look(&lessor, &mut model, now, &mut dice);
            now += 100_000;
        }
        look(&lessor, &mut model, now, &mut dice);
        assert!(model.values().all(|known| known.named.is_some()), "all are over by now");
    }
}

/// Looks for expired leases, and revokes some of them.
fn look(lessor: &Lessor, model: &mut BTreeMap<i64, Known>, now: u64, dice: &mut Dice) {
    for id in lessor.expired(now, 1000) {
        let known = model.get_mut(&id).expect("only what is there is named");
        assert!(known.since + known.ttl <= now, "{id} ended early");
        assert!(known.named.is_none_or(|at| at + 3000 <= now), "{id} named again too soon");
        known.named = Some(now);
        if dice.below(2) == 0 {
            lessor.revoke(id, &mut Batch::new()).unwrap();
            lessor.published();
            model.remove(&id);
        }
    }
}
