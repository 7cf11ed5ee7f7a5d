//! Micro-benchmarks of the parts that a request goes through, so that a regression shows where it is. Not here: the
//! server as a whole (`cargo xtask bench`). See `docs/benchmarks.md`.

mod backend;
mod beside;
mod growth;
mod index;
mod machine;
mod store;
mod wal;
mod watch;

use criterion::Criterion;

/// `growth` prints how cost grows, up to ten million keys or as many as are named, and `lmdb` the B+tree beside
/// LMDB; anything else is criterion's.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "growth") {
        let most = args.get(1).and_then(|arg| arg.parse().ok());
        return growth::table(most.unwrap_or(10_000_000));
    }
    if args.first().is_some_and(|arg| arg == "lmdb") {
        return beside::table();
    }
    let mut criterion = Criterion::default().configure_from_args();
    for part in [index::all, store::all, wal::all, backend::all, watch::all] {
        part(&mut criterion);
    }
    criterion.final_summary();
}
