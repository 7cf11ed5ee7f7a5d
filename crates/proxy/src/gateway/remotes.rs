//! The endpoints of a gateway: which one the next connection goes to, and which are set aside because they
//! failed. Not here: connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::discover::Target;

/// All endpoints. Every thread asks the same one, so that turns are taken among all connections.
pub(super) struct Remotes {
    all: Vec<Remote>,
    state: Mutex<State>,
}

struct Remote {
    address: String,
    priority: u16,
    weight: u16,
}

struct State {
    active: Vec<bool>,
    turn: usize,
    random: fastrand::Rng,
}

/// An endpoint's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// Where others have weights, one without gets one connection of so many.
const RARELY: u32 = 100;

impl Remotes {
    /// These endpoints, all of them in use.
    pub(super) fn new(targets: &[Target], random: fastrand::Rng) -> Self {
        let all = targets.iter().map(|t| Remote {
            address: t.address(),
            priority: t.priority,
            weight: t.weight,
        });
        let state = State { active: vec![true; targets.len()], turn: 0, random };
        Self { all: all.collect(), state: Mutex::new(state) }
    }

    /// Their addresses.
    pub(super) fn addresses(&self) -> Vec<&str> {
        self.all.iter().map(|remote| remote.address.as_str()).collect()
    }

    /// An endpoint's address.
    pub(super) fn address(&self, place: Place) -> &str {
        &self.all[place.0].address
    }

    /// The endpoint for the next connection: of those in use with the lowest priority one by weight, or in turn
    /// where there are no weights.
    pub(super) fn pick(&self) -> Option<Place> {
        let state = &mut *self.lock();
        let in_use = || (0..self.all.len()).filter(|at| state.active[*at]);
        let best = in_use().map(|at| self.all[at].priority).min()?;
        let class = || in_use().filter(|at| self.all[*at].priority == best);
        let weighted = || class().filter(|at| self.all[*at].weight > 0);
        let unweighted = || class().filter(|at| self.all[*at].weight == 0);
        let sum: u32 = weighted().map(|at| u32::from(self.all[at].weight)).sum();
        if sum == 0 || (state.random.u32(0..RARELY) == 0 && unweighted().next().is_some()) {
            let place = unweighted().nth(state.turn % unweighted().count())?;
            state.turn = state.turn.wrapping_add(1);
            return Some(Place(place));
        }
        let mut chosen = state.random.u32(0..sum);
        for at in weighted() {
            let weight = u32::from(self.all[at].weight);
            if chosen < weight {
                return Some(Place(at));
            }
            chosen -= weight;
        }
        None
    }

    /// Sets an endpoint aside. False if it was already.
    pub(super) fn set_aside(&self, place: Place) -> bool {
        std::mem::replace(&mut self.lock().active[place.0], false)
    }

    /// Takes an endpoint into use again.
    pub(super) fn take_back(&self, place: Place) {
        self.lock().active[place.0] = true;
    }

    /// The endpoints that are set aside.
    pub(super) fn aside(&self) -> Vec<Place> {
        let state = self.lock();
        (0..self.all.len()).filter(|at| !state.active[*at]).map(Place).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(rows: &[(u16, u16)]) -> Remotes {
        let targets: Vec<Target> = rows
            .iter()
            .map(|(priority, weight)| Target {
                priority: *priority,
                weight: *weight,
                ..Target::plain("h", 1)
            })
            .collect();
        Remotes::new(&targets, fastrand::Rng::with_seed(7))
    }

    fn picks(remotes: &Remotes, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| remotes.pick()).map(|place| place.0).collect()
    }

    #[test]
    fn turns_are_taken() {
        let remotes = remotes(&[(0, 0), (0, 0), (0, 0)]);
        assert_eq!(picks(&remotes, 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn one_that_is_set_aside_gets_nothing_until_it_is_back() {
        let remotes = remotes(&[(0, 0), (0, 0)]);
        assert!(remotes.set_aside(Place(0)));
        assert!(!remotes.set_aside(Place(0)));
        assert_eq!(picks(&remotes, 3), [1, 1, 1]);
        assert!(remotes.set_aside(Place(1)));
        assert_eq!(remotes.pick(), None);
        assert_eq!(remotes.aside(), [Place(0), Place(1)]);
        remotes.take_back(Place(0));
        assert_eq!(picks(&remotes, 2), [0, 0]);
    }

    #[test]
    fn a_lower_priority_goes_first_and_a_higher_one_only_where_all_of_it_failed() {
        let remotes = remotes(&[(20, 0), (10, 0), (10, 0), (20, 0)]);
        assert_eq!(picks(&remotes, 4), [1, 2, 1, 2]);
        remotes.set_aside(Place(1));
        assert_eq!(picks(&remotes, 2), [2, 2]);
        remotes.set_aside(Place(2));
        let mut last = picks(&remotes, 2);
        last.sort_unstable();
        assert_eq!(last, [0, 3]);
    }

    #[test]
    fn weights_share_connections_out() {
        let remotes = remotes(&[(0, 1), (0, 3), (0, 0), (5, 60_000)]);
        let mut counts = [0; 4];
        picks(&remotes, 40_000).into_iter().for_each(|at| counts[at] += 1);
        assert!((9_300..10_500).contains(&counts[0]), "{counts:?}");
        assert!((28_700..30_700).contains(&counts[1]), "{counts:?}");
        assert!((250..600).contains(&counts[2]), "{counts:?}");
        assert_eq!(counts[3], 0);
    }
}
