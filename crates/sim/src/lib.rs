//! For tests alone: a seeded world in which the core runs (clock, disk, network, clients), and the judges that
//! read what the clients saw. Nothing that is shipped depends on this crate.
//!
//! Here: `world`, the simulated world, and `run`, which lets one seed's world run and says what was wrong with it;
//! `shrink`, which makes a failing one small; `history`, what was asked and answered, in a form that a simulated
//! world and a driver of real processes both fill in; `model`, a small store that is obviously right; `judge`,
//! which holds the one against the other. Not here: real time, sockets and threads (`main` has the threads, so
//! that seeds run side by side).

#![forbid(unsafe_code)]

pub mod history;
pub mod judge;
pub mod model;
pub mod params;
pub mod rng;
pub mod run;
pub mod shrink;
pub mod stats;
pub mod world;
