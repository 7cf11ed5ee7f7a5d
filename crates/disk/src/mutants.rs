//! Old bugs of etcd's, and of our own, kept as switches, so that the tests and the simulated world can show that they would
//! find them. Here: which there are, and the switch. Not here: the bugs, which stand where they would be
//! made, as `if mutants::on(Mutant::I14370)`.
//!
//! Without the cargo feature `mutants` nothing is ever on, and the compiler drops the bugs: no program that
//! ships has the feature.

macro_rules! mutants {
    ($($name:ident $what:literal)*) => {
        /// A bug, by the number of its issue upstream; what was ours alone has a name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $what] $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)*];

            /// Its name, as the command line takes it.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$name => stringify!($name),)* }
            }

            /// What goes wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Mutant::$name => $what,)* }
            }
        }
    };
}

mutants! {
    Canary "What is put is answered and not done: who does not see this in each world sees nothing"
    I14370 "A lone member answers before its log is durable"
    I11651 "A change of users is committed without the applied index, and applied twice after a restart"
    I14571 "Permissions are not worked out anew when a snapshot replaces the users"
    I21683 "A put in a transaction is not checked for what its prev_kv shows and whose lease it takes"
    I14355 "After a start nobody may do anything until a permission changes"
    I15814 "Who asks what a lease has is shown keys that it may not read"
    GhsaXg4h "Who may read one key may watch all that follow it"
    Cve202633343 "A transaction within a transaction is not checked"
    I18679 "A transaction that fails half way leaves its first half"
    I18667 "The revisions of ranges in a transaction are not looked at when it is applied"
    I12535 "A lease with a negative id is forgotten at a restart"
    I17228 "What is on its way to the file is looked for in the file alone"
    R105 "After a restart a lone member answers reads before it knows what was committed"
    I20221 "A watch from a revision yet to come gets what happens before that"
    I15220 "A notice of progress goes out before the events that it speaks of"
    I17529 "A watcher that is overtaken by a compaction goes on behind it and is told nothing"
    I18089 "A compaction drops the deletion at its own revision"
    I15248 "A watcher that joins the others is sent once more what it has read in history"
    I11496 "A watch from revision 0 begins at the beginning"
    I14562 "A watch that could not be made ends the one with id 0"
    I9291 "The events of a revision are sent in several responses, and nothing says so"
    I15247 "A leader that was deposed meanwhile has leases revoked whose time it has run"
    I12528 "A leader that was deposed meanwhile renews leases"
    I14758 "A lease that is being revoked can be renewed"
    I11456 "A key is put under a lease that has ended"
    I19179 "A compaction that a crash cut short is forgotten: what it has deleted is missed"
    I13766 "The applied index is saved before the data that it speaks of"
    I13937 "Entries that change nothing do not move the saved index"
    I14685 "A step of defragmentation counts before its pages are durable"
    I11613 "A file that a crash left half made is in the way of the next"
    I5230 "A torn tail of the log is not cut off"
    I6515 "A record of the log with a sector missing is taken as it is"
    I14114 "A record of the log that goes on past the end of the file keeps the member from starting"
    I6378 "A record of the log with a sector missing keeps the member from starting"
    I6368 "The name of a new segment of the log is not made durable"
    I14102 "The checksum of the log's records is not looked at"
    I12691 "The log has a note of a raft snapshot whose file is not durable"
    I17780 "After a restart the revision is that of the newest change that a compaction left"
    AheadOfLog "The B+tree is committed before the log records that its entries are"
    UnflushedTail "A start goes on in a log whose end and newest name the kernel alone may hold"
    UnflushedRoot "A start goes on from a root of the B+tree that the kernel alone may hold"
    LateCheckpoint "A lease is renewed while a checkpoint of it is on its way"
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches one bug on for this thread, and all others off.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    ON.with(|on| on.set(mutant));
}

/// The variable that switches one bug on for a whole process: for tests that know nothing of bugs.
#[cfg(feature = "mutants")]
pub const VARIABLE: &str = "ETCH_MUTANT";

#[cfg(feature = "mutants")]
fn everywhere() -> Option<Mutant> {
    static NAMED: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    })
}

/// Whether this bug is switched on.
#[cfg(feature = "mutants")]
pub fn on(mutant: Mutant) -> bool {
    ON.with(|on| on.get()).or_else(everywhere) == Some(mutant)
}

/// Whether this bug is switched on: never.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}
