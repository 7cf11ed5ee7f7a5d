//! A good watch, and one for each guarantee that it may break.

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use pb::watch_create_request::FilterType;

use super::script::{MS, Script, compact, put, response, txn};
use super::{must_break, must_pass};
use crate::history::Watch;
use crate::judge::Rule;

/// Changes of two keys, some together, and a watch that saw them all.
fn watched() -> Script {
    let mut s = Script::new();
    s.put("a", "1");
    s.put("a", "2");
    s.ask(txn("a", 3, &[put("a", "3", 0), put("b", "4", 0)], &[]));
    s.delete("b");
    s.put("b", "5");
    s.watch("\0", "\0", 1);
    s
}

fn watch(s: &mut Script) -> &mut Watch {
    s.history.watches.last_mut().expect("there is one")
}

#[track_caller]
fn breaks(rule: Rule, tamper: impl FnOnce(&mut Watch)) {
    let mut s = watched();
    must_pass(&s.history);
    tamper(watch(&mut s));
    must_break(&s.history, rule);
}

#[test]
fn events_in_the_wrong_order_are_reported() {
    breaks(Rule::WatchOrdered, |w| {
        let old = w.responses[1].clone();
        w.responses.insert(4, old);
    });
    // Two of one revision change their places.
    breaks(Rule::WatchReliable, |w| w.responses[3].1.events.swap(0, 1));
}

#[test]
fn an_event_that_comes_twice_is_reported() {
    breaks(Rule::WatchUnique, |w| {
        let again = w.responses[5].clone();
        w.responses.push(again);
    });
    breaks(Rule::WatchUnique, |w| {
        let events = &mut w.responses[5].1.events;
        events.push(events[0].clone());
    });
}

/// invariant I9: events that never came.
#[test]
fn an_event_that_is_left_out_is_reported() {
    breaks(Rule::WatchReliable, |w| drop(w.responses.remove(3)));
    // The last one as well, for the stream was read to its end.
    breaks(Rule::WatchReliable, |w| drop(w.responses.pop()));
    let mut s = watched();
    watch(&mut s).responses.pop();
    watch(&mut s).drained = false;
    must_pass(&s.history);
}

#[test]
fn a_revision_in_two_responses_is_reported_but_not_one_in_fragments() {
    for fragment in [false, true] {
        let mut s = watched();
        let w = watch(&mut s);
        let second = w.responses[3].1.events.pop().expect("there are two");
        w.responses[3].1.fragment = fragment;
        w.responses.insert(4, (w.responses[3].0, response(4, vec![second])));
        if fragment {
            must_pass(&s.history);
        } else {
            must_break(&s.history, Rule::WatchAtomic);
        }
    }
}

#[test]
fn a_watch_that_begins_late_is_reported() {
    breaks(Rule::WatchResumable, |w| drop(w.responses.remove(1)));
}

#[test]
fn a_compaction_that_never_was_does_not_end_a_watch() {
    let ended = |s: &Script, compact_revision| {
        let response = response(s.model.revision(), Vec::new());
        (s.now + MS, pb::WatchResponse { canceled: true, compact_revision, ..response })
    };
    let mut s = watched();
    s.ask(compact(4));
    let end = ended(&s, 4);
    let w = watch(&mut s);
    w.responses.truncate(2);
    w.responses.push(end.clone());
    must_pass(&s.history);
    // It had seen more than was compacted.
    let mut s = watched();
    s.ask(compact(4));
    watch(&mut s).responses.truncate(4);
    watch(&mut s).responses.push(end.clone());
    must_break(&s.history, Rule::WatchResumable);
    let mut s = watched();
    watch(&mut s).responses.truncate(2);
    watch(&mut s).responses.push(end);
    must_break(&s.history, Rule::WatchResumable);
}

#[test]
fn progress_that_runs_ahead_is_reported() {
    let note = |at: usize, revision| {
        move |w: &mut Watch| {
            let time = w.responses[at - 1].0;
            w.responses.insert(at, (time, response(revision, Vec::new())));
        }
    };
    let mut s = watched();
    note(3, 3)(watch(&mut s));
    must_pass(&s.history);
    breaks(Rule::WatchBookmark, note(3, 4));
    // Beyond the last event, and then there was one.
    let mut s = watched();
    note(6, 6)(watch(&mut s));
    must_pass(&s.history);
}

#[test]
fn what_was_not_asked_for_is_reported() {
    breaks(Rule::WatchFilter, |w| w.request.key = Bytes::from_static(b"b"));
    breaks(Rule::WatchFilter, |w| w.request.filters.push(FilterType::Nodelete.into()));
    breaks(Rule::WatchFilter, |w| w.request.start_revision = 3);
    let mut s = watched();
    let w = watch(&mut s);
    w.request.filters.push(FilterType::Nodelete.into());
    w.responses.remove(4);
    must_pass(&s.history);
}

#[test]
fn a_wrong_previous_value_is_reported() {
    breaks(Rule::WatchPrevKv, |w| w.responses[2].1.events[0].prev_kv = None);
    breaks(Rule::WatchPrevKv, |w| {
        let own = w.responses[2].1.events[0].kv.clone();
        w.responses[2].1.events[0].prev_kv = own;
    });
    breaks(Rule::WatchPrevKv, |w| w.request.prev_kv = false);
    // What is compacted may be missing.
    let mut s = watched();
    s.ask(compact(5));
    watch(&mut s).responses.iter_mut().for_each(|(at, _)| *at += 100 * MS);
    watch(&mut s).responses[2].1.events[0].prev_kv = None;
    must_pass(&s.history);
}

#[test]
fn an_event_that_is_not_the_log_s_is_reported() {
    let kv = |w: &mut Watch| w.responses[2].1.events[0].kv.take().expect("it has one");
    breaks(Rule::WatchEvent, |w| {
        let mut wrong = kv(w);
        wrong.version += 1;
        w.responses[2].1.events[0].kv = Some(wrong);
    });
    breaks(Rule::WatchEvent, |w| {
        let mut wrong = kv(w);
        wrong.create_revision = wrong.mod_revision;
        w.responses[2].1.events[0].kv = Some(wrong);
    });
    breaks(Rule::WatchEvent, |w| {
        let mut wrong = kv(w);
        wrong.key = Bytes::from_static(b"zz");
        w.responses[2].1.events[0].kv = Some(wrong);
    });
    breaks(Rule::WatchEvent, |w| {
        w.responses[2].1.header.as_mut().expect("it has one").revision = 1;
    });
}

#[test]
fn an_event_before_its_time_is_reported() {
    breaks(Rule::TooSoon, |w| w.responses.iter_mut().for_each(|(at, _)| *at = 4 * MS));
}

#[test]
fn a_watch_without_a_beginning_or_with_two_ends_is_reported() {
    breaks(Rule::WatchCreated, |w| drop(w.responses.remove(0)));
    breaks(Rule::WatchCreated, |w| w.responses[2].1.created = true);
    breaks(Rule::WatchCreated, |w| {
        w.responses[0].1.header.as_mut().expect("has one").revision = 99
    });
    breaks(Rule::WatchCreated, |w| {
        w.responses[2].1.canceled = true;
    });
}

#[test]
fn a_watch_from_now_on_begins_after_its_creation() {
    let mut s = Script::new();
    s.put("a", "1");
    s.watch("a", "", 0);
    let revision = s.model.revision();
    let w = watch(&mut s);
    w.responses.truncate(1);
    let from = w.responses[0].0;
    s.put("a", "12");
    must_break(&s.history, Rule::WatchReliable);
    let change = s.model.changes().last().expect("it was put").clone();
    let at = s.now;
    let w = watch(&mut s);
    assert!(at > from);
    w.responses.push((at, response(revision + 1, vec![super::script::event(&change)])));
    must_pass(&s.history);
}
