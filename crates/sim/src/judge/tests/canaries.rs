//! One history for each rule that breaks it, and the good ones that they are made of.

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;

use super::script::{
    MEMBER, MS, Script, compact, delete, everything, get, grant, put, renew, revoke, ttl, txn,
};
use super::{must_break, must_pass};
use crate::history::{Outcome, Request, Response};
use crate::judge::{Rule, check, check_without_log};

fn told(s: &mut Script, op: usize) -> &mut Response {
    match &mut s.history.operations[op].outcome {
        Outcome::Ok(response) => response,
        other => panic!("{other:?}"),
    }
}

fn header_of(response: &mut Response) -> &mut i64 {
    let header = match response {
        Response::Put(r) => &mut r.header,
        Response::Range(r) => &mut r.header,
        other => panic!("{other:?}"),
    };
    &mut header.as_mut().expect("it has a header").revision
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let s = everything();
    must_pass(&s.history);
    let checked = check(&s.history).expect("it passes");
    assert_eq!((checked.unknown, checked.unknown_done, checked.watches), (2, 1, 2));
    assert_eq!((checked.leases, checked.hashes, checked.observations), (1, 4, 2));
    assert!(checked.reads > 3 && checked.writes > 10 && checked.steps > 10);
    let mut logless = s.history;
    logless.log.clear();
    must_pass(&logless);
}

#[test]
fn a_log_that_goes_back_is_reported() {
    let mut s = everything();
    s.history.log[4].term = 1;
    must_break(&s.history, Rule::Log);
    let mut s = everything();
    s.history.log[4].data = Bytes::from_static(b"\x22\xff");
    must_break(&s.history, Rule::Log);
}

/// invariant I7: a write that was acknowledged and is not in the log.
#[test]
fn an_acknowledged_write_that_is_not_in_the_log_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    s.put("a", "2");
    s.history.log.pop();
    must_break(&s.history, Rule::Lost);
}

#[test]
fn one_of_two_equal_deletes_that_is_missing_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    s.delete("a");
    s.delete("a");
    must_pass(&s.history);
    s.history.log.pop();
    must_break(&s.history, Rule::Lost);
}

#[test]
fn a_wrong_answer_to_a_write_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    let op = s.ask(delete("a"));
    let Response::DeleteRange(r) = told(&mut s, op) else { panic!("it is a delete") };
    r.deleted = 2;
    must_break(&s.history, Rule::Answer);
}

#[test]
fn a_write_that_stands_in_the_log_twice_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    let again = put("a", "1", 0);
    s.log(Some(&again));
    must_break(&s.history, Rule::Twice);
    // Of unknown outcome it may stand there once, not twice.
    let mut s = Script::new();
    s.ask_in_vain(put("a", "1", 0), true);
    must_pass(&s.history);
    s.log(Some(&again));
    must_break(&s.history, Rule::Twice);
}

#[test]
fn a_refused_write_that_had_its_effect_is_reported() {
    let mut s = Script::new();
    let op = s.put("a", "1");
    s.history.operations[op].outcome = Outcome::Refused("etcdserver: too many requests".into());
    must_break(&s.history, Rule::Twice);
    // One that the log refuses too is as it should be.
    let mut s = Script::new();
    s.ask(put("a", "1", 77));
    must_pass(&s.history);
}

#[test]
fn a_write_that_nobody_asked_for_is_reported() {
    let mut s = Script::new();
    s.log(Some(&put("a", "1", 0)));
    must_break(&s.history, Rule::Twice);
}

#[test]
fn writes_out_of_the_order_of_time_are_reported() {
    let mut s = Script::new();
    let first = s.put("a", "1");
    s.put("b", "2");
    let (entries, a, b) = (s.history.log.len(), 1, 2);
    assert_eq!(entries, 3);
    let data = s.history.log[a].data.clone();
    s.history.log[a].data = s.history.log[b].data.clone();
    s.history.log[b].data = data;
    s.history.log.iter_mut().for_each(|entry| entry.applied_ns = None);
    *header_of(told(&mut s, first)) = 3;
    *header_of(told(&mut s, first + 1)) = 2;
    must_break(&s.history, Rule::RealTime);
}

#[test]
fn an_answer_before_the_entry_is_applied_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    s.history.log[1].applied_ns = Some(s.now + MS);
    must_break(&s.history, Rule::TooSoon);
}

#[test]
fn a_read_of_what_was_not_there_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    let op = s.get("a");
    let Response::Range(r) = told(&mut s, op) else { panic!("it is a range") };
    r.kvs[0].value = Bytes::from_static(b"2");
    must_break(&s.history, Rule::Read);
}

/// invariant I8: a read that misses what was known.
#[test]
fn a_stale_read_is_reported_unless_it_may_be_old() {
    for serializable in [false, true] {
        let mut s = Script::new();
        s.put("a", "1");
        let old = s.get("a");
        s.put("a", "2");
        let mut stale = s.history.operations[old].clone();
        (stale.sent_ns, stale.ended_ns) = (s.now + MS, s.now + 2 * MS);
        stale.member = MEMBER + 1;
        if let Request::Range(range) = &mut stale.request {
            range.serializable = serializable;
        }
        s.history.operations.push(stale);
        if serializable {
            must_pass(&s.history);
        } else {
            must_break(&s.history, Rule::StaleRead);
            must_break(&s.history, Rule::Linearizable);
        }
    }
}

#[test]
fn a_read_of_the_future_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    let op = s.get("a");
    s.put("b", "2");
    *header_of(told(&mut s, op)) = 3;
    must_break(&s.history, Rule::FutureRead);
    must_break(&s.history, Rule::Linearizable);
}

/// invariant I11: a read of what is compacted.
#[test]
fn what_is_compacted_and_comes_back_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    s.put("a", "2");
    let old = s.ask(get("a", 2));
    s.ask(compact(3));
    let mut again = s.history.operations[old].clone();
    (again.sent_ns, again.ended_ns) = (s.now + MS, s.now + 2 * MS);
    s.history.operations.push(again);
    must_break(&s.history, Rule::Compaction);
}

#[test]
fn what_is_gone_without_a_compaction_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    s.put("a", "2");
    s.ask(compact(2));
    let op = s.ask(get("a", 2));
    must_pass(&s.history);
    let gone = "etcdserver: mvcc: required revision has been compacted";
    s.history.operations[op].outcome = Outcome::Refused(gone.into());
    must_break(&s.history, Rule::Compaction);
}

#[test]
fn a_refusal_without_a_reason_is_reported() {
    let mut s = Script::new();
    s.ask(grant(7, 60));
    let op = s.ask(put("a", "1", 7));
    s.history.log.pop();
    let why = "etcdserver: requested lease not found";
    s.history.operations[op].outcome = Outcome::Refused(why.into());
    must_break(&s.history, Rule::Refusal);
    let mut s = Script::new();
    let op = s.ask(grant(7, 60));
    s.ask(revoke(7));
    s.history.operations[op + 1].outcome = Outcome::Refused(why.into());
    s.history.log.pop();
    must_break(&s.history, Rule::Refusal);
}

#[test]
fn a_revision_that_falls_is_reported() {
    let mut s = Script::new();
    s.put("a", "1");
    s.observe();
    s.put("b", "2");
    s.observe();
    must_pass(&s.history);
    s.history.observations[1].revision = 2;
    s.history.observations[1].keys = s.history.observations[0].keys.clone();
    s.history.observations[1].hash = s.history.observations[0].hash;
    must_break(&s.history, Rule::RevisionFell);

    let mut s = everything();
    s.history.observations[1].compact_revision = -1;
    must_break(&s.history, Rule::RevisionFell);
}

#[test]
fn a_key_that_a_member_lost_or_kept_is_reported() {
    let mut s = everything();
    s.history.observations[1].keys.as_mut().expect("all were read").pop();
    must_break(&s.history, Rule::Keys);
    // The keys of a lease that ended go with it.
    let mut s = everything();
    let kept = s.history.observations[0].keys.as_ref().expect("all were read");
    let leased = kept.iter().find(|kv| kv.lease == 7).cloned().expect("one is attached");
    s.history.observations[1].keys.as_mut().expect("all were read").push(leased);
    must_break(&s.history, Rule::Keys);
}

/// invariant I12: hashes that differ.
#[test]
fn a_hash_that_differs_is_reported() {
    let mut s = everything();
    let (revision, compacted, hash) = s.history.observations[1].hash.expect("it was taken");
    s.history.observations[1].hash = Some((revision, compacted, hash ^ 1));
    must_break(&s.history, Rule::Hash);
    // Without a log it is still held against what was told before.
    let mut s = everything();
    s.history.log.clear();
    let mut again = s.history.observations[1].clone();
    again.hash = Some((revision, compacted, hash ^ 1));
    s.history.observations.push(again);
    must_break(&s.history, Rule::Hash);
}

/// A lease of 10 s, renewed after 5 s, that the cluster ends at a time.
fn lease_that_ends(after_ms: u64) -> Script {
    let mut s = Script::new();
    s.ask(grant(7, 10));
    s.ask(put("a", "1", 7));
    s.now += 5000 * MS;
    s.ask(renew(7));
    s.now += after_ms * MS;
    let end = revoke(7);
    s.log(Some(&end));
    s.model.apply(&end).expect("it lives");
    s.get("a");
    s
}

/// invariant I10: a lease that ends before its time.
#[test]
fn a_lease_that_ends_early_is_reported() {
    must_pass(&lease_that_ends(10_001).history);
    must_break(&lease_that_ends(9_000).history, Rule::LeaseEarly);
    // Where nobody knows when it was applied, a read that shows it tells.
    let mut s = lease_that_ends(9_000);
    s.history.log.iter_mut().for_each(|entry| entry.applied_ns = None);
    must_break(&s.history, Rule::LeaseEarly);
}

#[test]
fn a_lease_that_does_not_end_is_reported() {
    let mut s = Script::new();
    s.ask(grant(7, 10));
    s.history.healed_ns = Some(s.now);
    s.now += 20_000 * MS;
    s.observe();
    must_pass(&s.history);
    s.now += 10_000 * MS;
    s.observe();
    must_break(&s.history, Rule::LeaseLate);
}

#[test]
fn a_lease_that_is_shown_when_it_is_dead_is_reported() {
    let mut s = Script::new();
    s.ask(grant(7, 10));
    let alive = s.ask(renew(7));
    s.ask(revoke(7));
    let dead = s.ask(renew(7));
    must_pass(&s.history);
    let answer = s.history.operations[alive].outcome.clone();
    s.history.operations[dead].outcome = answer;
    must_break(&s.history, Rule::LeaseAlive);
}

/// The answer to the grant, which says to what a short TTL was raised, may be lost.
#[test]
fn a_lease_has_the_ttl_that_members_raise_it_to_whoever_heard_of_it() {
    let mut s = Script::new();
    s.model = crate::model::Model::new(2);
    s.ask_in_vain(grant(7, 1), true);
    s.ask(ttl(7));
    s.history.min_ttl = 2;
    must_pass(&s.history);
    s.history.min_ttl = 3;
    must_break(&s.history, Rule::LeaseAlive);
}

#[test]
fn a_lease_that_is_not_found_though_it_lives_is_reported() {
    let mut s = Script::new();
    s.ask(grant(7, 10));
    let op = s.ask(renew(7));
    let Response::LeaseKeepAlive(r) = told(&mut s, op) else { panic!("it is a renewal") };
    r.ttl = 0;
    must_break(&s.history, Rule::LeaseAlive);
}

#[test]
fn keys_that_a_lease_never_held_are_reported() {
    let mut s = Script::new();
    s.ask(grant(7, 10));
    s.ask(put("a", "1", 7));
    let op = s.ask(ttl(7));
    must_pass(&s.history);
    let Response::LeaseTimeToLive(r) = told(&mut s, op) else { panic!("it is a question") };
    r.keys.clear();
    must_break(&s.history, Rule::LeaseAlive);
}

#[test]
fn a_transaction_half_done_is_reported() {
    let mut s = Script::new();
    s.ask(txn("a", 0, &[put("a", "1", 0), put("b", "2", 0)], &[]));
    let op = s.get("b");
    let Response::Range(r) = told(&mut s, op) else { panic!("it is a range") };
    (r.kvs, r.count) = (Vec::new(), 0);
    must_break(&s.history, Rule::Read);
    let mut logless = s.history;
    logless.log.clear();
    must_break(&logless, Rule::Linearizable);
}

#[test]
fn a_write_that_was_lost_is_found_without_a_log() {
    let mut s = Script::new();
    s.put("a", "1");
    s.model = crate::model::Model::new(0);
    s.put("b", "2");
    assert!(check_without_log(&s.history).is_err());
}

#[test]
fn every_answer_is_compared() {
    let mut s = Script::new();
    let request =
        pb::PutRequest { prev_kv: true, key: "a".into(), value: "1".into(), ..Default::default() };
    s.ask(Request::Put(request.clone()));
    let op = s.ask(Request::Put(pb::PutRequest { value: "2".into(), ..request }));
    must_pass(&s.history);
    let Response::Put(r) = told(&mut s, op) else { panic!("it is a put") };
    r.prev_kv = None;
    must_break(&s.history, Rule::Answer);
}
