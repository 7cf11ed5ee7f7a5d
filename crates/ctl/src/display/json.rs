//! Messages as Go's `encoding/json` writes the structures that Go makes of them: one line, fields in the order and
//! under the names of the `.proto` files, what is zero left out, numbers as numbers, bytes in base64. Not here: the
//! JSON of etcd's gateway, which is protobuf's own.
//!
//! The writer goes by the descriptors and reads encoded messages, so a field that is added to a message is printed
//! without anybody thinking of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use etch_client::pb;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// What a field holds.
enum Kind {
    Signed,
    Unsigned,
    Switch,
    Text,
    Bytes,
    /// A message, by its full name.
    Nested(String),
}

struct Field {
    number: u32,
    name: String,
    kind: Kind,
    is_list: bool,
    /// Whether it is one of several that exclude each other.
    is_choice: bool,
}

type Schema = HashMap<String, Vec<Field>>;

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let set = FileDescriptorSet::decode(etch_api::pb::FILE_DESCRIPTOR_SET)
            .expect("the build wrote what it reads");
        let mut schema = Schema::new();
        for file in &set.file {
            file.message_type.iter().for_each(|m| gather(file.package(), m, &mut schema));
        }
        schema
    })
}

fn gather(within: &str, message: &DescriptorProto, schema: &mut Schema) {
    let name = format!("{within}.{}", message.name());
    message.nested_type.iter().for_each(|nested| gather(&name, nested, schema));
    let fields = message.field.iter().map(|field| Field {
        number: field.number().cast_unsigned(),
        name: field.name().to_owned(),
        kind: match field.r#type() {
            Type::Bool => Kind::Switch,
            Type::String => Kind::Text,
            Type::Bytes => Kind::Bytes,
            Type::Uint32 | Type::Uint64 => Kind::Unsigned,
            Type::Message => Kind::Nested(field.type_name().trim_start_matches('.').to_owned()),
            _ => Kind::Signed,
        },
        is_list: field.label() == Label::Repeated,
        is_choice: field.oneof_index.is_some(),
    });
    schema.insert(name, fields.collect());
}

/// A message as JSON. With `hex` the identifiers of the cluster and of members are hexadecimal, and what names them
/// is never left out.
pub fn message<M: Message + Name>(message: &M, hex: bool) -> String {
    let mut out = String::new();
    write(&M::full_name(), &message.encode_to_vec(), hex, &mut out);
    out
}

/// A part of a message.
#[derive(Clone, Copy)]
enum Part<'a> {
    Number(u64),
    Blob(&'a [u8]),
}

fn write(name: &str, encoded: &[u8], hex: bool, out: &mut String) {
    let Some(fields) = schema().get(name) else { return out.push_str("{}") };
    let parts = parts(encoded);
    let mut open = Object::new(out);
    let mut chosen = false;
    for field in fields {
        let held: Vec<Part<'_>> =
            parts.iter().filter(|(n, _)| *n == field.number).map(|(_, part)| *part).collect();
        if field.is_choice {
            if let Some(part) = held.last() {
                chosen = true;
                open.name("Response");
                let mut inner = Object::new(open.out);
                inner.name(&field.name);
                value(field, *part, hex, inner.out);
                inner.close();
            }
        } else if hex && is_identity(name, &field.name) {
            open.name(&field.name);
            let _ = match held.last() {
                Some(Part::Number(id)) => write!(open.out, "\"{id:x}\""),
                _ => write!(open.out, "\"0\""),
            };
        } else if field.is_list && (!held.is_empty() || (hex && field.name == "members")) {
            open.name(&field.name);
            list(field, &held, hex, open.out);
        } else if let Some(part) = held.last() {
            open.name(&field.name);
            value(field, *part, hex, open.out);
        }
    }
    // Go's structure has the choice's place even where nothing was chosen.
    if !chosen && fields.first().is_some_and(|field| field.is_choice) {
        open.name("Response");
        open.out.push_str("{}");
    }
    open.close();
}

/// What `--hex` is about.
fn is_identity(message: &str, field: &str) -> bool {
    matches!(
        (message, field),
        ("etcdserverpb.ResponseHeader", "cluster_id" | "member_id") | ("etcdserverpb.Member", "ID")
    )
}

/// The parts of an encoded message, in their order. Our own encoder wrote it, so there is nothing to refuse; what
/// cannot be read would end it.
fn parts(mut encoded: &[u8]) -> Vec<(u32, Part<'_>)> {
    let mut parts = Vec::new();
    while let Ok((number, kind)) = decode_key(&mut encoded) {
        let Ok(varint) = decode_varint(&mut encoded) else { break };
        let part = match kind {
            WireType::Varint => Part::Number(varint),
            WireType::LengthDelimited => {
                let length = usize::try_from(varint).unwrap_or(usize::MAX);
                let Some((blob, rest)) = encoded.split_at_checked(length) else { break };
                encoded = rest;
                Part::Blob(blob)
            }
            _ => break,
        };
        parts.push((number, part));
    }
    parts
}

fn list(field: &Field, held: &[Part<'_>], hex: bool, out: &mut String) {
    out.push('[');
    let mut first = true;
    let mut comma = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
    };
    for part in held {
        match (&field.kind, *part) {
            (Kind::Signed | Kind::Unsigned | Kind::Switch, Part::Blob(mut packed)) => {
                while let Ok(number) = decode_varint(&mut packed) {
                    comma(out);
                    value(field, Part::Number(number), hex, out);
                }
            }
            _ => {
                comma(out);
                value(field, *part, hex, out);
            }
        }
    }
    out.push(']');
}

fn value(field: &Field, part: Part<'_>, hex: bool, out: &mut String) {
    let _ = match (&field.kind, part) {
        (Kind::Signed, Part::Number(number)) => write!(out, "{}", number.cast_signed()),
        (Kind::Unsigned, Part::Number(number)) => write!(out, "{number}"),
        (Kind::Switch, Part::Number(number)) => write!(out, "{}", number != 0),
        (Kind::Text, Part::Blob(blob)) => {
            text(&String::from_utf8_lossy(blob), out);
            Ok(())
        }
        (Kind::Bytes, Part::Blob(blob)) => {
            bytes(blob, out);
            Ok(())
        }
        (Kind::Nested(name), Part::Blob(blob)) => {
            write(name, blob, hex, out);
            Ok(())
        }
        _ => write!(out, "null"),
    };
}

/// An object that is being written.
pub struct Object<'o> {
    /// Where the next value goes.
    pub out: &'o mut String,
    empty: bool,
}

impl<'o> Object<'o> {
    /// Opens one.
    pub fn new(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// Begins a field; its value goes to `out`.
    pub fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        text(name, self.out);
        self.out.push(':');
    }

    /// A field that shows as it prints: a number or a boolean.
    pub fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    /// A field that is a list; as Go has it, none at all is no empty list.
    pub fn list<T>(&mut self, name: &str, items: &[T], mut write: impl FnMut(&T, &mut String)) {
        self.name(name);
        if items.is_empty() {
            return self.out.push_str("null");
        }
        for (at, item) in items.iter().enumerate() {
            self.out.push(if at == 0 { '[' } else { ',' });
            write(item, self.out);
        }
        self.out.push(']');
    }

    /// A header's fields, in the midst of this object.
    pub fn header_fields(&mut self, header: Option<&pb::ResponseHeader>) {
        let Some(header) = header else { return };
        let fields: [(&str, i128); 4] = [
            ("cluster_id", header.cluster_id.into()),
            ("member_id", header.member_id.into()),
            ("revision", header.revision.into()),
            ("raft_term", header.raft_term.into()),
        ];
        fields
            .iter()
            .filter(|(_, value)| *value != 0)
            .for_each(|(name, value)| self.plain(name, value));
    }

    /// Closes it.
    pub fn close(self) {
        self.out.push('}');
    }
}

/// A text in quotes, with Go's escapes: those of HTML too.
pub fn text(text: &str, out: &mut String) {
    escaped(text, "<>&\u{2028}\u{2029}", out);
}

/// A text in quotes, with no more escapes than JSON needs.
pub fn plain_text(text: &str, out: &mut String) {
    escaped(text, "", out);
}

fn escaped(text: &str, also: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || also.contains(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Bytes in base64.
pub fn bytes(bytes: &[u8], out: &mut String) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_client::pb::response_op::Response;

    fn header() -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: 3, raft_term: 0 })
    }

    #[test]
    fn fields_have_the_order_and_the_names_that_go_gives_them() {
        let kv = etch_client::KeyValue {
            key: "a".into(),
            value: "\u{ff}".into(),
            lease: -1,
            mod_revision: 7,
            ..Default::default()
        };
        let get = pb::RangeResponse { header: header(), kvs: vec![kv], more: true, count: 1 };
        assert_eq!(
            message(&get, false),
            "{\"header\":{\"cluster_id\":18446744073709551615,\"member_id\":2,\"revision\":3},\
             \"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":7,\"value\":\"w78=\",\"lease\":-1}],\
             \"more\":true,\"count\":1}"
        );
        assert_eq!(message(&pb::RangeResponse::default(), false), "{}");
    }

    #[test]
    fn a_choice_is_an_object_in_an_object() {
        let op = |response| pb::ResponseOp { response };
        let nested = pb::TxnResponse { responses: vec![op(None)], ..Default::default() };
        let txn = pb::TxnResponse {
            header: None,
            succeeded: true,
            responses: vec![
                op(Some(Response::ResponsePut(pb::PutResponse::default()))),
                op(Some(Response::ResponseTxn(nested))),
            ],
        };
        assert_eq!(
            message(&txn, false),
            "{\"succeeded\":true,\"responses\":[{\"Response\":{\"response_put\":{}}},\
             {\"Response\":{\"response_txn\":{\"responses\":[{\"Response\":{}}]}}}]}"
        );
    }

    #[test]
    fn members_may_be_hexadecimal() {
        let member = pb::Member {
            id: 0xabc,
            name: "n".into(),
            peer_ur_ls: vec!["u".into()],
            ..Default::default()
        };
        let list = pb::MemberListResponse { header: header(), members: vec![member] };
        assert_eq!(
            message(&list, true),
            "{\"header\":{\"cluster_id\":\"ffffffffffffffff\",\"member_id\":\"2\",\"revision\":3},\
             \"members\":[{\"ID\":\"abc\",\"name\":\"n\",\"peerURLs\":[\"u\"]}]}"
        );
    }

    #[test]
    fn text_is_escaped_as_go_escapes_it() {
        let mut out = String::new();
        text("a\"\\\n\u{1}<&>\u{2028}é\u{7f}", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001\\u003c\\u0026\\u003e\\u2028é\u{7f}\"");
    }
}
