//! Worlds in which one thing is done by hand, where chance would take thousands of seeds to come upon it. Not here:
//! what seeds draw.

use super::*;
use crate::history::{Request, Response};
use crate::judge;
use crate::params::SECOND;

/// Three members without faults, and without clients.
fn quiet_options() -> Options {
    Options {
        members: Some(3),
        faults: Some(Vec::new()),
        clients: Some(Vec::new()),
        load_ms: 30_000,
        ..Options::new(1)
    }
}

/// A world of these, in which clients do what a test asks.
fn quiet() -> World {
    let mut world = World::new(quiet_options());
    world.params.patience = SECOND;
    world
}

impl World {
    fn run_to(&mut self, at: u64) {
        while self.now < at && self.violations.is_empty() {
            self.step();
        }
    }

    fn leader(&self) -> Option<usize> {
        self.members.iter().position(|m| {
            m.paused_until <= self.now
                && m.process
                    .as_ref()
                    .is_some_and(|p| p.serving && p.node.view().leader() == m.row.id)
        })
    }

    /// Asks a member, and waits until the client has an answer or gives up.
    fn ask_for(&mut self, member: usize, request: Request) -> Outcome {
        let operation = self.history.operations.len();
        self.ask(0, member, request);
        while self.open.contains_key(&operation) && self.violations.is_empty() {
            self.step();
        }
        self.history.operations[operation].outcome.clone()
    }
}

/// A leader stands still, another one is elected and gives the lease its whole time anew. When the first goes on, it
/// does not know that yet, and a renewal is the first thing that it hears: its word would prolong nothing, and the
/// lease would end before its time (12528).
#[test]
fn i12528_a_leader_that_was_replaced_while_it_stood_still_renews_nothing() {
    let mut world = quiet();
    world.run_to(5 * SECOND);
    let old = world.leader().expect("there is one by now");
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 10 };
    let granted = world.ask_for(old, Request::LeaseGrant(grant));
    assert!(matches!(granted, Outcome::Ok(_)), "{granted:?}");
    let goes_on = world.now + 7 * SECOND;
    world.members[old].paused_until = goes_on;
    world.run_to(goes_on - 100 * MS);
    let new = world.leader().expect("the others have elected one");
    assert_ne!(new, old);
    let renew = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 7 });
    let renewed = world.ask_for(old, renew);
    let told = |outcome: &Outcome| match outcome {
        Outcome::Ok(Response::LeaseKeepAlive(told)) => told.ttl,
        _ => 0,
    };
    assert_eq!(told(&renewed), 0, "{renewed:?}");
    // Nor does anybody see it end before its time.
    while !world.done && world.violations.is_empty() {
        world.step();
    }
    let outcomes = world.finish();
    assert_eq!(outcomes.violations, Vec::<String>::new());
    judge::check(&outcomes.history).expect("no rule is broken");
}

/// A reader with a small window may have a long history before it: it is not late as long as it is told events, and
/// it is once nothing comes any more (seed 8231 had one that was called late).
#[test]
fn a_watch_that_is_still_told_events_is_not_late() {
    let mut options = quiet_options();
    // The first of those that watch, and nobody else.
    options.clients = Some(vec![Params::draw(&options).clients + 1]);
    let mut world = World::new(options);
    // Nothing is ever sent, so that the stream always has something to say.
    world.params.stream_window = 0;
    world.run_to(30 * SECOND);
    let healed = world.now;
    while world.now < healed + 120 * SECOND && world.violations.is_empty() {
        world.last_event = world.now;
        world.step();
    }
    assert_eq!(world.violations, Vec::<String>::new());
    assert!(!world.done, "a watch waits");
    let last = world.now;
    while !world.done && world.violations.is_empty() {
        world.step();
    }
    assert!(world.violations.concat().contains("a watch has something to say"));
    assert!((last + 40 * SECOND..last + 50 * SECOND).contains(&world.now));
}
