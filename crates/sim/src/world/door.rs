//! What the server does with a request between the wire and the core: checks, the quota, reads on the spot, writes
//! into the node's inbox. The same steps as in `etch-server`'s services, with events where it has tasks. Not
//! here: what requests mean, and who sends them.

use bytes::{Bytes, BytesMut};
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb as pb;
use etch_disk::mutants::{self, Mutant};
use etch_state::lease::RenewError;
use etch_state::mvcc::{RangeReply, ReadError};
use etch_state::{Reply, quota, txn};
use prost::Message;

use super::member::{Caller, Command, Process};
use super::network::Place;
use super::{Event, World};
use crate::history::{Outcome, Request, Response};

/// Operations in a transaction, as the server's default has it.
const MAX_TXN_OPS: usize = 128;

/// A large answer: made piece by piece, while the world goes on.
pub struct Answering {
    reply: RangeReply,
    term: u64,
    made: BytesMut,
}

/// What a request comes to at the door.
enum Step {
    /// It is answered.
    Done(Outcome),
    /// It waits for the node.
    Waits,
    /// It may read once the node says so.
    Read,
    /// It has to be proposed.
    Propose(RequestKind, Bytes),
    /// There is no room for it: the alarm goes up.
    NoSpace,
    /// A large answer begins.
    Begin(Box<Answering>),
}

impl World {
    /// A request has come to its member.
    pub(super) fn arrive(&mut self, operation: usize) {
        let member = self.member_of(operation);
        let m = &self.members[member];
        if m.paused_until > self.now {
            return self.at(m.paused_until, Event::Arrive { operation });
        }
        let Some(process) = &m.process else { return self.refuse_connection(operation) };
        if !process.serving {
            return self.refuse_connection(operation);
        }
        let step = self.serve(member, operation, false);
        self.follow(member, operation, step);
    }

    fn refuse_connection(&mut self, operation: usize) {
        self.reply(operation, Outcome::Refused("connection refused".into()));
    }

    fn follow(&mut self, member: usize, operation: usize, step: Step) {
        let caller = Caller::Operation(operation);
        match step {
            Step::Done(outcome) => self.reply(operation, outcome),
            Step::Waits => {}
            Step::Read => self.tell(member, Command::Read(caller)),
            Step::Propose(kind, body) => self.tell(member, Command::Propose(kind, body, caller)),
            Step::NoSpace => {
                let alarm = pb::AlarmRequest {
                    action: pb::alarm_request::AlarmAction::Activate.into(),
                    member_id: self.members[member].row.id,
                    alarm: pb::AlarmType::Nospace.into(),
                };
                let body = alarm.encode_to_vec().into();
                self.tell(member, Command::Propose(RequestKind::Alarm, body, Caller::Keeper));
                self.reply(operation, Outcome::Refused(text(Error::NoSpace)));
            }
            Step::Begin(answer) => {
                if let Some(open) = self.open.get_mut(&operation) {
                    open.answer = Some(*answer);
                    self.plan_answer(member, operation);
                }
            }
        }
    }

    fn plan_answer(&mut self, member: usize, operation: usize) {
        let epoch = self.members[member].epoch;
        let delay = self.rng.delay(self.params.delays.client);
        self.after(delay, Event::Continue { member, epoch, operation });
    }

    /// Does what can be done now. `may_read` says that the node has answered: a linearizable read is confirmed.
    fn serve(&mut self, member: usize, operation: usize, may_read: bool) -> Step {
        let now_ms = self.members[member].now_ms(self.now);
        let slowly = self.rng.chance(150);
        let request = &self.history.operations[operation].request;
        let Some(process) = &self.members[member].process else { return Step::Waits };
        match request {
            Request::Range(range) => process.range(range, may_read, slowly),
            Request::Put(put) => {
                process.propose(txn::check_put(put), quota::put_cost(put), RequestKind::Put, put)
            }
            Request::DeleteRange(delete) => {
                process.propose(txn::check_delete(delete), 0, RequestKind::DeleteRange, delete)
            }
            Request::Txn(txn) => process.txn(txn, may_read),
            Request::Compact(compact) if compact.physical => {
                let body = compact.encode_to_vec().into();
                let command = Command::ProposePhysical(body, Caller::Operation(operation));
                self.tell(member, command);
                Step::Waits
            }
            Request::Compact(compact) => {
                process.propose(Ok(()), 0, RequestKind::Compaction, compact)
            }
            Request::LeaseGrant(grant) => {
                process.propose(Ok(()), quota::LEASE_COST, RequestKind::LeaseGrant, grant)
            }
            Request::LeaseRevoke(revoke) => {
                process.propose(Ok(()), 0, RequestKind::LeaseRevoke, revoke)
            }
            Request::LeaseKeepAlive(renew) => process.renew(renew.id, operation, may_read, now_ms),
            Request::LeaseTimeToLive(ask) => Step::Done(process.time_to_live(ask, now_ms)),
            Request::Defragment => {
                self.tell(member, Command::CommitAll(Caller::Operation(operation)));
                Step::Waits
            }
            Request::HashKv(ask) => Step::Done(process.hash_kv(ask)),
        }
    }

    /// The node has an answer for an operation.
    pub(super) fn node_answered(
        &mut self,
        member: usize,
        operation: usize,
        outcome: Result<Reply, Error>,
    ) {
        let request = &self.history.operations[operation].request;
        let Some(process) = &self.members[member].process else { return };
        let reads = match request {
            Request::Range(_) => true,
            Request::Txn(txn) => txn::is_read_only(txn),
            _ => false,
        };
        let reply = match outcome {
            Err(error) if reads => return self.reply(operation, Outcome::Refused(text(error))),
            Err(error) => return self.reply(operation, Outcome::failed(error.message())),
            Ok(reply) => reply,
        };
        match request {
            Request::LeaseKeepAlive(_) => {
                let step = self.serve(member, operation, true);
                self.follow(member, operation, step);
            }
            _ if reads => {
                let step = self.serve(member, operation, true);
                self.follow(member, operation, step);
            }
            Request::Defragment => {
                let epoch = self.members[member].epoch;
                self.after(0, Event::Shrink { member, epoch, operation });
            }
            _ => {
                let outcome = process.outcome(request, &reply);
                self.reply(operation, outcome);
            }
        }
    }

    pub(super) fn defragmented(
        &mut self,
        _member: usize,
        operation: usize,
        result: Result<(), String>,
    ) {
        self.reply(
            operation,
            match result {
                Ok(()) => Outcome::Ok(Response::Defragment),
                Err(why) => Outcome::Refused(why),
            },
        );
    }

    /// Renewals whose lease is gone by now are tried again.
    pub(super) fn retry_renewals(&mut self, member: usize) {
        let Some(process) = &self.members[member].process else { return };
        for operation in process.renewals.take() {
            let step = self.serve(member, operation, false);
            self.follow(member, operation, step);
        }
    }

    /// The next piece of a large answer.
    pub(super) fn continue_answer(&mut self, member: usize, operation: usize) {
        let size = self.rng.pick(&[1, 10, 100, 1000]);
        let Some(open) = self.open.get_mut(&operation) else { return };
        let Some(answer) = &mut open.answer else { return };
        match answer.reply.fill(&mut answer.made, size) {
            Ok(true) => self.plan_answer(member, operation),
            Ok(false) => {
                let Some(answer) = open.answer.take() else { return };
                let reply = Reply { revision: answer.reply.revision, body: answer.made.freeze() };
                let request = &self.history.operations[operation].request;
                let Some(process) = &self.members[member].process else { return };
                let outcome = process.outcome_in(request, &reply, answer.term);
                self.reply(operation, outcome);
            }
            Err(error) => self.reply(operation, Outcome::Refused(error.to_string())),
        }
    }

    /// The member's answer leaves for the client.
    pub(super) fn reply(&mut self, operation: usize, outcome: Outcome) {
        let Some(open) = self.open.get(&operation) else { return };
        let member = self.member_of(operation);
        if let Outcome::Refused(why) = &outcome
            && (why.contains("damaged") || why.contains("panick"))
        {
            return self.violation(format!("member {member} answers `{why}`"));
        }
        let client = Place::Client(open.client);
        for delay in self.network.send(Place::Member(member), client) {
            let outcome = Box::new(outcome.clone());
            self.after(delay, Event::Answer { operation, outcome });
        }
    }
}

fn text(error: Error) -> String {
    error.message().to_owned()
}

impl Process {
    fn range(&self, request: &pb::RangeRequest, may_read: bool, slowly: bool) -> Step {
        if let Err(error) = txn::check_range(request) {
            return Step::Done(Outcome::Refused(text(error)));
        }
        let view = self.node.view();
        if !may_read && !request.serializable && !view.is_lone_leader() {
            return Step::Read;
        }
        match self.node.state().store().range(request) {
            Ok(reply) if slowly => {
                Step::Begin(Box::new(Answering { reply, term: view.term(), made: BytesMut::new() }))
            }
            Ok(reply) => {
                let revision = reply.revision;
                match reply.into_bytes() {
                    Ok(body) => {
                        let request = Request::Range(request.clone());
                        Step::Done(self.outcome(&request, &Reply { revision, body }))
                    }
                    Err(error) => Step::Done(Outcome::Refused(error.to_string())),
                }
            }
            Err(error) => Step::Done(unreadable(error)),
        }
    }

    fn txn(&self, request: &pb::TxnRequest, may_read: bool) -> Step {
        if let Err(error) = txn::check_txn(request, MAX_TXN_OPS) {
            return Step::Done(Outcome::Refused(text(error)));
        }
        if !txn::is_read_only(request) {
            return self.propose(Ok(()), quota::txn_cost(request), RequestKind::Txn, request);
        }
        if !may_read && !txn::is_serializable(request) && !self.node.view().is_lone_leader() {
            return Step::Read;
        }
        Step::Done(match self.node.state().store().read_txn(request) {
            Ok(reply) => self.outcome(&Request::Txn(request.clone()), &reply),
            Err(error) => unreadable(error),
        })
    }

    fn propose(
        &self,
        checked: Result<(), Error>,
        cost: u64,
        kind: RequestKind,
        request: &impl Message,
    ) -> Step {
        if let Err(error) = checked {
            return Step::Done(Outcome::Refused(text(error)));
        }
        if !self.node.state().quota().allows(cost) {
            return Step::NoSpace;
        }
        Step::Propose(kind, request.encode_to_vec().into())
    }

    /// Only who still leads may renew: who does not know yet that another leads has to ask.
    fn renew(&self, id: i64, operation: usize, leads: bool, now_ms: u64) -> Step {
        let lessor = self.node.state().lessor();
        if !leads && !self.node.view().is_lone_leader() && !mutants::on(Mutant::I12528) {
            return Step::Read;
        }
        loop {
            let ttl = match lessor.renew(id, now_ms) {
                Ok(ttl) => ttl,
                Err(RenewError::NotFound) => 0,
                Err(RenewError::NotPrimary) => {
                    return Step::Done(Outcome::failed(Error::NoLeader.message()));
                }
                Err(RenewError::Expired) => {
                    if lessor.wait_revoked(id, self.renewals.waiter(operation)) {
                        return Step::Waits;
                    }
                    continue;
                }
                Err(RenewError::Checkpointed) => {
                    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl: 0 }];
                    let body = pb::LeaseCheckpointRequest { checkpoints }.encode_to_vec();
                    return Step::Propose(RequestKind::LeaseCheckpoint, body.into());
                }
            };
            let response = pb::LeaseKeepAliveResponse { header: None, id, ttl };
            let request = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
            return Step::Done(self.here(&request, &response));
        }
    }

    fn time_to_live(&self, ask: &pb::LeaseTimeToLiveRequest, now_ms: u64) -> Outcome {
        let lessor = self.node.state().lessor();
        let keys = if ask.keys { lessor.keys(ask.id).unwrap_or_default() } else { Vec::new() };
        let response = pb::LeaseTimeToLiveResponse {
            header: None,
            id: ask.id,
            ttl: lessor.time_to_live(ask.id, now_ms).unwrap_or(-1),
            granted_ttl: lessor.granted_ttl(ask.id).unwrap_or(0),
            keys,
        };
        self.here(&Request::LeaseTimeToLive(*ask), &response)
    }

    fn hash_kv(&self, ask: &pb::HashKvRequest) -> Outcome {
        match self.node.state().store().hash_kv(ask.revision) {
            Ok(hashed) => {
                let response = pb::HashKvResponse {
                    header: None,
                    hash: hashed.hash,
                    compact_revision: hashed.compact_revision,
                    hash_revision: hashed.hash_revision,
                };
                let body = response.encode_to_vec().into();
                let reply = Reply { revision: hashed.current_revision, body };
                self.outcome(&Request::HashKv(*ask), &reply)
            }
            Err(error) => unreadable(error),
        }
    }

    /// An answer with the revision of now.
    fn here(&self, request: &Request, response: &impl Message) -> Outcome {
        let revision = self.node.state().store().revision();
        self.outcome(request, &Reply { revision, body: response.encode_to_vec().into() })
    }

    /// An answer as the client decodes it: header and body one behind the other, as the server sends them.
    fn outcome(&self, request: &Request, reply: &Reply) -> Outcome {
        self.outcome_in(request, reply, self.node.view().term())
    }

    fn outcome_in(&self, request: &Request, reply: &Reply, term: u64) -> Outcome {
        let mut bytes = BytesMut::new();
        self.header.encode(reply.revision, term, &mut bytes, 1);
        bytes.extend_from_slice(&reply.body);
        match decode(request, bytes.freeze()) {
            Ok(response) => Outcome::Ok(response),
            Err(error) => Outcome::Refused(format!("damaged answer: {error}")),
        }
    }
}

fn unreadable(error: ReadError) -> Outcome {
    Outcome::Refused(match error {
        ReadError::Request(error) => text(error),
        ReadError::Io(error) => error.to_string(),
    })
}

fn decode(request: &Request, bytes: Bytes) -> Result<Response, prost::DecodeError> {
    Ok(match request {
        Request::Range(_) => Response::Range(Message::decode(bytes)?),
        Request::Put(_) => Response::Put(Message::decode(bytes)?),
        Request::DeleteRange(_) => Response::DeleteRange(Message::decode(bytes)?),
        Request::Txn(_) => Response::Txn(Message::decode(bytes)?),
        Request::Compact(_) => Response::Compact(Message::decode(bytes)?),
        Request::LeaseGrant(_) => Response::LeaseGrant(Message::decode(bytes)?),
        Request::LeaseRevoke(_) => Response::LeaseRevoke(Message::decode(bytes)?),
        Request::LeaseKeepAlive(_) => Response::LeaseKeepAlive(Message::decode(bytes)?),
        Request::LeaseTimeToLive(_) => Response::LeaseTimeToLive(Message::decode(bytes)?),
        Request::Defragment => Response::Defragment,
        Request::HashKv(_) => Response::HashKv(Message::decode(bytes)?),
    })
}
