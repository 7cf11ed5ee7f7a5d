//! The network: what becomes of a message between two members, or between a client and a member. It may be lost,
//! late, doubled, and overtaken by others; a link may be cut, in one direction only too. Not here: what the
//! messages say.

use std::collections::BTreeSet;

use crate::params::{Delays, Params};
use crate::rng::Rng;

/// Who sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A member.
    Member(usize),
    /// A client that asks.
    Client(usize),
    /// A client that watches.
    Watcher(usize),
}

/// All links.
pub struct Network {
    rng: Rng,
    delays: Delays,
    /// Links that are cut, from whom to whom. A link may be cut by several faults at once.
    cut: Vec<(Place, Place)>,
    healed: bool,
}

impl Network {
    /// A network in which everybody hears everybody.
    pub fn new(seed: u64, params: &Params) -> Self {
        let delays = params.delays.clone();
        Self { rng: Rng::new(seed, 3), delays, cut: Vec::new(), healed: false }
    }

    /// Cuts a link in one direction.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cut.push((from, to));
    }

    /// Takes back one cut of a link.
    pub fn mend(&mut self, from: Place, to: Place) {
        if let Some(at) = self.cut.iter().position(|c| *c == (from, to)) {
            self.cut.swap_remove(at);
        }
    }

    /// No more loss and no cut: only delays remain.
    pub fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
    }

    /// Whether a link is cut.
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cut.contains(&(from, to))
    }

    /// After which times copies of a message arrive: usually one, none if it is lost.
    pub fn send(&mut self, from: Place, to: Place) -> Vec<u64> {
        let between_members = matches!((from, to), (Place::Member(_), Place::Member(_)));
        let mean = if between_members { self.delays.peer } else { self.delays.client };
        let delay = self.rng.delay(mean);
        if self.is_cut(from, to) || !self.healed && self.rng.chance(self.delays.loss) {
            return Vec::new();
        }
        let mut copies = vec![delay];
        // A transport may send again what has arrived; a request of a client never is.
        if between_members && !self.healed && self.rng.chance(self.delays.loss) {
            copies.push(delay + self.rng.delay(mean));
        }
        copies
    }

    /// The delay on a connection that keeps order and loses nothing.
    pub fn stream_delay(&mut self) -> u64 {
        let mean = self.delays.client;
        self.rng.delay(mean)
    }

    /// Draws two groups of members, neither of them empty, and cuts what one says to the other; in half of the
    /// cases also the other way round. Gives the links.
    pub fn partition(&mut self, members: usize, rng: &mut Rng) -> Vec<(Place, Place)> {
        let side = rng.between(1, (1 << members) - 2);
        let inside = |m: usize| side >> m & 1 == 1;
        let both = rng.chance(500);
        let mut links = BTreeSet::new();
        for a in (0..members).filter(|m| inside(*m)) {
            for b in (0..members).filter(|m| !inside(*m)) {
                links.insert((Place::Member(a), Place::Member(b)));
                if both {
                    links.insert((Place::Member(b), Place::Member(a)));
                }
            }
        }
        for (from, to) in &links {
            self.cut(*from, *to);
        }
        links.into_iter().collect()
    }
}
