//! What a million leases cost: grants, renewals, a new leader, expiry. Run with
//! `cargo bench -p etch-state --bench lease`.

use std::hint::black_box;
use std::time::Instant;

use etch_disk::backend::Batch;
use etch_state::lease::{Lessor, LessorConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LEASES: i64 = 1_000_000;

fn timed(name: &str, count: usize, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let total = start.elapsed();
    println!("{name:<44} {:>8.1} ns each, {total:>10.1?} in all", {
        total.as_nanos() as f64 / count as f64
    });
}

fn main() {
    let lessor = Lessor::new(LessorConfig::default());
    let all = LEASES as usize;
    let mut batch = Batch::new();
    timed("grant", all, || {
        for n in 0..LEASES {
            lessor.grant(n * 77 + 1, 60 + n % 600, &mut batch).unwrap();
            if n % 1000 == 0 {
                batch.clear();
            }
        }
    });
    timed("promote", all, || lessor.promote(0, 1000));
    timed("renew", all, || {
        for n in 0..LEASES {
            black_box(lessor.renew(n * 7919 % LEASES * 77 + 1, 30_000).unwrap());
        }
    });
    timed("time to live", all, || {
        for n in 0..LEASES {
            black_box(lessor.time_to_live(n * 7919 % LEASES * 77 + 1, 30_000));
        }
    });
    let (mut now, mut looks, mut ended, mut worst) = (30_000, 0, 0, 0);
    timed("expiry, all of them, a look each 500 ms", all, || {
        while ended < all {
            now += 500;
            looks += 1;
            let start = Instant::now();
            let some = lessor.expired(now, 5000);
            worst = worst.max(start.elapsed().as_micros());
            ended += some.len();
            for id in some {
                lessor.revoke(id, &mut batch).unwrap();
            }
            batch.clear();
        }
    });
    println!("{looks} looks, the longest took {worst} us");
}
