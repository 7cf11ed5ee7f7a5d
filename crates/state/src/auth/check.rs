//! What each request needs: the same checks before a read, before a watch, and when an entry is applied. Not
//! here: what a caller has (`view`).

use etch_api::Error;
use etch_api::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use etch_disk::mutants::{self, Mutant};

use super::view::Access::{Read, Write};
use super::{View, Who};
use crate::lease::Lessor;

impl View {
    /// Seeing the keys of a range.
    pub fn check_read(&self, who: Who<'_>, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        self.check(who, Read, key, range_end)
    }

    /// A range.
    pub fn check_range(&self, who: Who<'_>, request: &RangeRequest) -> Result<(), Error> {
        self.check(who, Read, &request.key, &request.range_end)
    }

    /// Watching the keys of a range, from a request as the client has sent it: no key is the smallest.
    pub fn check_watch(&self, who: Who<'_>, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        let key = if key.is_empty() { b"\0" } else { key };
        if mutants::on(Mutant::GhsaXg4h) && range_end == b"\0" {
            return self.check(who, Read, key, b"");
        }
        self.check(who, Read, key, range_end)
    }

    /// A put. Who attaches a key to a lease must be able to revoke it.
    pub fn check_put(
        &self,
        who: Who<'_>,
        lessor: &Lessor,
        request: &PutRequest,
    ) -> Result<(), Error> {
        self.check(who, Write, &request.key, b"")?;
        self.check_lease_writes(who, lessor, request.lease)?;
        if request.prev_kv {
            self.check(who, Read, &request.key, b"")?;
        }
        Ok(())
    }

    /// A delete.
    pub fn check_delete(&self, who: Who<'_>, request: &DeleteRangeRequest) -> Result<(), Error> {
        self.check(who, Write, &request.key, &request.range_end)?;
        if request.prev_kv {
            self.check(who, Read, &request.key, &request.range_end)?;
        }
        Ok(())
    }

    /// A transaction: all that any of its branches could do, whichever is taken.
    pub fn check_txn(
        &self,
        who: Who<'_>,
        lessor: &Lessor,
        request: &TxnRequest,
    ) -> Result<(), Error> {
        if !self.is_enabled() {
            return Ok(());
        }
        for compare in &request.compare {
            self.check(who, Read, &compare.key, &compare.range_end)?;
        }
        for op in request.success.iter().chain(&request.failure) {
            self.check_op(who, lessor, op)?;
        }
        Ok(())
    }

    fn check_op(&self, who: Who<'_>, lessor: &Lessor, op: &RequestOp) -> Result<(), Error> {
        match &op.request {
            Some(Request::RequestRange(range)) => self.check_range(who, range),
            Some(Request::RequestPut(put)) if mutants::on(Mutant::I21683) => {
                self.check(who, Write, &put.key, b"")
            }
            Some(Request::RequestPut(put)) => self.check_put(who, lessor, put),
            Some(Request::RequestDeleteRange(delete)) => self.check_delete(who, delete),
            Some(Request::RequestTxn(_)) if mutants::on(Mutant::Cve202633343) => Ok(()),
            Some(Request::RequestTxn(txn)) => self.check_txn(who, lessor, txn),
            None => Ok(()),
        }
    }

    /// Ending, prolonging or taking a lease: all its keys go with it.
    pub fn check_lease_writes(
        &self,
        who: Who<'_>,
        lessor: &Lessor,
        lease: i64,
    ) -> Result<(), Error> {
        self.check_lease(who, Write, lessor, lease)
    }

    /// Seeing which keys a lease has.
    pub fn check_lease_reads(
        &self,
        who: Who<'_>,
        lessor: &Lessor,
        lease: i64,
    ) -> Result<(), Error> {
        if mutants::on(Mutant::I15814) {
            return Ok(());
        }
        self.check_lease(who, Read, lessor, lease)
    }

    fn check_lease(
        &self,
        who: Who<'_>,
        access: super::view::Access,
        lessor: &Lessor,
        lease: i64,
    ) -> Result<(), Error> {
        if lease == 0 || self.check_admin(who).is_ok() {
            return Ok(());
        }
        let keys = lessor.keys(lease).unwrap_or_default();
        keys.iter().try_for_each(|key| self.check(who, access, key, b""))
    }
}
