//! How cost grows with the store and with watchers, in processor time, as a table for `docs/benchmarks.md`. Here without
//! criterion's statistics: ten million keys are filled in once.

use etch_api::pb::etcdserverpb as pb;

use crate::machine::{Machine, Numbers, key, put, used};
use crate::watch::{opened, sent};

const CALLS: u64 = 20_000;

/// The table, up to so many keys and watchers.
pub fn table(most: u64) {
    println!("| keys | put | get | page of 500 | count | fill, a key | anonymous memory |");
    println!("|---|---|---|---|---|---|---|");
    for keys in [10_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|keys| *keys <= most) {
        with_keys(keys);
    }
    println!("\n| watchers | event to one of as many keys | event to all of one key, a watcher |");
    println!("|---|---|---|");
    for watchers in [1_000, 10_000, 100_000].into_iter().filter(|count| *count <= most) {
        let one = with_watchers(watchers, key, 2_000);
        let all = with_watchers(watchers, |_| key(0), 20) / watchers as f64;
        println!("| {watchers} | {one:.2} us | {all:.3} us |");
    }
}

/// Microseconds of processor time that a call takes.
fn each(calls: u64, mut call: impl FnMut(u64)) -> f64 {
    let began = used();
    (0..calls).for_each(&mut call);
    (used() - began).as_secs_f64() * 1e6 / calls as f64
}

fn with_keys(keys: u64) {
    let before = anonymous_kb();
    let began = used();
    let mut machine = Machine::filled(keys, 32);
    let fill = (used() - began).as_secs_f64() * 1e6 / keys as f64;
    let memory = anonymous_kb().saturating_sub(before) / 1024;
    let (mut numbers, value) = (Numbers(5), [b'y'; 32]);
    let puts = each(CALLS / 100, |_| {
        let puts = (0..100).map(|_| put(key(numbers.below(keys)), &value)).collect();
        machine.apply(&machine.entries(puts));
        machine.commit_if_large();
    }) / 100.0;
    machine.commit();
    let store = machine.state.store();
    let mut ask = |range: bool, limit, count_only| {
        let from = numbers.below(keys);
        let range_end = if range { b"/registry/pods0"[..].into() } else { Default::default() };
        let key = key(from).into();
        let request = pb::RangeRequest { key, range_end, limit, count_only, ..Default::default() };
        let reply = store.range(&request).expect("it is a good request");
        assert!(!reply.into_bytes().expect("the file can be read").is_empty());
    };
    let get = each(CALLS, |_| ask(false, 0, false));
    let page = each(CALLS / 100, |_| ask(true, 500, false));
    let count = each(CALLS, |_| ask(true, 0, true));
    println!(
        "| {keys} | {puts:.2} us | {get:.2} us | {page:.0} us | {count:.2} us | {fill:.2} us | {memory} MB |"
    );
}

fn with_watchers(watchers: u64, watched: fn(u64) -> Vec<u8>, events: u64) -> f64 {
    let mut machine = Machine::new();
    let mut stream = opened(&machine, watchers, watched);
    each(events, |_| {
        machine.apply(&machine.entries(vec![put(key(0), b"a value")]));
        assert!(sent(&machine, &mut stream) > 0);
    })
}

fn anonymous_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
