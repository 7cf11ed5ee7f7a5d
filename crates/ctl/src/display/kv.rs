//! Answers of the key-value service: keys, writes, deletions, transactions. Not here: events of a watch.

use std::io::Write as _;

use etch_cli::Failure;
use etch_client::{KeyValue, pb};
use pb::response_op::Response;

use prost::Message as _;

use super::{Display, Format, fields, json};

/// The keys' number in the message of a read's answer.
const KVS: u32 = 2;

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

    fn get_simple(&self, answer: &pb::RangeResponse, out: &mut Vec<u8>) {
        answer.kvs.iter().for_each(|kv| self.key_value(kv, out));
    }

    /// The beginning of a read's answer that is printed in parts, and has keys.
    pub fn get_head(&self, header: Option<&pb::ResponseHeader>, out: &mut Vec<u8>) {
        match self.format {
            Format::Fields => fields::header(out, header, self.hex),
            Format::Json => {
                out.push(b'{');
                if let Some(header) = header {
                    let _ = write!(out, "\"header\":{},", json::message(header, false));
                }
                out.extend_from_slice(b"\"kvs\":[");
            }
            Format::Protobuf => {
                let head = pb::RangeResponse { header: header.copied(), ..Default::default() };
                out.extend_from_slice(&head.encode_to_vec());
            }
            Format::Simple | Format::Table => {}
        }
    }

    /// Some of its keys.
    pub fn get_keys(&self, kvs: &[KeyValue], first: bool, out: &mut Vec<u8>) {
        for (at, kv) in kvs.iter().enumerate() {
            match self.format {
                Format::Simple => self.key_value(kv, out),
                Format::Fields => fields::key_value(out, "", kv, self.hex),
                Format::Json => {
                    if !first || at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(json::message(kv, false).as_bytes());
                }
                Format::Protobuf => {
                    prost::encoding::message::encode(KVS, kv, out);
                }
                Format::Table => {}
            }
        }
    }

    /// Its end.
    pub fn get_tail(&self, more: bool, count: i64, out: &mut Vec<u8>) {
        let _ = match self.format {
            Format::Fields => writeln!(out, "\"More\" : {more}\n\"Count\" : {count}"),
            Format::Json => {
                let more = if more { ",\"more\":true" } else { "" };
                writeln!(out, "]{more},\"count\":{count}}}")
            }
            Format::Protobuf => {
                let tail = pb::RangeResponse { more, count, ..Default::default() };
                out.extend_from_slice(&tail.encode_to_vec());
                Ok(())
            }
            Format::Simple | Format::Table => Ok(()),
        };
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
        self.get_head(answer.header.as_ref(), out);
        self.get_keys(&answer.kvs, true, out);
        self.get_tail(answer.more, answer.count, out);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_what_the_whole_is() {
        let header =
            pb::ResponseHeader { cluster_id: u64::MAX, member_id: 2, ..Default::default() };
        let key = |n: u8| KeyValue { key: vec![n].into(), lease: n.into(), ..Default::default() };
        let kvs: Vec<KeyValue> = (0..5).map(key).collect();
        for (more, count) in [(false, 5), (true, 9)] {
            let whole = pb::RangeResponse { header: Some(header), kvs: kvs.clone(), more, count };
            for format in [Format::Json, Format::Protobuf] {
                let display = Display { format, hex: false, value_only: false };
                let mut parts = Vec::new();
                display.get_head(Some(&header), &mut parts);
                display.get_keys(&[], true, &mut parts);
                display.get_keys(&kvs[..2], true, &mut parts);
                display.get_keys(&kvs[2..2], false, &mut parts);
                display.get_keys(&kvs[2..], false, &mut parts);
                display.get_tail(more, count, &mut parts);
                let expected = match format {
                    Format::Json => format!("{}\n", json::message(&whole, false)).into_bytes(),
                    _ => whole.encode_to_vec(),
                };
                assert_eq!(String::from_utf8_lossy(&parts), String::from_utf8_lossy(&expected));
            }
        }
    }
}
