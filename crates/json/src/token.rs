//! The tokens of one JSON value, and the errors of Go's protobuf library, with lines and columns. Not here:
//! what the tokens are put into (`read`).

use std::borrow::Cow;

use crate::number;
use crate::text::quoted;

/// Errors begin so. The library writes either a blank or a hard blank there, by chance but for good in each
/// program that is built with it; etcd 3.7.1 as it is built from its tag has the hard one.
const HEAD: &str = "proto:\u{a0}";

/// An error of the library.
pub(crate) fn fault(text: impl std::fmt::Display) -> String {
    format!("{HEAD}{text}")
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    End,
    Null,
    Bool(bool),
    Number,
    Text(String),
    Name(String),
    ObjectOpen,
    ObjectClose,
    ArrayOpen,
    ArrayClose,
    Comma,
}

impl Kind {
    fn is_scalar(&self) -> bool {
        matches!(self, Kind::Null | Kind::Bool(_) | Kind::Number | Kind::Text(_))
    }

    fn closes(&self) -> bool {
        matches!(self, Kind::ObjectClose | Kind::ArrayClose)
    }
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    pub kind: Kind,
    pub raw: &'a [u8],
    at: usize,
}

impl Token<'_> {
    /// As it was written.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw)
    }
}

/// Reads tokens one after another.
pub(crate) struct Tokens<'a> {
    whole: &'a [u8],
    at: usize,
    last: Option<Kind>,
    /// True for each object that is open, false for each array.
    open: Vec<bool>,
    peeked: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    pub fn new(whole: &'a [u8]) -> Self {
        Self { whole, at: 0, last: None, open: Vec::new(), peeked: None }
    }

    /// An error at a token.
    pub fn fault(&self, token: &Token<'_>, text: impl std::fmt::Display) -> String {
        let (line, column) = self.position(token.at);
        fault(format_args!("(line {line}:{column}): {text}"))
    }

    /// The error of a token that may not stand where it does.
    pub fn unexpected(&self, token: &Token<'_>) -> String {
        self.syntax(token.at, format_args!("unexpected token {}", token.text()))
    }

    fn syntax(&self, at: usize, text: impl std::fmt::Display) -> String {
        let (line, column) = self.position(at);
        fault(format_args!("syntax error (line {line}:{column}): {text}"))
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.whole[..at];
        let line = before.iter().filter(|c| **c == b'\n').count() + 1;
        let start = before.iter().rposition(|c| *c == b'\n').map_or(0, |at| at + 1);
        (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
    }

    /// Looks at the next token without taking it.
    pub fn peek(&mut self) -> Result<Token<'a>, String> {
        let token = self.read()?;
        self.peeked = Some(token.clone());
        Ok(token)
    }

    /// Takes the next token.
    pub fn read(&mut self) -> Result<Token<'a>, String> {
        if let Some(token) = self.peeked.take() {
            return Ok(token);
        }
        loop {
            let mut token = self.parse()?;
            self.check(&mut token)?;
            self.last = Some(token.kind.clone());
            if token.kind != Kind::Comma {
                return Ok(token);
            }
        }
    }

    /// Passes over the next value, whatever it is.
    pub fn skip(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            match self.read()?.kind {
                Kind::ObjectOpen | Kind::ArrayOpen => depth += 1,
                Kind::ObjectClose | Kind::ArrayClose => depth = depth.saturating_sub(1),
                Kind::End => return Err(fault("unexpected EOF")),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Whether a token may stand here; a string before a colon is a name.
    fn check(&mut self, token: &mut Token<'a>) -> Result<(), String> {
        let value_next = self.is_value_next();
        let last = self.last.as_ref();
        let after_name_or_comma = matches!(last, Some(Kind::Name(_) | Kind::Comma));
        let ended = last.is_some_and(|kind| kind.is_scalar() || kind.closes());
        let good = match &token.kind {
            Kind::End if self.open.is_empty() => true,
            Kind::End => return Err(fault("unexpected EOF")),
            Kind::Text(text) if !value_next => {
                if !matches!(last, Some(Kind::ObjectOpen | Kind::Comma)) {
                    return Err(self.unexpected(token));
                }
                let name = text.clone();
                return self.name(token, name);
            }
            kind if kind.is_scalar() => value_next,
            Kind::ObjectOpen | Kind::ArrayOpen => {
                self.open.push(token.kind == Kind::ObjectOpen);
                value_next
            }
            Kind::ObjectClose => self.open.pop() == Some(true) && !after_name_or_comma,
            Kind::ArrayClose => self.open.pop() == Some(false) && last != Some(&Kind::Comma),
            _ => !self.open.is_empty() && ended,
        };
        if good { Ok(()) } else { Err(self.unexpected(token)) }
    }

    fn name(&mut self, token: &mut Token<'a>, name: String) -> Result<(), String> {
        match self.whole.get(self.at) {
            None => Err(fault("unexpected EOF")),
            Some(b':') => {
                token.kind = Kind::Name(name);
                self.consume(1);
                Ok(())
            }
            Some(c) => {
                let c = char::from(*c);
                let text = format!("unexpected character {c}, missing \":\" after field name");
                Err(self.syntax(self.at, text))
            }
        }
    }

    fn is_value_next(&self) -> bool {
        match self.open.last() {
            None => self.last.is_none(),
            Some(true) => matches!(self.last, Some(Kind::Name(_))),
            Some(false) => matches!(self.last, Some(Kind::ArrayOpen | Kind::Comma)),
        }
    }

    fn parse(&mut self) -> Result<Token<'a>, String> {
        self.consume(0);
        let rest = &self.whole[self.at..];
        let Some(first) = rest.first() else { return Ok(self.token(Kind::End, 0)) };
        let word = |word: &str| {
            let ends = rest.get(word.len()).is_none_or(|c| !number::is_not_delimiter(*c));
            rest.starts_with(word.as_bytes()) && ends
        };
        let found = match first {
            b'n' if word("null") => Some((Kind::Null, 4)),
            b't' if word("true") => Some((Kind::Bool(true), 4)),
            b'f' if word("false") => Some((Kind::Bool(false), 5)),
            b'-' | b'0'..=b'9' => number::scan(rest).map(|len| (Kind::Number, len)),
            b'"' => {
                let (text, len) = self.string(rest)?;
                Some((Kind::Text(text), len))
            }
            b'{' => Some((Kind::ObjectOpen, 1)),
            b'}' => Some((Kind::ObjectClose, 1)),
            b'[' => Some((Kind::ArrayOpen, 1)),
            b']' => Some((Kind::ArrayClose, 1)),
            b',' => Some((Kind::Comma, 1)),
            _ => None,
        };
        match found {
            Some((kind, len)) => Ok(self.token(kind, len)),
            None => {
                let word = rest.iter().take(32).take_while(|c| number::is_not_delimiter(**c));
                let shown = &rest[..word.count().max(1)];
                let text = format!("invalid value {}", String::from_utf8_lossy(shown));
                Err(self.syntax(self.at, text))
            }
        }
    }

    fn token(&mut self, kind: Kind, len: usize) -> Token<'a> {
        let token = Token { kind, raw: &self.whole[self.at..self.at + len], at: self.at };
        self.consume(len);
        token
    }

    /// Passes over so many bytes, and the blanks behind them.
    fn consume(&mut self, len: usize) {
        self.at += len;
        let blank = |c: &&u8| matches!(c, b' ' | b'\n' | b'\r' | b'\t');
        self.at += self.whole[self.at..].iter().take_while(blank).count();
    }

    /// The string that begins here, and how far it reaches.
    fn string(&self, whole: &[u8]) -> Result<(String, usize), String> {
        let eof = || fault("unexpected EOF");
        let bad = |what: &[u8]| {
            self.syntax(self.at, format_args!("invalid escape code {} in string", quoted(what)))
        };
        let mut out = Vec::new();
        let mut at = 1;
        loop {
            let rest = &whole[at..];
            match *rest.first().ok_or_else(eof)? {
                b'"' => break,
                b'\\' => {
                    let escape = *rest.get(1).ok_or_else(eof)?;
                    at += 2;
                    match escape {
                        b'"' | b'\\' | b'/' => out.push(escape),
                        b'b' => out.push(8),
                        b'f' => out.push(12),
                        b'n' => out.push(b'\n'),
                        b'r' => out.push(b'\r'),
                        b't' => out.push(b'\t'),
                        b'u' => {
                            let (c, len) = unicode(rest, eof, bad)?;
                            at += len - 2;
                            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        _ => return Err(bad(&rest[..2])),
                    }
                }
                c if c < b' ' => {
                    let shown = crate::text::quoted_byte(c);
                    return Err(
                        self.syntax(self.at, format!("invalid character {shown} in string"))
                    );
                }
                c => {
                    out.push(c);
                    at += 1;
                }
            }
        }
        match String::from_utf8(out) {
            Ok(text) => Ok((text, at + 1)),
            Err(_) => Err(self.syntax(self.at, "invalid UTF-8 in string")),
        }
    }
}

/// The character of `\u....`, or of two of them, and how far it reaches.
fn unicode(
    rest: &[u8],
    eof: impl Fn() -> String,
    bad: impl Fn(&[u8]) -> String,
) -> Result<(char, usize), String> {
    let hex = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok().filter(|t| !t.starts_with('+'))?;
        u32::from_str_radix(text, 16).ok()
    };
    if rest.len() < 6 {
        return Err(eof());
    }
    let first = hex(&rest[2..6]).ok_or_else(|| bad(&rest[..6]))?;
    if let Some(c) = char::from_u32(first) {
        return Ok((c, 6));
    }
    let second = &rest[6..];
    if second.len() < 6 {
        return Err(eof());
    }
    let low = hex(&second[2..6]).filter(|low| (0xdc00..0xe000).contains(low));
    match low {
        Some(low) if second.starts_with(b"\\u") && first < 0xdc00 => {
            let c = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            Ok((char::from_u32(c).unwrap_or('\u{fffd}'), 12))
        }
        _ => Err(bad(&second[..6])),
    }
}
