//! Every parser of outside bytes, under bytes that nobody would send: files that come from anywhere, requests,
//! entries of a log, flags, and what arrives on the port. None may panic, hang, or take memory without bound.
//!
//! Here: the bodies of the fuzz targets, which `fuzz/` (cargo-fuzz) and the runner for a stable toolchain
//! (`main`) both call; the runner's mutations, corpus and count of memory. Not here: whether answers are
//! right, but where a parser has an inverse.

mod bytes;
pub mod corpus;
pub mod memory;
pub mod mutate;
mod targets;

pub use bytes::Bits;

/// A parser under test.
pub struct Target {
    /// Its name: of its corpus' directory, and of the cargo-fuzz target.
    pub name: &'static str,
    /// Takes whatever comes; panics where something is wrong.
    pub run: fn(&[u8]),
    /// Inputs of the right form, beside the corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What a run may take at the most, in bytes, beside a multiple of its input.
    pub memory: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    targets::wal::TARGET,
    targets::wal::RECORDS,
    targets::snap::TARGET,
    targets::db::TARGET,
    targets::db::ROWS,
    targets::requests::TARGET,
    targets::entries::TARGET,
    targets::entries::APPLY,
    targets::auth::TARGET,
    #[cfg(feature = "server")]
    targets::jwt::TARGET,
    #[cfg(feature = "server")]
    targets::config::FLAGS,
    #[cfg(feature = "server")]
    targets::config::FILE,
    #[cfg(feature = "server")]
    targets::config::URLS,
    #[cfg(feature = "server")]
    targets::port::HTTP1,
    targets::json::JSON,
    targets::json::SOCKET,
    targets::port::HTTP2,
    targets::port::GRPC,
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs a target by its name; for cargo-fuzz.
pub fn run(name: &str, input: &[u8]) {
    let target = target(name).unwrap_or_else(|| panic!("no target is called {name}"));
    (target.run)(input);
}

/// Runs this where transactions as deep as they may be nested find room on the stack, as in the server.
pub fn on_large_stack(run: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(etch_state::txn::STACK);
        let thread = thread.spawn_scoped(scope, run).expect("a thread");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
