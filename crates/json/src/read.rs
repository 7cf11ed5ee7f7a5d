//! JSON to the wire: the fields of a message by either of their names, in any order; what is not known is
//! passed over, what is wrong is refused in the words of Go's protobuf library. Not here: tokens (`token`).

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use prost::encoding::encode_varint;

use crate::number;
use crate::schema::{Field, Kind, MessageType, Schema};
use crate::token::{Kind as Tok, Token, Tokens, fault};

/// Messages within messages, at the most. Go's library goes down to 10,000; the decoder of our own calls stops
/// before this, and so does the stack.
const MAX_DEPTH: usize = 200;

/// The message that this value says, encoded.
pub fn to_wire(schema: &Schema, message: usize, value: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = Reader { schema, tokens: Tokens::new(value), depth: 0 };
    let encoded = reader.message(message)?;
    let behind = reader.tokens.read()?;
    if behind.kind == Tok::End { Ok(encoded) } else { Err(reader.tokens.unexpected(&behind)) }
}

struct Reader<'a> {
    schema: &'a Schema,
    tokens: Tokens<'a>,
    depth: usize,
}

/// A field that was read: its number and its encoding, tags included.
type Encoded = (u32, Vec<u8>);

/// A scalar that was read; none is what an enum does not know.
enum Scalar {
    Varint(u64),
    Bytes(Vec<u8>),
    Unknown,
}

impl Reader<'_> {
    fn message(&mut self, at: usize) -> Result<Vec<u8>, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fault("exceeded max recursion depth"));
        }
        let kind = &self.schema.messages[at];
        let open = self.tokens.read()?;
        if open.kind != Tok::ObjectOpen {
            return Err(self.tokens.unexpected(&open));
        }
        let mut seen = vec![false; kind.fields.len()];
        let mut set = vec![false; kind.oneofs.len()];
        let mut fields: Vec<Encoded> = Vec::new();
        loop {
            let token = self.tokens.read()?;
            match &token.kind {
                Tok::ObjectClose => break,
                Tok::Name(name) => {
                    if let Some(field) = self.field(kind, name, &token, &mut seen, &mut set)? {
                        fields.push(field);
                    }
                }
                _ => return Err(self.tokens.unexpected(&token)),
            }
        }
        self.depth -= 1;
        fields.sort_by_key(|(number, _)| *number);
        Ok(fields.into_iter().flat_map(|(_, encoded)| encoded).collect())
    }

    /// The field behind a name, if it has to be written.
    fn field(
        &mut self,
        kind: &MessageType,
        name: &str,
        token: &Token<'_>,
        seen: &mut [bool],
        set: &mut [bool],
    ) -> Result<Option<Encoded>, String> {
        let Some(at) = kind.named(name) else {
            self.tokens.skip()?;
            return Ok(None);
        };
        let field = &kind.fields[at];
        if std::mem::replace(&mut seen[at], true) {
            return Err(self.tokens.fault(token, format_args!("duplicate field {}", token.text())));
        }
        // What is wrong with the token is said by whoever takes it.
        if self.tokens.peek().is_ok_and(|next| next.kind == Tok::Null) {
            self.tokens.read()?;
            return Ok(None);
        }
        let mut out = Vec::new();
        if field.is_list {
            self.list(field, &mut out)?;
            return Ok(Some((field.number, out)));
        }
        if let Some(one) = field.oneof
            && std::mem::replace(&mut set[one], true)
        {
            let (raw, one) = (token.text(), &kind.oneofs[one]);
            let text = format!("error parsing {raw}, oneof {one} is already set");
            return Err(self.tokens.fault(token, text));
        }
        if let Kind::Message(inner) = field.kind {
            bytes_field(field.number, &self.message(inner)?, &mut out);
        } else {
            match self.scalar(field)? {
                Scalar::Varint(0) if field.oneof.is_none() => {}
                Scalar::Varint(value) => varint_field(field.number, value, &mut out),
                Scalar::Bytes(value) if value.is_empty() && field.oneof.is_none() => {}
                Scalar::Bytes(value) => bytes_field(field.number, &value, &mut out),
                Scalar::Unknown => {}
            }
        }
        Ok(Some((field.number, out)))
    }

    fn list(&mut self, field: &Field, out: &mut Vec<u8>) -> Result<(), String> {
        let open = self.tokens.read()?;
        if open.kind != Tok::ArrayOpen {
            return Err(self.tokens.unexpected(&open));
        }
        let mut packed = Vec::new();
        while self.tokens.peek()?.kind != Tok::ArrayClose {
            if let Kind::Message(inner) = field.kind {
                bytes_field(field.number, &self.message(inner)?, out);
                continue;
            }
            match self.scalar(field)? {
                Scalar::Varint(value) => encode_varint(value, &mut packed),
                Scalar::Bytes(value) => bytes_field(field.number, &value, out),
                Scalar::Unknown => {}
            }
        }
        self.tokens.read()?;
        if !packed.is_empty() {
            bytes_field(field.number, &packed, out);
        }
        Ok(())
    }

    fn scalar(&mut self, field: &Field) -> Result<Scalar, String> {
        let token = self.tokens.read()?;
        let found = match field.kind {
            Kind::Bool => match token.kind {
                Tok::Bool(value) => Some(Scalar::Varint(u64::from(value))),
                _ => None,
            },
            Kind::Int32 => signed(&token)
                .and_then(|n| i32::try_from(n).ok())
                .map(|n| Scalar::Varint(i64::from(n) as u64)),
            Kind::Int64 => signed(&token).map(|n| Scalar::Varint(n as u64)),
            Kind::Uint32 => {
                unsigned(&token).filter(|n| u32::try_from(*n).is_ok()).map(Scalar::Varint)
            }
            Kind::Uint64 => unsigned(&token).map(Scalar::Varint),
            Kind::Text => match &token.kind {
                Tok::Text(text) => Some(Scalar::Bytes(text.clone().into_bytes())),
                _ => None,
            },
            Kind::Blob => match &token.kind {
                Tok::Text(text) => base64(text).map(Scalar::Bytes),
                _ => None,
            },
            Kind::Enum(at) => match &token.kind {
                Tok::Text(name) => Some(match self.schema.enums[at].number(name) {
                    Some(number) => Scalar::Varint(i64::from(number) as u64),
                    None => Scalar::Unknown,
                }),
                Tok::Number => number::signed(token.raw)
                    .and_then(|n| i32::try_from(n).ok())
                    .map(|n| Scalar::Varint(i64::from(n) as u64)),
                _ => None,
            },
            Kind::Message(_) => None,
        };
        found.ok_or_else(|| {
            let (kind, name, raw) = (field.kind.name(), &field.json_name, token.text());
            self.tokens.fault(&token, format!("invalid value for {kind} field {name}: {raw}"))
        })
    }
}

/// The digits of a number, which may stand in quotes.
fn digits<'a>(token: &'a Token<'_>) -> Option<&'a [u8]> {
    match &token.kind {
        Tok::Number => Some(token.raw),
        Tok::Text(text) => {
            let text = text.as_bytes();
            (number::scan(text) == Some(text.len())).then_some(text)
        }
        _ => None,
    }
}

fn signed(token: &Token<'_>) -> Option<i64> {
    number::signed(digits(token)?)
}

fn unsigned(token: &Token<'_>) -> Option<u64> {
    number::unsigned(digits(token)?)
}

/// Either alphabet, with padding or without; as in Go, line breaks do not count, and the bits that are left
/// over in the last letter may be anything.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LAX: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    const PADDED: [GeneralPurpose; 2] = [
        GeneralPurpose::new(&base64::alphabet::STANDARD, LAX),
        GeneralPurpose::new(&base64::alphabet::URL_SAFE, LAX),
    ];
    let url = text.contains(['-', '_']);
    let padded = text.len().is_multiple_of(4);
    let kept: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    if padded {
        return PADDED[usize::from(url)].decode(kept).ok();
    }
    let config = LAX.with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone);
    let alphabet = if url { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config).decode(kept).ok()
}

fn varint_field(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_varint(u64::from(number) << 3, out);
    encode_varint(value, out);
}

fn bytes_field(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_varint(u64::from(number) << 3 | 2, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::etcdserverpb as pb;
    use prost::Message;

    fn read<M: Message + Default + prost::Name>(text: &str) -> Result<M, String> {
        let schema = Schema::of_the_api();
        let at = schema.place(&M::full_name()).expect("is there");
        let wire = to_wire(&schema, at, text.as_bytes()).map_err(|e| e.replace('\u{a0}', " "))?;
        Ok(M::decode(&wire[..]).expect("good"))
    }

    #[test]
    fn messages_are_read_in_either_spelling() {
        let got: pb::RangeRequest = read(
            r#"{"key":"Zm9v","rangeEnd":"_-8","limit":"5","sort_order":"DESCEND","sortTarget":2,
                "serializable":true,"unknown":{"a":[1,{}]},"keys_only":null}"#,
        )
        .expect("good");
        let want = pb::RangeRequest {
            key: "foo".into(),
            range_end: vec![0xff, 0xef].into(),
            limit: 5,
            sort_order: 2,
            sort_target: 2,
            serializable: true,
            ..pb::RangeRequest::default()
        };
        assert_eq!(got, want);
        let got: pb::TxnRequest = read(
            r#"{"compare":[{"key":"YQ==","create_revision":0,"target":"CREATE"}],
                "success":[{"requestPut":{"key":"YQ"}}]}"#,
        )
        .expect("good");
        let zero = pb::compare::TargetUnion::CreateRevision(0);
        assert_eq!(got.compare[0].target_union, Some(zero));
        assert_eq!(got.success.len(), 1);
        let got: pb::WatchCreateRequest =
            read(r#"{"filters":["NODELETE","NOPE",0]}"#).expect("good");
        assert_eq!(got.filters, [1, 0]);
    }

    #[test]
    fn what_is_wrong_is_refused_in_the_librarys_words() {
        for (text, want) in [
            ("null", "syntax error (line 1:1): unexpected token null"),
            ("[]", "syntax error (line 1:1): unexpected token ["),
            (r#"{"key":1}"#, "(line 1:8): invalid value for bytes field key: 1"),
            (r#"{"key":"%%"}"#, "(line 1:8): invalid value for bytes field key: \"%%\""),
            (r#"{"key":"a","key":"a"}"#, "(line 1:8): invalid value for bytes field key: \"a\""),
            ("{\"key\":\"\",\n \"key\":\"\"}", "(line 2:2): duplicate field \"key\""),
            (r#"{"limit":1.5}"#, "(line 1:10): invalid value for int64 field limit: 1.5"),
            (r#"{"limit":" 1"}"#, "(line 1:10): invalid value for int64 field limit: \" 1\""),
            (r#"{"keysOnly":"x"}"#, "(line 1:13): invalid value for bool field keysOnly: \"x\""),
            (r#"{"sort_order":{}}"#, "(line 1:15): invalid value for enum field sortOrder: {"),
            (r#"{"key":"\ud800"}"#, "unexpected EOF"),
        ] {
            let got = read::<pb::RangeRequest>(text).expect_err(text);
            assert_eq!(got, format!("proto: {want}"), "{text}");
        }
        for (text, want) in [
            (r#"{"compare":{}}"#, "syntax error (line 1:12): unexpected token {"),
            (r#"{"compare":[1]}"#, "syntax error (line 1:13): unexpected token 1"),
            (
                r#"{"compare":[{"version":1,"lease":2}]}"#,
                "(line 1:26): error parsing \"lease\", oneof etcdserverpb.Compare.target_union is already set",
            ),
        ] {
            let got = read::<pb::TxnRequest>(text).expect_err(text);
            assert_eq!(got, format!("proto: {want}"), "{text}");
        }
    }
}
