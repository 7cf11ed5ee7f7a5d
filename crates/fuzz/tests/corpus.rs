//! Each target stands its corpus, and a few inputs made from it: a moment of the runner in every test run.

use std::time::Duration;

use etch_fuzz::corpus::{self, Plan};
use etch_fuzz::memory::Counting;
use etch_fuzz::{TARGETS, on_large_stack};

#[global_allocator]
static MEMORY: Counting = Counting;

#[test]
fn every_target_stands_its_corpus() {
    on_large_stack(|| {
        let plan = Plan { time: Duration::from_secs(3), inputs: 300, seed: 7 };
        for target in TARGETS {
            if let Err(failure) = corpus::run(target, plan) {
                panic!("{}: {}: {:x?}", target.name, failure.why, failure.input);
            }
        }
    });
}

/// The runner sees what it is there for.
#[test]
fn a_panic_and_a_glutton_are_found() {
    let panics = etch_fuzz::Target {
        name: "panics",
        run: |input| assert!(input.len() < 3, "too long"),
        seeds: || vec![vec![1, 2]],
        memory: 1 << 20,
    };
    let plan = Plan { time: Duration::from_secs(10), inputs: 10_000, seed: 1 };
    let failure = corpus::run(&panics, plan).expect_err("an input of three bytes is soon made");
    assert!(failure.input.len() >= 3 && failure.why.contains("too long"));
}
