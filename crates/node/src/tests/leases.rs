//! Leases that end: what who waits for the end gets to see.

use std::sync::atomic::{AtomicI64, Ordering};

use etch_api::pb::etcdserverpb::LeaseGrantRequest;
use etch_state::lease::RenewError;
use etch_state::mvcc::Store;
use etch_state::watch::Wake;

use super::*;

/// Notes the revision that can be read when it is woken.
struct Witness {
    store: Arc<Store>,
    seen: AtomicI64,
}

impl Wake for Witness {
    fn wake(&self) {
        self.seen.store(self.store.revision(), Ordering::Release);
    }
}

/// A keep-alive of an expired lease is answered once the lease's keys are seen to be gone, not before.
#[test]
fn the_end_of_a_lease_is_told_when_its_keys_are_gone() {
    let mut world = World::open(MemDisk::new());
    let grant = LeaseGrantRequest { id: 7, ttl: 2 }.encode_to_vec();
    world.node.propose(&Header::default(), RequestKind::LeaseGrant, &grant, None);
    let put = PutRequest { key: "a".into(), lease: 7, ..PutRequest::default() }.encode_to_vec();
    world.node.propose(&Header::default(), RequestKind::Put, &put, None);
    world.settle();
    assert_eq!(world.revision(), 2);
    let lessor = Arc::clone(world.node.state().lessor());
    let store = Arc::clone(world.node.state().store());
    while lessor.renew(7, 0) != Err(RenewError::Expired) {
        world.now_ms += 100;
        world.node.advance(world.now_ms);
        world.turn();
    }
    let witness = Arc::new(Witness { store, seen: AtomicI64::new(0) });
    assert!(lessor.wait_revoked(7, Arc::clone(&witness) as Arc<dyn Wake>));
    world.settle();
    assert_eq!(witness.seen.load(Ordering::Acquire), 3, "the revision that took the key away");
    assert_eq!(lessor.renew(7, 0), Err(RenewError::NotFound));
}
