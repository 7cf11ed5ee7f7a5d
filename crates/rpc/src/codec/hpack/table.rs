//! HPACK's tables (RFC 7541, 2.3 and Appendix A): the one that everybody has, and the one that a client fills.
//! Not here: how blocks refer to them.

use std::collections::VecDeque;

use http::header::{self as h, HeaderName, HeaderValue};

/// The name of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    /// An ordinary one.
    Field(HeaderName),
    /// None that a request may have, or with a value that no field may have.
    Bad,
}

impl Name {
    pub(crate) fn parse(bytes: &[u8]) -> Name {
        match bytes {
            b":method" => Name::Method,
            b":scheme" => Name::Scheme,
            b":authority" => Name::Authority,
            b":path" => Name::Path,
            // Capital letters are refused along with whatever else is no name.
            _ => HeaderName::from_lowercase(bytes).map_or(Name::Bad, Name::Field),
        }
    }
}

/// A field as it came, checked as far as it goes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Name,
    pub(crate) value: HeaderValue,
}

/// What HTTP/2 counts for a field besides its bytes.
pub(crate) const OVERHEAD: usize = 32;

/// The fields that have a number before anything is said; the first is 1.
const STATIC: [(Name, &str); 61] = [
    (Name::Authority, ""),
    (Name::Method, "GET"),
    (Name::Method, "POST"),
    (Name::Path, "/"),
    (Name::Path, "/index.html"),
    (Name::Scheme, "http"),
    (Name::Scheme, "https"),
    // Statuses stand in answers alone.
    (Name::Bad, "200"),
    (Name::Bad, "204"),
    (Name::Bad, "206"),
    (Name::Bad, "304"),
    (Name::Bad, "400"),
    (Name::Bad, "404"),
    (Name::Bad, "500"),
    (Name::Field(h::ACCEPT_CHARSET), ""),
    (Name::Field(h::ACCEPT_ENCODING), "gzip, deflate"),
    (Name::Field(h::ACCEPT_LANGUAGE), ""),
    (Name::Field(h::ACCEPT_RANGES), ""),
    (Name::Field(h::ACCEPT), ""),
    (Name::Field(h::ACCESS_CONTROL_ALLOW_ORIGIN), ""),
    (Name::Field(h::AGE), ""),
    (Name::Field(h::ALLOW), ""),
    (Name::Field(h::AUTHORIZATION), ""),
    (Name::Field(h::CACHE_CONTROL), ""),
    (Name::Field(h::CONTENT_DISPOSITION), ""),
    (Name::Field(h::CONTENT_ENCODING), ""),
    (Name::Field(h::CONTENT_LANGUAGE), ""),
    (Name::Field(h::CONTENT_LENGTH), ""),
    (Name::Field(h::CONTENT_LOCATION), ""),
    (Name::Field(h::CONTENT_RANGE), ""),
    (Name::Field(h::CONTENT_TYPE), ""),
    (Name::Field(h::COOKIE), ""),
    (Name::Field(h::DATE), ""),
    (Name::Field(h::ETAG), ""),
    (Name::Field(h::EXPECT), ""),
    (Name::Field(h::EXPIRES), ""),
    (Name::Field(h::FROM), ""),
    (Name::Field(h::HOST), ""),
    (Name::Field(h::IF_MATCH), ""),
    (Name::Field(h::IF_MODIFIED_SINCE), ""),
    (Name::Field(h::IF_NONE_MATCH), ""),
    (Name::Field(h::IF_RANGE), ""),
    (Name::Field(h::IF_UNMODIFIED_SINCE), ""),
    (Name::Field(h::LAST_MODIFIED), ""),
    (Name::Field(h::LINK), ""),
    (Name::Field(h::LOCATION), ""),
    (Name::Field(h::MAX_FORWARDS), ""),
    (Name::Field(h::PROXY_AUTHENTICATE), ""),
    (Name::Field(h::PROXY_AUTHORIZATION), ""),
    (Name::Field(h::RANGE), ""),
    (Name::Field(h::REFERER), ""),
    (Name::Field(h::REFRESH), ""),
    (Name::Field(h::RETRY_AFTER), ""),
    (Name::Field(h::SERVER), ""),
    (Name::Field(h::SET_COOKIE), ""),
    (Name::Field(h::STRICT_TRANSPORT_SECURITY), ""),
    (Name::Field(h::TRANSFER_ENCODING), ""),
    (Name::Field(h::USER_AGENT), ""),
    (Name::Field(h::VARY), ""),
    (Name::Field(h::VIA), ""),
    (Name::Field(h::WWW_AUTHENTICATE), ""),
];
static FIXED: [(Name, &str); 61] = STATIC;

/// The fields that the client has put in, the newest first.
#[derive(Debug)]
pub(crate) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// Moves with every change.
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    field: Field,
    /// Length of its name, which a bad one does not tell.
    name_len: usize,
    size: usize,
}

impl Table {
    pub(crate) fn new(max: usize) -> Table {
        Table { entries: VecDeque::new(), size: 0, max, generation: 0 }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The field of this number, and the length of its name.
    pub(crate) fn get(&self, index: usize) -> Option<(Field, usize)> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = FIXED.get(index) {
            let len = match name {
                Name::Method | Name::Scheme | Name::Bad => 7,
                Name::Authority => 10,
                Name::Path => 5,
                Name::Field(name) => name.as_str().len(),
            };
            let value = HeaderValue::from_static(value);
            return Some((Field { name: name.clone(), value }, len));
        }
        let entry = self.entries.get(index - FIXED.len())?;
        Some((entry.field.clone(), entry.name_len))
    }

    /// Puts a field in front; those that find no room any more go, and so does the field itself where it
    /// is larger than the table.
    pub(crate) fn insert(&mut self, field: Field, name_len: usize, value_len: usize) {
        let size = name_len + value_len + OVERHEAD;
        self.generation += 1;
        self.evict(self.max.saturating_sub(size));
        if size <= self.max {
            self.size += size;
            self.entries.push_front(Entry { field, name_len, size });
        }
    }

    pub(crate) fn resize(&mut self, max: usize) {
        self.generation += 1;
        self.max = max;
        self.evict(max);
    }

    fn evict(&mut self, room: usize) {
        while self.size > room
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size;
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}
