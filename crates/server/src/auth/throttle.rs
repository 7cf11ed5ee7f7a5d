//! How many logins of one user from one address may fail: a handful at once, then one a second. Counted per
//! address, so that a stranger who guesses does not shut out the user. Not here: passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Failures that are let through at once.
const BURST: u64 = 20;
/// Time in which one of them is forgotten.
const FORGET_MS: u64 = 1000;
/// Users and addresses remembered; beyond that those are forgotten that have waited longest.
const REMEMBERED: usize = 10_000;

type Key = (String, Option<IpAddr>);

/// The failures of late.
#[derive(Default)]
pub struct Throttle {
    /// For each, when all its failures will be forgotten.
    clear_at: Mutex<HashMap<Key, u64>>,
}

impl Throttle {
    /// Whether a login may be tried.
    pub fn allows(&self, user: &str, from: Option<IpAddr>, now_ms: u64) -> bool {
        let table = self.clear_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(clear_at) = table.get(&(user.to_owned(), from)) else { return true };
        clear_at.saturating_sub(now_ms) < BURST * FORGET_MS
    }

    /// A login failed.
    pub fn failed(&self, user: &str, from: Option<IpAddr>, now_ms: u64) {
        let mut table = self.clear_at.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= REMEMBERED {
            table.retain(|_, clear_at| *clear_at > now_ms);
        }
        if table.len() >= REMEMBERED {
            let oldest =
                table.iter().min_by_key(|(_, clear_at)| **clear_at).map(|(key, _)| key.clone());
            oldest.map(|key| table.remove(&key));
        }
        let clear_at = table.entry((user.to_owned(), from)).or_insert(now_ms);
        *clear_at = (*clear_at).max(now_ms) + FORGET_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_failures_is_slowed_and_others_are_not() {
        let throttle = Throttle::default();
        let from = Some(IpAddr::from([127, 0, 0, 1]));
        for _ in 0..BURST {
            assert!(throttle.allows("ann", from, 5));
            throttle.failed("ann", from, 5);
        }
        assert!(!throttle.allows("ann", from, 5));
        assert!(throttle.allows("bob", from, 5));
        assert!(throttle.allows("ann", Some(IpAddr::from([127, 0, 0, 2])), 5));
        assert!(throttle.allows("ann", from, 5 + FORGET_MS));
        throttle.failed("ann", from, 5 + FORGET_MS);
        assert!(!throttle.allows("ann", from, 5 + FORGET_MS));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let throttle = Throttle::default();
        for i in 0..REMEMBERED + 10 {
            throttle.failed(&i.to_string(), None, i as u64);
        }
        assert!(throttle.clear_at.lock().unwrap().len() <= REMEMBERED);
    }
}
