//! Coordination: sessions, locks, elections, transactions over memory. As in Go's client, all of it is made of keys and
//! leases: the server knows nothing of it, and programs in both languages can take part.

mod election;
mod mutex;
mod session;
mod stm;
mod wait;

pub use election::{Election, Leadership};
pub use mutex::{Guard, Mutex};
pub use session::{Session, SessionBuilder};
pub use stm::{Isolation, Stm, StmBuilder};

pub(crate) use wait::{Cleanup, wait_for_older};
