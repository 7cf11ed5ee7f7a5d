//! Transactions: all comparisons first, then all that may refuse, then the operations one after another. Not
//! here: what a range or a comparison says (`range`).

use etch_api::pb::etcdserverpb as pb;
use etch_api::{Error, KeyRange};
use pb::request_op::Request as Asked;
use pb::response_op::Response as Told;

use super::{Model, deleted, header};

/// A transaction with its branch chosen, and those of the transactions in it.
struct Chosen<'a> {
    succeeded: bool,
    ops: Vec<(&'a pb::RequestOp, Option<Chosen<'a>>)>,
}

/// Whether a transaction may put anything.
pub(super) fn puts(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Asked::RequestPut(_)) => true,
        Some(Asked::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}

/// Whether a transaction holds ranges alone: such a one needs no place in the log.
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(Asked::RequestRange(_))))
}

/// Whether a read-only transaction may be answered from a member's own state, however old.
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Asked::RequestRange(range)) if range.serializable))
}

impl Model {
    pub(super) fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let chosen = self.choose(request, i64::MAX);
        self.check(&chosen, self.revision, true)?;
        let start = self.changes.len();
        let mut response = self.run(&chosen, start);
        self.revision += i64::from(self.changes.len() > start);
        response.header = header(self.revision);
        Ok(response)
    }

    /// Answers a transaction of ranges alone, as a store would whose newest revision is `current`.
    pub fn read_txn(
        &self,
        request: &pb::TxnRequest,
        current: i64,
    ) -> Result<pb::TxnResponse, Error> {
        let chosen = self.choose(request, current);
        self.check(&chosen, current, false)?;
        let mut responses = Vec::new();
        for (op, _) in &chosen.ops {
            if let Some(Asked::RequestRange(range)) = &op.request {
                let at = if range.revision > 0 { range.revision } else { current };
                let mut response = self.select(range, at);
                response.header = header(current);
                responses.push(pb::ResponseOp { response: Some(Told::ResponseRange(response)) });
            }
        }
        Ok(pb::TxnResponse { header: header(current), succeeded: chosen.succeeded, responses })
    }

    fn choose<'a>(&self, request: &'a pb::TxnRequest, at: i64) -> Chosen<'a> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare, at));
        let ops = if succeeded { &request.success } else { &request.failure };
        let choose = |op: &'a pb::RequestOp| match &op.request {
            Some(Asked::RequestTxn(nested)) => (op, Some(self.choose(nested, at))),
            _ => (op, None),
        };
        Chosen { succeeded, ops: ops.iter().map(choose).collect() }
    }

    fn check(&self, chosen: &Chosen<'_>, current: i64, heeds: bool) -> Result<(), Error> {
        for (op, nested) in &chosen.ops {
            match (&op.request, nested) {
                (Some(Asked::RequestRange(range)), _) => {
                    if range.revision > current {
                        return Err(Error::FutureRev);
                    }
                    if heeds && range.revision != 0 && range.revision < self.compacted {
                        return Err(Error::Compacted);
                    }
                }
                (Some(Asked::RequestPut(put)), _) => self.check_put(put)?,
                (_, Some(nested)) => self.check(nested, current, heeds)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Runs the chosen operations of a transaction whose changes begin at `start`.
    fn run(&mut self, chosen: &Chosen<'_>, start: usize) -> pb::TxnResponse {
        let mut responses = Vec::new();
        for (op, nested) in &chosen.ops {
            let (main, sub) = (self.revision + 1, (self.changes.len() - start) as i64);
            let told = match (&op.request, nested) {
                (Some(Asked::RequestRange(range)), _) => {
                    let now = self.inside(start);
                    let at = if range.revision > 0 { range.revision } else { now };
                    let mut response = self.select(range, at);
                    response.header = header(now);
                    Some(Told::ResponseRange(response))
                }
                (Some(Asked::RequestPut(put)), _) => {
                    let previous = self.write(put, main, sub).filter(|_| put.prev_kv);
                    let header = header(self.inside(start));
                    Some(Told::ResponsePut(pb::PutResponse { header, prev_kv: previous }))
                }
                (Some(Asked::RequestDeleteRange(delete)), _) => {
                    let range = KeyRange::new(delete.key.clone(), delete.range_end.clone());
                    let gone = self.delete(&range, main, sub);
                    let now = self.inside(start);
                    Some(Told::ResponseDeleteRange(deleted(delete, gone, now)))
                }
                (_, Some(nested)) => {
                    // A nested one has a header that says nothing.
                    let mut response = self.run(nested, start);
                    response.header = Some(pb::ResponseHeader::default());
                    Some(Told::ResponseTxn(response))
                }
                (_, None) => None,
            };
            responses.push(pb::ResponseOp { response: told });
        }
        pb::TxnResponse { header: None, succeeded: chosen.succeeded, responses }
    }

    /// The revision that a running transaction sees: its own once it has changed anything.
    fn inside(&self, start: usize) -> i64 {
        self.revision + i64::from(self.changes.len() > start)
    }
}
