//! The search without the log: concurrent operations, forks, and histories that no order explains.

use super::script::{MS, Script, delete, get, grant, put, revoke};
use crate::history::{History, Operation, Outcome, Request};
use crate::judge::{check, check_without_log};

/// Makes an operation last from one time to another.
fn lasts(operation: &mut Operation, from: u64, to: u64) {
    (operation.sent_ns, operation.ended_ns) = (from, to);
}

#[test]
fn concurrent_operations_may_take_either_order() {
    let mut s = Script::new();
    for i in 0..20 {
        s.put("a", &format!("v{i}"));
        s.get("a");
    }
    // All at once.
    let end = s.now;
    s.history.operations.iter_mut().for_each(|op| lasts(op, MS, end));
    check(&s.history).expect("any order will do");
    check_without_log(&s.history).expect("any order will do");
}

#[test]
fn a_write_of_unknown_outcome_forks_the_state() {
    // Whether or not it was done; reads tell, or nobody does.
    for done in [true, false] {
        let mut s = Script::new();
        s.put("a", "1");
        s.ask_in_vain(put("a", "2", 0), done);
        s.get("a");
        s.put("b", "3");
        check_without_log(&s.history).expect("either is right");
        let mut unseen = Script::new();
        unseen.put("a", "1");
        unseen.ask_in_vain(delete("a"), done);
        unseen.put("b", "3");
        check_without_log(&unseen.history).expect("either is right");
    }
}

#[test]
fn many_forks_that_nobody_saw_are_told_apart_by_what_they_left() {
    let mut s = Script::new();
    for i in 0..12 {
        s.ask_in_vain(put(&format!("k{}", i % 3), &format!("v{i}"), 0), i % 2 == 0);
        s.ask_in_vain(delete(&format!("k{}", i % 3)), i % 4 == 0);
    }
    for key in ["k0", "k1", "k2"] {
        s.get(key);
    }
    s.put("z", "z");
    let checked = check_without_log(&s.history).expect("the log's own order explains it");
    assert!(!checked.undecided);
}

#[test]
fn a_fork_cannot_take_place_before_it_was_sent() {
    let mut s = Script::new();
    s.ask_in_vain(put("a", "1", 0), true);
    s.get("a");
    check_without_log(&s.history).expect("it was sent first");
    let late = s.now + MS;
    lasts(&mut s.history.operations[0], late, late + MS);
    assert!(check_without_log(&s.history).is_err());
}

#[test]
fn the_end_of_a_lease_forks_as_well_but_not_before_its_time() {
    for (waited, fine) in [(11_000, true), (5_000, false)] {
        let mut s = Script::new();
        s.ask(grant(7, 10));
        s.ask(put("a", "1", 7));
        s.now += waited * MS;
        s.model.apply(&revoke(7)).expect("it lives");
        s.get("a");
        assert_eq!(check_without_log(&s.history).is_ok(), fine, "after {waited} ms");
    }
}

#[test]
fn a_lost_update_has_no_order() {
    // Two that both found nothing, and both wrote because of that.
    let mut s = Script::new();
    let won = super::script::txn("a", 0, &[put("a", "1", 0)], &[]);
    s.ask(won);
    s.model = crate::model::Model::new(0);
    s.ask(super::script::txn("a", 0, &[put("a", "2", 0)], &[]));
    assert!(check_without_log(&s.history).is_err());
}

#[test]
fn a_read_between_two_revisions_is_put_where_its_revision_is() {
    let mut s = Script::new();
    s.put("a", "1");
    let read = s.get("a");
    s.put("a", "2");
    let end = s.now;
    lasts(&mut s.history.operations[read], 0, end);
    check_without_log(&s.history).expect("it may have come between");
    if let Request::Range(_) = s.history.operations[read].request {
        lasts(&mut s.history.operations[read], end + MS, end + 2 * MS);
    }
    assert!(check_without_log(&s.history).is_err());
}

/// Thousands of operations by overlapping clients, with a few of unknown outcome: the time that a judge may
/// take is in its steps, which grow with the operations.
#[test]
fn the_work_grows_with_the_history_and_no_faster() {
    let steps = |n: usize| {
        let mut s = Script::new();
        for i in 0..n {
            let key = format!("k{}", i % 10);
            match i % 17 {
                0 => s.ask_in_vain(put(&key, &format!("v{i}"), 0), i % 2 == 0),
                1..=8 => s.put(&key, &format!("v{i}")),
                9 => s.ask(delete(&key)),
                _ => s.get(&key),
            };
        }
        stretch(&mut s.history);
        check(&s.history).expect("it is right").steps
    };
    let (few, many) = (steps(300), steps(3000));
    assert!(many < 20 * few, "{few} steps for 300, {many} for 3000");
}

/// Lets every operation begin a little earlier and end a little later, so that they overlap.
fn stretch(history: &mut History) {
    for op in &mut history.operations {
        op.sent_ns = op.sent_ns.saturating_sub(7 * MS);
        op.ended_ns += 7 * MS;
    }
    assert!(history.operations.iter().any(|op| op.outcome == Outcome::Unknown));
}

#[test]
fn a_value_that_a_put_kept_does_not_pin_its_writer() {
    let mut s = Script::new();
    s.ask_in_vain(put("a", "1", 0), true);
    let keep = etch_api::pb::etcdserverpb::PutRequest {
        key: "a".into(),
        ignore_value: true,
        ..Default::default()
    };
    s.ask(Request::Put(keep));
    s.ask(get("a", 0));
    check_without_log(&s.history).expect("the second put kept the first one's value");
}
