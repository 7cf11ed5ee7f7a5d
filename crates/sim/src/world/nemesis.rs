//! Faults: which ones a seed plans, and how each begins and ends. `docs/proof.md` says what a correct member has
//! to survive of them, and what it may refuse. Not here: what a disk does in a crash (`etch_disk::fs::mem`).

use std::io;
use std::path::PathBuf;

use etch_disk::fs::mem::{Crash, Fault as DiskFault};
use etch_disk::fs::{Disk as _, Open};

use super::flip::Flip;
use super::member::Doom;
use super::network::Place;
use super::{Event, World};
use crate::params::{Kind, MS, Options, Params, SECOND};
use crate::rng::Rng;

/// One planned fault.
#[derive(Clone, Debug)]
pub struct Fault {
    pub at: u64,
    pub kind: Kind,
    pub member: usize,
    /// How long it lasts, where it lasts.
    pub lasts: u64,
    /// What else it needs to know.
    pub rng: Rng,
    /// Links that it has cut.
    pub links: Vec<(Place, Place)>,
}

/// All faults of a seed.
pub fn plan(options: &Options, params: &Params) -> Vec<Fault> {
    let rng = &mut Rng::new(options.seed, 4);
    let mut faults = Vec::new();
    let mut at = 500 * MS;
    loop {
        at += rng.delay(params.faults.every);
        if at >= options.load_ms * MS {
            return faults;
        }
        let kind = rng.weighted(&params.faults.weights);
        let lasts = rng.pick(&[20, 200, 1000, 4000]) * MS + rng.below(SECOND);
        let member = rng.below(params.members as u64) as usize;
        let rng = Rng::new(rng.number(), 0);
        faults.push(Fault { at, kind, member, lasts, rng, links: Vec::new() });
    }
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for number in 0..self.faults.len() {
            if self.options.faults.as_ref().is_none_or(|list| list.contains(&number)) {
                self.at(self.faults[number].at, Event::Fault { number });
            }
        }
    }

    /// A fault begins, if it can.
    pub(super) fn fault(&mut self, number: usize) {
        let Fault { kind, member, lasts, mut rng, .. } = self.faults[number].clone();
        if self.healed {
            return;
        }
        let m = &mut self.members[member];
        let runs = m.process.is_some();
        let chance = rng.number();
        let crash = if rng.chance(300) { Crash::LoseAll } else { Crash::Seed(chance) };
        let began = match kind {
            Kind::Kill if runs => {
                self.kill(member);
                true
            }
            Kind::PowerLoss => {
                self.power_lost(member, crash);
                true
            }
            Kind::CrashAtCall => self.doom(member, Doom::Power(chance), rng.between(0, 40)),
            Kind::KillAtCall => self.doom(member, Doom::Kill, rng.between(0, 40)),
            Kind::CrashInRecovery => {
                self.power_lost(member, crash);
                self.doom(member, Doom::Power(chance), rng.between(0, 12))
            }
            Kind::IoError => self.doom(member, Doom::Error, rng.between(0, 40)),
            Kind::DiskFull if !m.is_full => {
                m.is_full = true;
                m.disk.set_capacity(Some(m.disk.used() + rng.below(64 << 10)));
                true
            }
            Kind::Pause if runs => {
                m.paused_until = m.paused_until.max(self.now + lasts);
                true
            }
            Kind::SlowDisk => {
                m.disk_slow_until = self.now + lasts;
                true
            }
            Kind::ClockJump => {
                let jump = rng.pick(&[10, 500, 3000]);
                m.clock_ahead_ms += jump;
                self.history.clock_ahead_ns += jump * MS;
                true
            }
            Kind::BitFlip if runs => self.flip(member, &mut rng),
            Kind::ClientPartition => {
                self.cut_clients(number, &mut rng);
                true
            }
            Kind::Partition if self.members.len() > 1 => {
                self.faults[number].links = self.network.partition(self.members.len(), &mut rng);
                true
            }
            _ => false,
        };
        if began {
            self.note(|| {
                format!("fault {number}, member {member}: {}, {} ms", kind.name(), lasts / MS)
            });
            *self.stats.faults.entry(kind.name()).or_default() += 1;
            self.after(lasts, Event::FaultEnds { number });
        }
    }

    pub(super) fn fault_ends(&mut self, number: usize) {
        self.note(|| format!("fault {number} ends"));
        let fault = &self.faults[number];
        let m = &mut self.members[fault.member];
        match fault.kind {
            Kind::DiskFull => {
                m.is_full = false;
                m.disk.set_capacity(None);
            }
            Kind::ClientPartition | Kind::Partition => {
                for (from, to) in fault.links.clone() {
                    self.network.mend(from, to);
                }
            }
            _ => {}
        }
    }

    /// Some call to storage that is yet to come will fail.
    fn doom(&mut self, member: usize, doom: Doom, calls: u64) -> bool {
        let m = &mut self.members[member];
        if m.doom.is_some() {
            return false;
        }
        m.doom = Some(doom);
        let forever = doom != Doom::Error;
        let call = m.disk.calls() + calls;
        m.disk.set_fault(Some(DiskFault { call, kind: io::ErrorKind::Other, forever }));
        true
    }

    /// The process is killed, and a bit of one of its files is not what it was.
    fn flip(&mut self, member: usize, rng: &mut Rng) -> bool {
        self.kill(member);
        let m = &mut self.members[member];
        if m.flipped.as_ref().is_some_and(|flip| flip.is_there(&m.disk)) {
            return false;
        }
        let dir = if rng.chance(800) { "/data/member/wal" } else { "/data/member/snap" };
        let names = m.disk.list(dir.as_ref()).unwrap_or_default();
        let names: Vec<&String> =
            names.iter().filter(|n| n.ends_with(".wal") || n.ends_with(".snap")).collect();
        if names.is_empty() {
            return false;
        }
        let path = PathBuf::from(dir).join(rng.pick(&names));
        let Ok(len) = m.disk.open(&path, Open::Read).and_then(|file| file.len()) else {
            return false;
        };
        let at = rng.below(len);
        let Ok(flip) = Flip::make(&m.disk, &path, at, rng.below(8) as u32) else { return false };
        m.flipped = Some(flip);
        self.note(|| format!("flip in {} at {at}", path.display()));
        true
    }

    /// A member and some of its clients do not hear one another, in one direction or both.
    fn cut_clients(&mut self, number: usize, rng: &mut Rng) {
        let member = Place::Member(self.faults[number].member);
        let clients = (0..self.clients.len()).map(Place::Client);
        let watchers = (0..self.watchers.len()).map(Place::Watcher);
        let (there, back) = rng.pick(&[(true, true), (true, false), (false, true)]);
        let mut links = Vec::new();
        for place in clients.chain(watchers) {
            if !rng.chance(500) {
                continue;
            }
            if there {
                links.push((place, member));
            }
            if back {
                links.push((member, place));
            }
            if let Place::Watcher(watcher) = place {
                self.break_streams(watcher);
            }
        }
        for (from, to) in &links {
            self.network.cut(*from, *to);
        }
        self.faults[number].links = links;
    }

    /// No fault any more: what was cut is whole, what was full has room. What stands still goes on when its time
    /// has come, and not before those who wait for it.
    pub(super) fn end_faults(&mut self) {
        self.network.heal();
        for member in 0..self.members.len() {
            let m = &mut self.members[member];
            m.disk_slow_until = 0;
            m.is_full = false;
            m.doom = None;
            m.disk.set_fault(None);
            m.disk.set_capacity(None);
        }
    }
}
