//! The wire to JSON: fields in the order in which they are declared, what is empty left out; and the answers
//! around messages: errors, the lines of a stream. Not here: when they are sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::schema::{Field, Kind, Schema};
use crate::text::quote;

/// Whether there is a blank behind each comma. Go's protobuf library writes one or none, by chance but for good
/// in each program that is built with it; etcd 3.7.1 as it is built from its tag has one. Lines of a stream go
/// through another encoder, which takes blanks out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spaces {
    /// An answer by itself.
    Behind,
    /// In a line of a stream.
    None,
}

/// Messages within messages, at the most: none of our own answers comes near.
const MAX_DEPTH: usize = 200;

/// The message as JSON. An error says that it is none, which would be a fault of ours.
pub fn to_json(
    schema: &Schema,
    message: usize,
    wire: &[u8],
    spaces: Spaces,
) -> Result<Vec<u8>, String> {
    let mut writer = Writer { schema, out: Vec::with_capacity(wire.len() * 2), spaces, depth: 0 };
    writer.message(message, wire)?;
    Ok(writer.out)
}

/// A line of a stream: `{"result":...}` and its end.
pub fn result_line(schema: &Schema, message: usize, wire: &[u8]) -> Result<Vec<u8>, String> {
    let mut writer =
        Writer { schema, out: b"{\"result\":".to_vec(), spaces: Spaces::None, depth: 0 };
    writer.message(message, wire)?;
    writer.out.extend_from_slice(b"}\n");
    Ok(writer.out)
}

/// The line that ends a stream with an error.
pub fn error_line(code: u32, message: &str) -> Vec<u8> {
    let mut out = b"{\"error\":".to_vec();
    status(code, message, Spaces::None, &mut out);
    out.extend_from_slice(b"}\n");
    out
}

/// The answer of a call that failed.
pub fn error(code: u32, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    status(code, message, Spaces::Behind, &mut out);
    out
}

fn status(code: u32, message: &str, spaces: Spaces, out: &mut Vec<u8>) {
    out.push(b'{');
    if code != 0 {
        out.extend_from_slice(format!("\"code\":{code}").as_bytes());
    }
    if !message.is_empty() {
        if code != 0 {
            comma(spaces, out);
        }
        out.extend_from_slice(b"\"message\":");
        quote(message, spaces == Spaces::None, out);
    }
    out.push(b'}');
}

fn comma(spaces: Spaces, out: &mut Vec<u8>) {
    out.extend_from_slice(if spaces == Spaces::Behind { b", " } else { b"," });
}

/// The HTTP status of a gRPC code.
pub fn http_status(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// A value on the wire.
#[derive(Clone)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

struct Writer<'a> {
    schema: &'a Schema,
    out: Vec<u8>,
    spaces: Spaces,
    depth: usize,
}

impl Writer<'_> {
    fn message(&mut self, at: usize, wire: &[u8]) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("a message too deep to be written".into());
        }
        let schema = self.schema;
        let kind = &schema.messages[at];
        let mut values: Vec<Vec<Value<'_>>> = vec![Vec::new(); kind.fields.len()];
        let mut rest = wire;
        while !rest.is_empty() {
            let (number, value) = field(&mut rest)?;
            if let Some(at) = kind.numbered(number) {
                values[at].push(value);
            }
        }
        self.out.push(b'{');
        let mut first = true;
        for (field, values) in kind.fields.iter().zip(&values) {
            if !is_shown(field, values) {
                continue;
            }
            if !std::mem::take(&mut first) {
                comma(self.spaces, &mut self.out);
            }
            self.out.push(b'"');
            self.out.extend_from_slice(field.name.as_bytes());
            self.out.extend_from_slice(b"\":");
            self.field(field, values)?;
        }
        self.out.push(b'}');
        self.depth -= 1;
        Ok(())
    }

    fn field(&mut self, field: &Field, values: &[Value<'_>]) -> Result<(), String> {
        if !field.is_list {
            return self.single(field, values);
        }
        self.out.push(b'[');
        let mut first = true;
        for value in values {
            // Numbers of a list may come packed together.
            let mut packed = match (value, field.kind) {
                (Value::Bytes(packed), Kind::Text | Kind::Blob | Kind::Message(_)) => {
                    self.separate(&mut first);
                    self.value(field.kind, &Value::Bytes(packed))?;
                    continue;
                }
                (Value::Varint(_), _) => {
                    self.separate(&mut first);
                    self.value(field.kind, value)?;
                    continue;
                }
                (Value::Bytes(packed), _) => *packed,
            };
            while !packed.is_empty() {
                let number = decode_varint(&mut packed).map_err(|e| e.to_string())?;
                self.separate(&mut first);
                self.value(field.kind, &Value::Varint(number))?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn separate(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            comma(self.spaces, &mut self.out);
        }
    }

    /// The last of several counts; of a message, all of them together.
    fn single(&mut self, field: &Field, values: &[Value<'_>]) -> Result<(), String> {
        if let (Kind::Message(inner), true) = (field.kind, values.len() > 1) {
            let parts = values.iter().filter_map(|value| match value {
                Value::Bytes(bytes) => Some(*bytes),
                Value::Varint(_) => None,
            });
            let whole: Vec<&[u8]> = parts.collect();
            return self.message(inner, &whole.concat());
        }
        match values.last() {
            Some(value) => self.value(field.kind, value),
            None => Ok(()),
        }
    }

    fn value(&mut self, kind: Kind, value: &Value<'_>) -> Result<(), String> {
        match (kind, value) {
            (Kind::Message(at), Value::Bytes(wire)) => return self.message(at, wire),
            (Kind::Blob, Value::Bytes(bytes)) => {
                let text = STANDARD.encode(bytes);
                self.out.push(b'"');
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(b'"');
            }
            (Kind::Text, Value::Bytes(bytes)) => {
                let text = String::from_utf8_lossy(bytes);
                quote(&text, self.spaces == Spaces::None, &mut self.out);
            }
            (Kind::Bool, Value::Varint(n)) => {
                self.out.extend_from_slice(if *n != 0 { b"true" } else { b"false" });
            }
            (Kind::Int64, Value::Varint(n)) => self.print(format_args!("\"{}\"", *n as i64)),
            (Kind::Uint64, Value::Varint(n)) => self.print(format_args!("\"{n}\"")),
            (Kind::Int32, Value::Varint(n)) => self.print(format_args!("{}", *n as i32)),
            (Kind::Uint32, Value::Varint(n)) => self.print(format_args!("{}", *n as u32)),
            (Kind::Enum(at), Value::Varint(n)) => {
                let number = *n as i32;
                match self.schema.enums[at].value(number) {
                    Some(name) => self.print(format_args!("\"{name}\"")),
                    None => self.print(format_args!("{number}")),
                }
            }
            _ => return Err("a field of another type than it has".into()),
        }
        Ok(())
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.extend_from_slice(text.to_string().as_bytes());
    }
}

/// What is empty is left out, but for messages and for what a oneof has chosen.
fn is_shown(field: &Field, values: &[Value<'_>]) -> bool {
    let Some(last) = values.last() else { return false };
    if field.is_list || field.oneof.is_some() || matches!(field.kind, Kind::Message(_)) {
        return true;
    }
    match last {
        Value::Varint(n) => *n != 0,
        Value::Bytes(bytes) => !bytes.is_empty(),
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), String> {
    let broken = |error: prost::DecodeError| error.to_string();
    let (number, wire) = decode_key(rest).map_err(broken)?;
    let value = match wire {
        WireType::Varint => Value::Varint(decode_varint(rest).map_err(broken)?),
        WireType::LengthDelimited => {
            let len = decode_varint(rest).map_err(broken)?;
            let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
            let len = len.ok_or("a message that ends early")?;
            let (value, behind) = rest.split_at(len);
            *rest = behind;
            Value::Bytes(value)
        }
        other => return Err(format!("the API has no fields of wire type {other:?}")),
    };
    Ok((number, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::etcdserverpb as pb;
    use etch_api::pb::mvccpb::{Event, KeyValue};
    use prost::{Message, Name};

    fn written<M: Message + Name>(message: &M, spaces: Spaces) -> String {
        let schema = Schema::of_the_api();
        let at = schema.place(&M::full_name()).expect("is there");
        let json = to_json(&schema, at, &message.encode_to_vec(), spaces).expect("written");
        String::from_utf8(json).expect("text")
    }

    #[test]
    fn messages_are_written_as_etcd_writes_them() {
        let kv = KeyValue {
            key: "foo".into(),
            create_revision: 2,
            mod_revision: 9,
            version: 6,
            ..KeyValue::default()
        };
        let header = pb::ResponseHeader { cluster_id: u64::MAX, ..pb::ResponseHeader::default() };
        let range = pb::RangeResponse {
            header: Some(header),
            kvs: vec![kv.clone(), kv],
            more: false,
            count: 2,
        };
        let kv = r#"{"key":"Zm9v","create_revision":"2","mod_revision":"9","version":"6"}"#;
        let want = format!(
            r#"{{"header":{{"cluster_id":"18446744073709551615"}},"kvs":[{kv},{kv}],"count":"2"}}"#
        );
        assert_eq!(written(&range, Spaces::None), want);
        assert_eq!(written(&range, Spaces::Behind), want.replace(',', ", "));
        let event = Event { r#type: 1, kv: Some(KeyValue::default()), prev_kv: None };
        assert_eq!(written(&event, Spaces::None), r#"{"type":"DELETE","kv":{}}"#);
        let hash = pb::HashKvResponse { hash: 7, compact_revision: -1, ..Default::default() };
        assert_eq!(written(&hash, Spaces::None), r#"{"hash":7,"compact_revision":"-1"}"#);
        let create = pb::WatchCreateRequest { filters: vec![1, 7], ..Default::default() };
        assert_eq!(written(&create, Spaces::None), r#"{"filters":["NODELETE",7]}"#);
    }

    #[test]
    fn errors_and_lines_have_their_forms() {
        assert_eq!(error(5, "no <x>"), br#"{"code":5, "message":"no <x>"}"#);
        assert_eq!(error_line(5, "<"), b"{\"error\":{\"code\":5,\"message\":\"\\u003c\"}}\n");
        let schema = Schema::of_the_api();
        let at = schema.place("etcdserverpb.LeaseKeepAliveResponse").expect("is there");
        let wire = pb::LeaseKeepAliveResponse { id: 7, ttl: 0, header: None }.encode_to_vec();
        assert_eq!(
            result_line(&schema, at, &wire).expect("written"),
            b"{\"result\":{\"ID\":\"7\"}}\n"
        );
        assert_eq!(http_status(5), 404);
        assert_eq!(http_status(2), 500);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let schema = Schema::of_the_api();
        for wire in [&[0x0a][..], &[0x0a, 5, 1], &[0xff], &[0x09, 0, 0, 0, 0, 0, 0, 0, 0], &[8, 1]]
        {
            let at = schema.place("etcdserverpb.RangeResponse").expect("is there");
            assert!(to_json(&schema, at, wire, Spaces::None).is_err(), "{wire:?}");
        }
    }
}
