//! For tests alone: a seeded world in which the core runs (clock, disk, network, clients), and the judges that
//! read what the clients saw. Nothing that is shipped depends on this crate.
//!
//! Here: `history`, what was asked and answered, in a form that a simulated world and a driver of real
//! processes both fill in; `model`, a small store that is obviously right; `judge`, which holds the one against
//! the other. Not here: real time, sockets and threads.

#![forbid(unsafe_code)]

pub mod history;
pub mod judge;
pub mod model;
