//! A voter that never comes: what is left without a majority, and the way back.

use etch_api::pb::raftpb::ConfChangeType;

use super::*;

const ADD: ConfChangeType = ConfChangeType::ConfChangeAddNode;

/// Somebody whom nobody can reach.
fn stranger() -> Member {
    Member::new("", &["http://127.0.0.1:9999".into()], "", Some(1))
}

impl World {
    fn change(&mut self, kind: ConfChangeType, member: &Member, caller: u32) {
        self.node.propose_change(kind, member.id, member.change_context(false), caller);
    }

    fn outcome(&self, caller: u32) -> Option<Result<(), Error>> {
        let found = self.answers.iter().find(|(c, _)| *c == caller);
        found.map(|(_, answer)| answer.as_ref().map(drop).map_err(|e| *e))
    }

    /// Lets time go by, with a turn every 100 ms.
    fn wait(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.turn();
            self.flush();
            self.commit();
            self.now_ms += 100;
        }
    }

    fn voters(&self) -> usize {
        self.node.state().members().voters_and_learners().0.len()
    }
}

#[test]
fn a_voter_that_never_comes_takes_the_majority_with_it() {
    let mut world = World::open(MemDisk::new());
    world.change(ADD, &stranger(), 1);
    world.put("beside", 2);
    world.wait(200);
    assert_eq!(world.outcome(1), Some(Ok(())), "the answer to the addition itself comes");
    assert!(!world.node.view().is_lone_leader(), "reads have to ask from now on");
    // While we still lead, proposals are taken, and nobody votes for them.
    world.put("before", 3);
    world.node.read(4);
    world.wait(2500);
    assert_eq!(world.node.view().leader(), 0, "a leader without a majority steps down");
    assert_eq!((world.outcome(3), world.outcome(4)), (None, None));
    world.put("after", 5);
    world.node.read(6);
    world.change(ConfChangeType::ConfChangeRemoveNode, &stranger(), 7);
    world.wait(8000);
    assert_eq!(world.outcome(3), Some(Err(Error::Timeout)));
    assert_eq!(world.outcome(4), Some(Err(Error::Timeout)), "no new leader was elected meanwhile");
    assert_eq!(world.outcome(5), Some(Err(Error::DeadlineExceeded)), "raft has not seen it");
    assert_eq!(world.outcome(6), Some(Err(Error::Timeout)));
    assert_eq!(world.outcome(7), Some(Err(Error::DeadlineExceeded)));
    assert!(world.node.inbox.is_empty(), "nor will it, now that nobody waits");
    assert_eq!(world.node.view().term(), 2, "an election that cannot be won is not begun");
    // Everything that was applied can come to rest in the B+tree.
    world.node.stop();
    world.wait(300);
    assert!(world.node.is_settled());
}

/// Requests that come for ever without a leader leave nothing behind.
#[test]
fn what_nobody_waits_for_is_forgotten() {
    let mut world = World::open(MemDisk::new());
    world.change(ADD, &stranger(), 1);
    world.wait(3000);
    for n in 0..1000 {
        world.put("a", 10 + n);
        world.wait(100);
        assert!(world.node.inbox.len() <= 71, "{} proposals wait", world.node.inbox.len());
    }
}

#[test]
fn a_restart_without_a_majority_stays_so_and_force_new_cluster_ends_it() {
    for crash in [Crash::KeepAll, Crash::LoseAll] {
        let mut world = World::open(MemDisk::new());
        world.put("kept", 1);
        world.settle();
        world.change(ADD, &stranger(), 2);
        world.turn();
        world.flush();
        // Applied and answered; the B+tree may or may not know of it.
        world.turn();
        assert_eq!(world.outcome(2), Some(Ok(())));
        world.put("lost", 3);
        world.turn();
        world.flush();
        if matches!(crash, Crash::KeepAll) {
            world.wait(3000);
        }
        let revision = world.revision();
        let disk = world.disk.crash(crash);

        let mut again = World::start(disk.clone(), &recovery());
        again.put("refused", 1);
        again.wait(9000);
        assert_eq!((again.node.view().leader(), again.voters()), (0, 2));
        assert_eq!(again.outcome(1), Some(Err(Error::DeadlineExceeded)));
        assert_eq!(again.revision(), revision);

        let forced = Recovery { force_new_cluster: true, ..recovery() };
        let mut alone = World::start(again.disk.crash(Crash::LoseAll), &forced);
        alone.wait(1000);
        assert!(alone.node.view().is_lone_leader());
        assert_eq!((alone.voters(), alone.revision()), (1, revision), "what was lost stays so");
        alone.put("again", 1);
        alone.wait(200);
        assert_eq!(alone.outcome(1), Some(Ok(())));
        let after = World::open(alone.disk.crash(Crash::LoseAll));
        assert_eq!((after.voters(), after.revision()), (1, revision + 1));
    }
}

/// A voter that has a name has run, and may hold what we do not.
#[test]
fn a_cluster_of_members_that_have_run_is_refused() {
    let mut world = World::open(MemDisk::new());
    let named = Member { name: "two".into(), ..stranger() };
    world.change(ADD, &named, 1);
    world.wait(1000);
    let disk = world.disk.crash(Crash::KeepAll);
    let door: Arc<dyn Disk> = Arc::new(disk);
    let refused = recovery().open(&door).err().expect("it has two members");
    assert!(refused.to_string().contains("a cluster of 2"), "{refused}");
}

/// To raft an update is no promotion: a learner that changes its URLs is a learner still.
#[test]
fn a_learner_that_is_updated_stays_a_learner() {
    let mut world = World::open(MemDisk::new());
    let learner = Member { is_learner: true, ..stranger() };
    world.change(ConfChangeType::ConfChangeAddLearnerNode, &learner, 1);
    world.wait(300);
    let moved = Member { peer_urls: vec!["http://127.0.0.1:9998".into()], ..learner };
    world.change(ConfChangeType::ConfChangeUpdateNode, &moved, 2);
    world.put("a", 3);
    world.wait(5000);
    assert_eq!([1, 2, 3].map(|n| world.outcome(n)), [Some(Ok(())); 3]);
    assert!(world.node.view().is_lone_leader());
    world.put("b", 4);
    world.wait(200);
    assert_eq!(world.outcome(4), Some(Ok(())));
}

/// Without a voter raft could not go on: that is refused, and not a panic.
#[test]
fn the_only_voter_cannot_be_removed() {
    let mut world = World::open(MemDisk::new());
    let us = recovery().new_member;
    world.change(ConfChangeType::ConfChangeRemoveNode, &us, 1);
    world.wait(300);
    assert_eq!(world.outcome(1), Some(Err(Error::MemberNotEnoughStarted)));
    assert_eq!(world.voters(), 1);
}

/// Entries are kept in memory for those who follow: for a learner yes, alone none.
#[test]
fn entries_are_kept_for_those_who_follow() {
    let mut world = World::open(MemDisk::new());
    let held = |world: &World| world.node.raft.store().bytes();
    let put_many = |world: &mut World| {
        for i in 0..50 {
            world.put(&format!("k{i}"), i);
        }
        world.wait(500);
    };
    put_many(&mut world);
    assert_eq!(held(&world), 0, "nobody follows");
    let learner = Member { is_learner: true, ..stranger() };
    world.change(ConfChangeType::ConfChangeAddLearnerNode, &learner, 100);
    world.wait(500);
    put_many(&mut world);
    assert!(held(&world) > 0, "a learner may want the last few");
}
