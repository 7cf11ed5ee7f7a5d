//! Answers of the key-value service: keys, writes, deletions, transactions. Not here: events of a watch.

use std::io::Write as _;

use etch_cli::Failure;
use etch_client::{KeyValue, pb};
use pb::response_op::Response;

use super::{Display, fields};

impl Display {
    /// The answer to a read.
    pub fn get(&self, answer: &pb::RangeResponse) -> Result<(), Failure> {
        self.message(answer, |out| self.get_simple(answer, out), |out| self.get_fields(answer, out))
    }

    /// The answer to a write.
    pub fn put(&self, answer: &pb::PutResponse) -> Result<(), Failure> {
        self.message(answer, |out| self.put_simple(answer, out), |out| self.put_fields(answer, out))
    }

    /// The answer to a deletion.
    pub fn del(&self, answer: &pb::DeleteRangeResponse) -> Result<(), Failure> {
        self.message(answer, |out| self.del_simple(answer, out), |out| self.del_fields(answer, out))
    }

    /// The answer to a transaction.
    pub fn txn(&self, answer: &pb::TxnResponse) -> Result<(), Failure> {
        self.message(answer, |out| self.txn_simple(answer, out), |out| self.txn_fields(answer, out))
    }

    /// A key and its value, a line each.
    pub fn key_value(&self, kv: &KeyValue, out: &mut Vec<u8>) {
        if !self.value_only {
            self.bytes(&kv.key, out);
        }
        self.bytes(&kv.value, out);
    }

    fn bytes(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.hex {
            bytes.iter().for_each(|byte| {
                let _ = write!(out, "\\x{byte:02x}");
            });
        } else {
            out.extend_from_slice(bytes);
        }
        out.push(b'\n');
    }

    /// The keys of a read's answer, or of a part of it.
    pub fn get_simple(&self, answer: &pb::RangeResponse, out: &mut Vec<u8>) {
        answer.kvs.iter().for_each(|kv| self.key_value(kv, out));
    }

    fn put_simple(&self, answer: &pb::PutResponse, out: &mut Vec<u8>) {
        out.extend_from_slice(b"OK\n");
        answer.prev_kv.iter().for_each(|kv| self.key_value(kv, out));
    }

    fn del_simple(&self, answer: &pb::DeleteRangeResponse, out: &mut Vec<u8>) {
        let _ = writeln!(out, "{}", answer.deleted);
        answer.prev_kvs.iter().for_each(|kv| self.key_value(kv, out));
    }

    fn txn_simple(&self, answer: &pb::TxnResponse, out: &mut Vec<u8>) {
        out.extend_from_slice(if answer.succeeded { b"SUCCESS\n" } else { b"FAILURE\n" });
        for op in &answer.responses {
            out.push(b'\n');
            match &op.response {
                Some(Response::ResponseDeleteRange(answer)) => self.del_simple(answer, out),
                Some(Response::ResponsePut(answer)) => self.put_simple(answer, out),
                Some(Response::ResponseRange(answer)) => self.get_simple(answer, out),
                // The command has no way to ask for these.
                Some(Response::ResponseTxn(answer)) => self.txn_simple(answer, out),
                None => out.extend_from_slice(b"unexpected response\n"),
            }
        }
    }

    fn get_fields(&self, answer: &pb::RangeResponse, out: &mut Vec<u8>) {
        fields::header(out, answer.header.as_ref(), self.hex);
        answer.kvs.iter().for_each(|kv| fields::key_value(out, "", kv, self.hex));
        let _ = writeln!(out, "\"More\" : {}\n\"Count\" : {}", answer.more, answer.count);
    }

    fn put_fields(&self, answer: &pb::PutResponse, out: &mut Vec<u8>) {
        fields::header(out, answer.header.as_ref(), self.hex);
        answer.prev_kv.iter().for_each(|kv| fields::key_value(out, "Prev", kv, self.hex));
    }

    fn del_fields(&self, answer: &pb::DeleteRangeResponse, out: &mut Vec<u8>) {
        fields::header(out, answer.header.as_ref(), self.hex);
        let _ = writeln!(out, "\"Deleted\" : {}", answer.deleted);
        answer.prev_kvs.iter().for_each(|kv| fields::key_value(out, "Prev", kv, self.hex));
    }

    fn txn_fields(&self, answer: &pb::TxnResponse, out: &mut Vec<u8>) {
        fields::header(out, answer.header.as_ref(), self.hex);
        let _ = writeln!(out, "\"Succeeded\" : {}", answer.succeeded);
        for op in &answer.responses {
            match &op.response {
                Some(Response::ResponseDeleteRange(answer)) => self.del_fields(answer, out),
                Some(Response::ResponsePut(answer)) => self.put_fields(answer, out),
                Some(Response::ResponseRange(answer)) => self.get_fields(answer, out),
                Some(Response::ResponseTxn(answer)) => self.txn_fields(answer, out),
                None => out.extend_from_slice(b"\"Unknown\" : \"<nil>\"\n"),
            }
        }
    }
}
