//! Clients that ask, wait, and give up. Here: an operation's life as its client sees it. Not here: what is asked
//! (`workload`) and what the member does with it (`door`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::network::Place;
use super::{Event, Open, World};
use crate::history::{Operation, Outcome, Request, Response};
use crate::params::MS;
use crate::rng::Rng;

/// A client, with what it has learnt.
pub struct Client {
    /// Its number in the history; a new one after each outcome that it does not know.
    pub number: u32,
    pub rng: Rng,
    pub waits_for: Option<usize>,
    /// Leases that it was granted, or may have been.
    pub leases: Vec<i64>,
    /// Older ones, which are about to end.
    pub fading: Vec<i64>,
    /// Modification revisions as last seen.
    pub seen: BTreeMap<Bytes, i64>,
    /// The newest revision of any answer.
    pub revision: i64,
    pub values: u64,
    /// The client that compacts from time to time has nothing else to do.
    pub compacts: bool,
}

impl World {
    pub(super) fn add_clients(&mut self) {
        let compacts = self.params.compact_every > 0;
        for client in 0..self.params.clients + usize::from(compacts) {
            let number = self.next_client_number();
            self.clients.push(Client {
                number,
                rng: Rng::new(self.options.seed, 1000 + client as u64),
                waits_for: None,
                leases: Vec::new(),
                fading: Vec::new(),
                seen: BTreeMap::new(),
                revision: 0,
                values: 0,
                compacts: client == self.params.clients,
            });
            if self.options.clients.as_ref().is_none_or(|list| list.contains(&client)) {
                self.after(100 * MS, Event::Client { client });
            }
        }
    }

    pub(super) fn next_client_number(&mut self) -> u32 {
        self.client_numbers += 1;
        self.client_numbers
    }

    /// A client's next request.
    pub(super) fn client_acts(&mut self, client: usize) {
        if self.healed || self.clients[client].waits_for.is_some() {
            return;
        }
        let request = self.next_request(client);
        let member = self.clients[client].rng.below(self.members.len() as u64) as usize;
        let sticky = client % self.members.len();
        let member = if self.clients[client].rng.chance(800) { sticky } else { member };
        self.ask(client, member, request);
    }

    /// Sends a request.
    pub(super) fn ask(&mut self, client: usize, member: usize, request: Request) {
        let operation = self.history.operations.len();
        self.history.operations.push(Operation {
            client: self.clients[client].number,
            member: self.members[member].row.id,
            sent_ns: self.now,
            ended_ns: self.now,
            request,
            outcome: Outcome::Unknown,
        });
        self.clients[client].waits_for = Some(operation);
        self.open.insert(operation, Open { client, answer: None });
        for delay in self.network.send(Place::Client(client), Place::Member(member)) {
            self.after(delay, Event::Arrive { operation });
        }
        self.after(self.params.patience, Event::GiveUp { operation });
    }

    pub(super) fn member_of(&self, operation: usize) -> usize {
        let id = self.history.operations[operation].member;
        self.members.iter().position(|m| m.row.id == id).unwrap_or(0)
    }

    /// The client has an answer.
    pub(super) fn answered(&mut self, operation: usize, outcome: Outcome) {
        if let Some(Open { client, .. }) = self.open.remove(&operation) {
            self.end(client, operation, outcome);
        }
    }

    pub(super) fn give_up(&mut self, operation: usize) {
        if let Some(Open { client, .. }) = self.open.remove(&operation) {
            self.end(client, operation, Outcome::Unknown);
        }
    }

    /// Connections to a process that is gone break, and a client hears of it, or waits in vain.
    pub(super) fn cut_operations(&mut self, member: usize) {
        let open: Vec<usize> = self.open.keys().copied().collect();
        for operation in open {
            if self.member_of(operation) != member {
                continue;
            }
            if let Some(open) = self.open.get_mut(&operation) {
                open.answer = None;
            }
            if self.rng.chance(800) {
                let delay = self.network.stream_delay();
                let outcome = Box::new(Outcome::Unknown);
                self.after(delay, Event::Answer { operation, outcome });
            }
        }
    }

    fn end(&mut self, client: usize, operation: usize, outcome: Outcome) {
        let entry = &mut self.history.operations[operation];
        entry.ended_ns = self.now;
        let counts = self.stats.operations.entry(name(&entry.request)).or_default();
        let pause = match &outcome {
            Outcome::Ok(response) => {
                counts[0] += 1;
                if let Some(revision) = revision_of(response) {
                    let c = &mut self.clients[client];
                    c.revision = c.revision.max(revision);
                    self.seen_revision = self.seen_revision.max(revision);
                }
                self.params.think
            }
            Outcome::Refused(why) => {
                counts[1] += 1;
                if why == "connection refused" {
                    50 * MS + self.params.think
                } else {
                    self.params.think
                }
            }
            Outcome::Unknown => {
                counts[2] += 1;
                self.params.think
            }
        };
        entry.outcome = outcome;
        if entry.outcome == Outcome::Unknown {
            self.clients[client].number = self.next_client_number();
        }
        self.learn(client, operation);
        self.clients[client].waits_for = None;
        self.probed(client, operation);
        let pause = if self.clients[client].compacts { self.params.compact_every } else { pause };
        let delay = self.clients[client].rng.delay(pause);
        self.after(delay, Event::Client { client });
    }

    /// What an answer teaches its client: leases and revisions.
    fn learn(&mut self, client: usize, operation: usize) {
        let Operation { request, outcome, .. } = &self.history.operations[operation];
        let c = &mut self.clients[client];
        match (request, outcome) {
            (Request::LeaseGrant(grant), Outcome::Ok(_) | Outcome::Unknown) => {
                c.leases.push(grant.id);
                let surplus = c.leases.len().saturating_sub(4);
                c.fading.extend(c.leases.drain(..surplus));
                let surplus = c.fading.len().saturating_sub(6);
                c.fading.drain(..surplus);
            }
            (Request::Compact(asked), Outcome::Ok(_)) => self.compacted = asked.revision,
            (Request::LeaseRevoke(revoke), Outcome::Ok(_)) => c.leases.retain(|l| *l != revoke.id),
            (Request::LeaseKeepAlive(_), Outcome::Ok(Response::LeaseKeepAlive(answer)))
                if answer.ttl == 0 =>
            {
                c.leases.retain(|l| *l != answer.id);
            }
            (Request::Put(put), Outcome::Ok(Response::Put(answer))) => {
                let revision = answer.header.as_ref().map_or(0, |h| h.revision);
                c.seen.insert(put.key.clone(), revision);
            }
            (Request::Range(_), Outcome::Ok(Response::Range(answer))) => {
                c.seen.extend(answer.kvs.iter().map(|kv| (kv.key.clone(), kv.mod_revision)));
            }
            _ => {}
        }
    }
}

fn revision_of(response: &Response) -> Option<i64> {
    response.header().map(|h| h.revision)
}

/// A request's kind, as the table shows it.
fn name(request: &Request) -> &'static str {
    match request {
        Request::Range(r) if r.revision > 0 => "range at a revision",
        Request::Range(r) if r.serializable => "range, serializable",
        Request::Range(_) => "range",
        Request::Put(_) => "put",
        Request::DeleteRange(_) => "delete",
        Request::Txn(_) => "txn",
        Request::Compact(_) => "compact",
        Request::LeaseGrant(_) => "lease grant",
        Request::LeaseRevoke(_) => "lease revoke",
        Request::LeaseKeepAlive(_) => "lease keep-alive",
        Request::LeaseTimeToLive(_) => "lease time-to-live",
        Request::Defragment => "defragment",
        Request::HashKv(_) => "hash",
    }
}
