//! Finds the values in a stream of JSON, one after another, as they come in; what is broken is refused in the
//! words of Go's decoder, which looks at the whole of a value before anybody sees it. Not here: what is in a
//! value (`token`, `read`).

use bytes::{Buf, Bytes, BytesMut};

use crate::text::quoted_byte;

/// Deeper than this Go's decoder does not go.
const MAX_DEPTH: usize = 10_000;

/// The values of a stream.
#[derive(Default)]
pub struct Values {
    buffer: BytesMut,
    /// Bytes of the buffer that have been looked at.
    looked: usize,
    scanner: Scanner,
    failed: Option<String>,
}

impl Values {
    /// Adds what has come in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held of a value that is not whole.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next value, if it is whole. Once an error has come, it stays.
    pub fn take_next(&mut self) -> Result<Option<Bytes>, String> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if matches!(self.scanner.state, State::Begin) {
            let spaces = self.buffer.iter().take_while(|c| is_space(**c)).count();
            self.buffer.advance(spaces);
        }
        while let Some(c) = self.buffer.get(self.looked).copied() {
            match self.scanner.step(c) {
                Ok(Step::Goes) => self.looked += 1,
                // The end of a number is seen at the byte behind it.
                Ok(Step::EndedBefore) => return Ok(Some(self.take())),
                Ok(Step::EndsHere) => {
                    self.looked += 1;
                    return Ok(Some(self.take()));
                }
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// The last value, now that the stream has ended.
    pub fn end(&mut self) -> Result<Option<Bytes>, String> {
        if let Some(value) = self.take_next()? {
            return Ok(Some(value));
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        match self.scanner.step(b' ') {
            Ok(Step::EndedBefore) => Ok(Some(self.take())),
            _ => Err("unexpected EOF".into()),
        }
    }

    fn take(&mut self) -> Bytes {
        self.scanner = Scanner::default();
        self.buffer.split_to(std::mem::take(&mut self.looked)).freeze()
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

/// What a byte did.
enum Step {
    /// The value goes on.
    Goes,
    /// The value ends with this byte.
    EndsHere,
    /// The value ended before this byte.
    EndedBefore,
}

/// What the scanner is in.
#[derive(Clone, Copy)]
enum Within {
    Key,
    Value,
    Array,
}

#[derive(Clone, Copy)]
enum State {
    Begin,
    /// A value, or the end of an empty array.
    BeginOrEmpty,
    Key,
    KeyOrEmpty,
    AfterValue,
    Text,
    Escape,
    /// Hexadecimal digits that are still to come.
    Unicode(u8),
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
    /// A word, and how much of it has been seen.
    Word(&'static str, usize),
}

struct Scanner {
    state: State,
    within: Vec<Within>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Begin, within: Vec::new() }
    }
}

fn wrong(c: u8, context: &str) -> Result<Step, String> {
    Err(format!("invalid character {} {context}", quoted_byte(c)))
}

impl Scanner {
    fn step(&mut self, c: u8) -> Result<Step, String> {
        match self.state {
            State::Begin => self.begin(c),
            State::BeginOrEmpty if c == b']' => self.close(),
            State::BeginOrEmpty => self.begin(c),
            State::KeyOrEmpty if c == b'}' => self.close(),
            State::Key | State::KeyOrEmpty => match c {
                b'"' => self.go(State::Text),
                c if is_space(c) => Ok(Step::Goes),
                c => wrong(c, "looking for beginning of object key string"),
            },
            State::AfterValue => self.after_value(c),
            State::Text => match c {
                b'"' => self.closed(),
                b'\\' => self.go(State::Escape),
                c if c < b' ' => wrong(c, "in string literal"),
                _ => Ok(Step::Goes),
            },
            State::Escape => match c {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.go(State::Text),
                b'u' => self.go(State::Unicode(4)),
                c => wrong(c, "in string escape code"),
            },
            State::Unicode(left) => match c {
                c if !c.is_ascii_hexdigit() => wrong(c, "in \\u hexadecimal character escape"),
                _ if left == 1 => self.go(State::Text),
                _ => self.go(State::Unicode(left - 1)),
            },
            State::Word(word, seen) => self.word(word, seen, c),
            _ => self.number(c),
        }
    }

    fn go(&mut self, state: State) -> Result<Step, String> {
        self.state = state;
        Ok(Step::Goes)
    }

    fn begin(&mut self, c: u8) -> Result<Step, String> {
        match c {
            c if is_space(c) => Ok(Step::Goes),
            b'{' => self.open(Within::Key, State::KeyOrEmpty),
            b'[' => self.open(Within::Array, State::BeginOrEmpty),
            b'"' => self.go(State::Text),
            b'-' => self.go(State::Minus),
            b'0' => self.go(State::Zero),
            b'1'..=b'9' => self.go(State::Whole),
            b't' => self.go(State::Word("true", 1)),
            b'f' => self.go(State::Word("false", 1)),
            b'n' => self.go(State::Word("null", 1)),
            c => wrong(c, "looking for beginning of value"),
        }
    }

    fn open(&mut self, within: Within, state: State) -> Result<Step, String> {
        self.within.push(within);
        if self.within.len() > MAX_DEPTH {
            return Err("exceeded max depth".into());
        }
        self.go(state)
    }

    /// An object or an array ends.
    fn close(&mut self) -> Result<Step, String> {
        self.within.pop();
        self.closed()
    }

    /// A value ends with the byte that was just seen.
    fn closed(&mut self) -> Result<Step, String> {
        if self.within.is_empty() {
            return Ok(Step::EndsHere);
        }
        self.go(State::AfterValue)
    }

    fn after_value(&mut self, c: u8) -> Result<Step, String> {
        let Some(within) = self.within.last_mut() else { return Ok(Step::EndedBefore) };
        if is_space(c) {
            return self.go(State::AfterValue);
        }
        match (*within, c) {
            (Within::Key, b':') => {
                *within = Within::Value;
                self.go(State::Begin)
            }
            (Within::Value, b',') => {
                *within = Within::Key;
                self.go(State::Key)
            }
            (Within::Array, b',') => self.go(State::Begin),
            (Within::Value, b'}') | (Within::Array, b']') => self.close(),
            (Within::Key, c) => wrong(c, "after object key"),
            (Within::Value, c) => wrong(c, "after object key:value pair"),
            (Within::Array, c) => wrong(c, "after array element"),
        }
    }

    fn word(&mut self, word: &'static str, seen: usize, c: u8) -> Result<Step, String> {
        let expected = word.as_bytes()[seen];
        if c != expected {
            let expected = char::from(expected);
            return wrong(c, &format!("in literal {word} (expecting '{expected}')"));
        }
        if seen + 1 == word.len() { self.closed() } else { self.go(State::Word(word, seen + 1)) }
    }

    fn number(&mut self, c: u8) -> Result<Step, String> {
        match (self.state, c) {
            (State::Minus, b'0') => self.go(State::Zero),
            (State::Minus, b'1'..=b'9') => self.go(State::Whole),
            (State::Minus, c) => wrong(c, "in numeric literal"),
            (State::Whole, b'0'..=b'9') => Ok(Step::Goes),
            (State::Whole | State::Zero, b'.') => self.go(State::Point),
            (State::Whole | State::Zero | State::Fraction, b'e' | b'E') => self.go(State::E),
            (State::Point | State::Fraction, b'0'..=b'9') => self.go(State::Fraction),
            (State::Point, c) => wrong(c, "after decimal point in numeric literal"),
            (State::E, b'+' | b'-') => self.go(State::ESign),
            (State::E | State::ESign | State::Exponent, b'0'..=b'9') => self.go(State::Exponent),
            (State::E | State::ESign, c) => wrong(c, "in exponent of numeric literal"),
            // The number is over, and this byte is behind it.
            (_, c) => {
                self.state = State::AfterValue;
                self.after_value(c)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], step: usize) -> (Vec<String>, Option<String>) {
        let mut values = Values::default();
        let mut found = Vec::new();
        let text_of = |b: Bytes| String::from_utf8_lossy(&b).into_owned();
        for chunk in text.chunks(step) {
            values.push(chunk);
            loop {
                match values.take_next() {
                    Ok(Some(value)) => found.push(text_of(value)),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        loop {
            match values.end() {
                Ok(Some(value)) => found.push(text_of(value)),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[test]
    fn values_are_found_however_they_come_in() {
        let text = br#" {"a":[1,{"b":"}\"]"}],"c":-1.5e+3} [] 12 null "x"{}"#;
        let want = [r#"{"a":[1,{"b":"}\"]"}],"c":-1.5e+3}"#, "[]", "12", "null", "\"x\"", "{}"];
        for step in 1..text.len() {
            let (found, error) = all(text, step);
            assert_eq!((found, error), (want.iter().map(|s| (*s).to_owned()).collect(), None));
        }
        assert_eq!(all(b"7", 1).0, ["7"]);
        assert_eq!(all(b"  \n", 1), (vec![], None));
    }

    #[test]
    fn what_is_broken_is_refused_in_gos_words() {
        for (text, want) in [
            ("{", "unexpected EOF"),
            ("nul", "unexpected EOF"),
            ("-", "unexpected EOF"),
            ("\"a", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
            (r#""\q""#, "invalid character 'q' in string escape code"),
            (r#""\u00g""#, "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ] {
            let (found, error) = all(text.as_bytes(), 1);
            assert_eq!((found, error.as_deref()), (vec![], Some(want)), "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1);
        assert_eq!(all(deep.as_bytes(), 4096).1.as_deref(), Some("exceeded max depth"));
    }
}
