//! The judges on histories whose verdict is known: good ones pass, and for each rule there is one that breaks
//! it and must be reported.

mod canaries;
mod orders;
mod script;
mod watches;

use super::{Rule, check};
use crate::history::History;

/// The rules that a history breaks.
fn broken(history: &History) -> Vec<Rule> {
    let mut rules = match check(history) {
        Ok(_) => Vec::new(),
        Err(all) => all.into_iter().map(|violation| violation.rule).collect(),
    };
    rules.sort();
    rules.dedup();
    rules
}

#[track_caller]
fn must_break(history: &History, rule: Rule) {
    let found = broken(history);
    assert!(found.contains(&rule), "{rule:?} was to be reported, found {found:?}");
}

#[track_caller]
fn must_pass(history: &History) {
    if let Err(all) = check(history) {
        panic!("{}", all.iter().map(|v| format!("{v}\n")).collect::<String>());
    }
}
