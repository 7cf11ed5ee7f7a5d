//! Requests that lie ready as bytes: encoded once, with only the digits of the key written anew. Not here: the
//! loads that send them (`rows`).

use etch_api::pb::etcdserverpb as pb;
use prost::Message;

use crate::closed::Requests;

/// What stands in a template where the key's number goes.
const DIGITS: &[u8] = b"########";

/// Numbers without a pattern, the same in every run.
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A key as the templates have it.
fn key() -> Vec<u8> {
    [b"k".as_slice(), DIGITS].concat()
}

/// The key of a number.
pub fn key_of(number: u64) -> Vec<u8> {
    format!("k{number:08}").into_bytes()
}

/// The end of the range of all keys.
pub fn end() -> Vec<u8> {
    b"l".to_vec()
}

/// A message with places for keys' numbers.
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    fn new(message: &impl Message) -> Template {
        let bytes = message.encode_to_vec();
        let places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(DIGITS)).collect();
        Template { bytes, places }
    }

    /// Appends the message with a number for each place.
    fn write(&self, out: &mut Vec<u8>, mut number: impl FnMut() -> u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for place in &self.places {
            let (mut rest, at) = (number(), start + place);
            for digit in out[at..at + DIGITS.len()].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

/// A message for keys drawn from the first `keys`.
fn drawn(message: &impl Message, keys: u64, seed: u64) -> Requests {
    let (template, mut random) = (Template::new(message), Random::new(seed));
    Box::new(move |out| template.write(out, || random.below(keys)))
}

fn put(size: usize) -> pb::PutRequest {
    pb::PutRequest { key: key().into(), value: vec![b'v'; size].into(), ..Default::default() }
}

/// Puts of values of `size` bytes.
pub fn puts(keys: u64, size: usize, seed: u64) -> Requests {
    drawn(&put(size), keys, seed)
}

/// Reads of single keys.
pub fn gets(keys: u64, serializable: bool, seed: u64) -> Requests {
    drawn(&pb::RangeRequest { key: key().into(), serializable, ..Default::default() }, keys, seed)
}

/// A transaction of so many puts.
fn txn(puts: usize, size: usize) -> pb::TxnRequest {
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(size))) };
    pb::TxnRequest { success: vec![op; puts], ..Default::default() }
}

/// Transactions of so many puts each. Keys must differ within one, so they follow one another.
pub fn txns(keys: u64, puts: usize, size: usize) -> Requests {
    let (template, mut next) = (Template::new(&txn(puts, size)), 0);
    Box::new(move |out| {
        template.write(out, || {
            next += 1;
            (next - 1) % keys
        });
    })
}

/// Everything at once.
pub fn lists() -> Requests {
    let range_end = end().into();
    always(&pb::RangeRequest { key: key_of(0).into(), range_end, ..Default::default() })
}

/// Everything by pages, from the first to the last and again.
pub fn pages(keys: u64, page: u64) -> Requests {
    let request = pb::RangeRequest {
        key: key().into(),
        range_end: end().into(),
        limit: page as i64,
        ..Default::default()
    };
    let (template, mut next) = (Template::new(&request), 0);
    Box::new(move |out| {
        template.write(out, || next);
        next = if next + page < keys { next + page } else { 0 };
    })
}

/// The same again and again.
pub fn always(message: &impl Message) -> Requests {
    let bytes = message.encode_to_vec();
    Box::new(move |out| out.extend_from_slice(&bytes))
}

/// Leases of an hour.
pub fn grants() -> Requests {
    always(&pb::LeaseGrantRequest { ttl: 3600, id: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_writes_the_keys_numbers_and_nothing_else() {
        let mut requests = txns(10, 4, 32);
        let mut out = Vec::new();
        requests(&mut out);
        out.clear();
        requests(&mut out);
        let txn = pb::TxnRequest::decode(out.as_slice()).expect("is a message");
        let keys: Vec<_> = txn
            .success
            .iter()
            .map(|op| match &op.request {
                Some(pb::request_op::Request::RequestPut(put)) => put.key.to_vec(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(keys, [4, 5, 6, 7].map(key_of));
    }

    #[test]
    fn pages_go_through_all_keys_and_begin_again() {
        let mut requests = pages(1000, 400);
        let firsts: Vec<_> = (0..4)
            .map(|_| {
                let mut out = Vec::new();
                requests(&mut out);
                pb::RangeRequest::decode(out.as_slice()).expect("is a message").key.to_vec()
            })
            .collect();
        assert_eq!(firsts, [0, 400, 800, 0].map(key_of));
    }
}
