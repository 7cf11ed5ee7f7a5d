//! The simulated world itself: it repeats, it finds nothing wrong where nothing is, and it finds what is. Not
//! here: the thousand seeds of the gate (`cargo xtask sim`).

use etch_sim::params::Options;
use etch_sim::run::{fingerprint, run};

fn short(seed: u64) -> Options {
    Options { load_ms: 10_000, ..Options::new(seed) }
}

/// One seed is one history, to the last byte.
#[test]
fn a_seed_repeats() {
    for seed in 1..=4 {
        let (one, two) = (run(&short(seed)), run(&short(seed)));
        assert_eq!(one.violations, Vec::<String>::new(), "seed {seed}");
        assert!(one.history.operations.len() > 100);
        assert_eq!(one.stats, two.stats);
        assert_eq!(fingerprint(&one.history), fingerprint(&two.history), "seed {seed}");
    }
    assert_ne!(fingerprint(&run(&short(1)).history), fingerprint(&run(&short(2)).history));
}

/// Without its faults a world has none, and without its clients it is quiet.
#[test]
fn faults_and_clients_can_be_left_out() {
    let seed = (1..50).find(|seed| !run(&short(*seed)).stats.faults.is_empty());
    let options = short(seed.expect("most worlds have faults within ten seconds"));
    let calm = run(&Options { faults: Some(Vec::new()), ..options.clone() });
    assert_eq!(calm.violations, Vec::<String>::new());
    assert!(calm.stats.faults.is_empty());
    let quiet = Options { clients: Some(vec![0]), faults: Some(Vec::new()), ..options };
    let quiet = run(&quiet);
    assert_eq!(quiet.violations, Vec::<String>::new());
    assert!(quiet.history.operations.len() < calm.history.operations.len());
}
