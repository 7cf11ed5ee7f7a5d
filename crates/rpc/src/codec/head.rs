//! A request's head: pseudo-headers and headers by the rules of RFC 9113, 8.2 and 8.3, made once for all requests
//! that say the same. Not here: what is gRPC in it (`crate::http2`).

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::hpack::table::{Field, Name};
use crate::call::Route;
use crate::http2::ContentType;

/// What a request says before its body.
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// None where it is not gRPC.
    pub(crate) content: Option<ContentType>,
    /// The length that is announced for the body.
    pub(crate) length: Option<u64>,
    /// Where it leads and whether messages may be packed, once all checks have found it good.
    pub(crate) good: Cell<Option<(Route, bool)>>,
    /// What the server has made of the headers.
    pub(crate) note: OnceCell<Box<dyn Any>>,
}

/// A head that breaks the rules of HTTP/2, which ends its stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The headers that belong to HTTP/1 and its connections.
fn is_of_the_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == "keep-alive"
        || *name == "proxy-connection"
        || (*name == TE && value != "trailers")
}

#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a HeaderValue>,
    scheme: Option<&'a HeaderValue>,
    authority: Option<&'a HeaderValue>,
    path: Option<&'a HeaderValue>,
}

impl Head {
    /// A call from within the process.
    pub(crate) fn local(headers: HeaderMap) -> Head {
        Head {
            method: Method::POST,
            uri: Uri::default(),
            headers,
            content: None,
            length: None,
            good: Cell::new(None),
            note: OnceCell::new(),
        }
    }

    pub(crate) fn build(fields: &[Field]) -> Result<Head, Malformed> {
        let mut pseudo = Pseudo::default();
        let mut headers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let place = match &field.name {
                Name::Method => &mut pseudo.method,
                Name::Scheme => &mut pseudo.scheme,
                Name::Authority => &mut pseudo.authority,
                Name::Path => &mut pseudo.path,
                Name::Bad => return Err(Malformed),
                Name::Field(name) => {
                    if is_of_the_connection(name, &field.value) {
                        return Err(Malformed);
                    }
                    headers.try_append(name, field.value.clone()).map_err(|_| Malformed)?;
                    continue;
                }
            };
            // Those with a colon come first, and each but once.
            if !headers.is_empty() || place.replace(&field.value).is_some() {
                return Err(Malformed);
            }
        }
        let length = length(&headers)?;
        let method = pseudo.method.ok_or(Malformed)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed)?;
        let uri = uri(&method, &pseudo)?;
        let content = ContentType::of(&headers);
        let (good, note) = (Cell::new(None), OnceCell::new());
        Ok(Head { method, uri, headers, content, length, good, note })
    }
}

fn uri(method: &Method, pseudo: &Pseudo<'_>) -> Result<Uri, Malformed> {
    let mut parts = http::uri::Parts::default();
    let shared = |value: &HeaderValue| Bytes::copy_from_slice(value.as_bytes());
    if let Some(authority) = pseudo.authority
        && !authority.is_empty()
    {
        let authority = Authority::from_maybe_shared(shared(authority));
        parts.authority = Some(authority.map_err(|_| Malformed)?);
    }
    if *method == Method::CONNECT {
        if pseudo.scheme.is_some() || pseudo.path.is_some() || parts.authority.is_none() {
            return Err(Malformed);
        }
        return Uri::from_parts(parts).map_err(|_| Malformed);
    }
    let scheme = pseudo.scheme.ok_or(Malformed)?;
    let path = pseudo.path.filter(|path| !path.is_empty()).ok_or(Malformed)?;
    let path = http::uri::PathAndQuery::from_maybe_shared(shared(path));
    parts.path_and_query = Some(path.map_err(|_| Malformed)?);
    // A scheme alone makes no address.
    if parts.authority.is_some() {
        parts.scheme = Some(scheme.as_bytes().try_into().map_err(|_| Malformed)?);
    }
    Uri::from_parts(parts).map_err(|_| Malformed)
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().map_err(|_| Malformed)?;
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let length = digits.parse::<u64>().ok().filter(|_| all_digits).ok_or(Malformed)?;
        if found.replace(length).is_some_and(|before| before != length) {
            return Err(Malformed);
        }
    }
    Ok(found)
}

/// Whether these fields may stand behind a body.
pub(crate) fn are_trailers(fields: &[Field]) -> bool {
    fields.iter().all(|field| {
        matches!(&field.name, Name::Field(name) if !is_of_the_connection(name, &field.value))
    })
}

/// Takes the deadline out, which differs from call to call where all else is the same.
pub(crate) fn take_timeout(fields: &mut Vec<Field>) -> Option<HeaderValue> {
    let is_timeout =
        |field: &Field| matches!(&field.name, Name::Field(name) if *name == "grpc-timeout");
    let first = fields.iter().position(is_timeout)?;
    let value = fields.remove(first).value;
    fields.retain(|field| !is_timeout(field));
    Some(value)
}

/// How many different heads of a connection are kept. Most clients have one or two.
const KEPT: usize = 4;
/// Nothing larger is kept.
const MAX_BLOCK: usize = 512;
const MAX_FIELDS: usize = 16;

/// The heads that a connection has seen last. A client sends the same block again and again, which leaves the
/// table as it is: then nothing has to be read. Where only the deadline differs, nothing has to be made.
#[derive(Default)]
pub(crate) struct Heads {
    kept: Vec<Kept>,
    next: usize,
}

struct Kept {
    block: Vec<u8>,
    /// The table's state under which the block says this; `None` where it never says it twice.
    generation: Option<u64>,
    fields: Vec<Field>,
    head: Rc<Head>,
}

impl Heads {
    /// What this block says, if it has been read before and the table is the same.
    pub(crate) fn by_block(&self, block: &[u8], generation: u64) -> Option<Rc<Head>> {
        let same = |kept: &&Kept| kept.generation == Some(generation) && kept.block == block;
        self.kept.iter().find(same).map(|kept| Rc::clone(&kept.head))
    }

    /// The head of these fields: one that is there already, or a new one. `block` is what they were read from,
    /// where reading it again would do just the same.
    pub(crate) fn of(
        &mut self,
        fields: &[Field],
        block: Option<(&[u8], u64)>,
    ) -> Result<Rc<Head>, Malformed> {
        let block = block.filter(|(block, _)| block.len() <= MAX_BLOCK);
        let generation = block.map(|(_, generation)| generation);
        let found = self.kept.iter_mut().find(|kept| kept.fields == fields);
        if let Some(kept) = found {
            if let Some((block, _)) = block {
                kept.block.clear();
                kept.block.extend_from_slice(block);
                kept.generation = generation;
            }
            return Ok(Rc::clone(&kept.head));
        }
        let head = Rc::new(Head::build(fields)?);
        let len: usize = fields.iter().map(|field| field.value.len()).sum();
        if fields.len() <= MAX_FIELDS && len <= 2 * MAX_BLOCK {
            let block = block.map(|(block, _)| block.to_vec()).unwrap_or_default();
            let kept = Kept { block, generation, fields: fields.to_vec(), head: Rc::clone(&head) };
            self.keep(kept);
        }
        Ok(head)
    }

    fn keep(&mut self, kept: Kept) {
        if self.kept.len() < KEPT {
            return self.kept.push(kept);
        }
        self.kept[self.next] = kept;
        self.next = (self.next + 1) % KEPT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        let value = HeaderValue::from_str(value).expect("a value");
        Field { name: Name::parse(name.as_bytes()), value }
    }

    fn post(others: &[(&str, &str)]) -> Vec<Field> {
        [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C?d"), (":authority", "h:1")]
            .iter()
            .chain(others)
            .map(|(name, value)| field(name, value))
            .collect()
    }

    #[test]
    fn a_good_head() {
        let head = Head::build(&post(&[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("content-length", "7"),
            ("token", "a"),
            ("token", "b"),
        ]));
        let head = head.expect("good");
        assert_eq!(head.uri.path(), "/a.B/C");
        assert_eq!(head.uri, "http://h:1/a.B/C?d");
        assert_eq!(head.content, Some(ContentType::Grpc));
        assert_eq!(head.length, Some(7));
        assert_eq!(head.headers.get_all("token").iter().count(), 2);
        let no_authority: Vec<Field> = post(&[]).drain(..3).collect();
        assert_eq!(Head::build(&no_authority).expect("good").uri.path(), "/a.B/C");
    }

    #[test]
    fn malformed_heads() {
        let mut bad: Vec<Vec<Field>> = [
            ("connection", "x"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("te", "gzip"),
            ("Upper", "x"),
            (":status", "200"),
            (":unknown", "x"),
            (":path", "/again"),
            ("content-length", "-1"),
            ("content-length", "+1"),
            ("content-length", ""),
        ]
        .iter()
        .map(|other| post(&[*other]))
        .collect();
        bad.push(post(&[("content-length", "1"), ("content-length", "2")]));
        bad.push([vec![field("x", "y")], post(&[])].concat());
        bad.extend((0..3).map(|missing| {
            let mut fields = post(&[]);
            fields.remove(missing);
            fields
        }));
        for (at, wrong) in [(0, (":method", "A B")), (2, (":path", "")), (3, (":authority", "a b"))]
        {
            let mut fields = post(&[]);
            fields[at] = field(wrong.0, wrong.1);
            bad.push(fields);
        }
        for fields in bad {
            assert!(Head::build(&fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn heads_are_made_once() {
        let mut heads = Heads::default();
        let fields = post(&[]);
        let first = heads.of(&fields, None).expect("good");
        assert!(heads.by_block(b"block", 1).is_none());
        let again = heads.of(&fields, Some((b"block", 1))).expect("good");
        assert!(Rc::ptr_eq(&first, &again));
        assert!(heads.by_block(b"block", 1).is_some_and(|head| Rc::ptr_eq(&first, &head)));
        assert!(heads.by_block(b"block", 2).is_none(), "the table has changed");
        assert!(heads.by_block(b"blocks", 1).is_none());
        for n in 0..10 {
            heads.of(&post(&[("n", &n.to_string())]), None).expect("good");
        }
        assert_eq!(heads.kept.len(), KEPT);
        assert!(heads.by_block(b"block", 1).is_none(), "it had to make room");
    }

    #[test]
    fn deadlines_are_taken_out() {
        let mut fields = post(&[("grpc-timeout", "1S"), ("a", "b"), ("grpc-timeout", "2S")]);
        assert_eq!(take_timeout(&mut fields), Some(HeaderValue::from_static("1S")));
        assert_eq!(fields, post(&[("a", "b")]));
        assert_eq!(take_timeout(&mut fields), None);
    }
}
