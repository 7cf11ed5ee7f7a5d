//! Leases that end: what who waits for the end gets to see.

use std::sync::atomic::{AtomicI64, Ordering};

use etch_api::pb::etcdserverpb::LeaseGrantRequest;
use etch_state::lease::RenewError;
use etch_state::mvcc::Store;
use etch_state::watch::Wake;
use raft::eraftpb::{Message, MessageType};

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

/// A leader whose disk stands still finds a lease to be over, and hears of its successor before it can propose
/// the end: the successor has given the lease its whole time anew, so the old one's word must not reach it
/// (15247).
#[test]
fn i15247_a_deposed_leader_ends_no_lease() {
    let mut world = World::open(MemDisk::new());
    let grant = LeaseGrantRequest { id: 7, ttl: 2 }.encode_to_vec();
    world.node.propose(&Header::default(), RequestKind::LeaseGrant, &grant, None);
    world.settle();
    // Two writes that are never done: what comes now waits.
    for caller in 1..=3 {
        world.put("a", caller);
        world.turn();
    }
    let lessor = Arc::clone(world.node.state().lessor());
    while lessor.renew(7, 0) != Err(RenewError::Expired) {
        world.now_ms += 100;
        world.turn();
    }
    assert_eq!(world.node.inbox.len(), 2, "a put, and the end of the lease");
    let mut heartbeat = Message { from: 2, to: world.node.config.id, ..Message::default() };
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    heartbeat.term = world.node.view().term() + 1;
    world.node.step(heartbeat);
    for _ in 0..3 {
        world.turn();
        world.flush();
    }
    assert_eq!(world.node.view().leader(), 2);
    let handed_on = |message: &&Message| message.get_msg_type() == MessageType::MsgPropose;
    let handed_on: Vec<&Message> = world.out.messages.iter().filter(handed_on).collect();
    let entries: usize = handed_on.iter().map(|message| message.entries.len()).sum();
    assert_eq!(entries, 1, "a client's put is handed on, and nothing else");
}
