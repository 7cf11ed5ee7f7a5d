//! Lines of input as etcdctl reads them: words with quotes around some, and Go's quoted text. Not here: what the
//! lines ask for (`txn`, `watch`).

use std::io::BufRead;

use etch_cli::Failure;

use crate::{exit, words};

/// A line of input that makes no sense.
pub fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(exit::INVALID_INPUT, text)
}

/// The next line, without its end; nothing at the end of input, where a line that was not finished is lost too.
pub fn next(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(|e| invalid(e.to_string()))?;
    Ok((line.pop() == Some(b'\n')).then_some(line))
}

/// A line's words. Words may stand in quotes, double ones with Go's escapes.
pub fn split(line: &[u8]) -> Result<Vec<String>, Failure> {
    let mut split = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let rest = &line[at..];
        match rest[0] {
            b'"' => match quoted_end(rest) {
                Some(end) => {
                    let word = unquote(&rest[..end]).ok_or_else(|| invalid("invalid syntax"))?;
                    split.push(words::from_bytes(&word));
                    at += end;
                }
                None => at += 1,
            },
            b'\'' => match rest[1..].iter().position(|b| *b == b'\'') {
                Some(length) => {
                    split.push(words::from_bytes(&rest[1..=length]));
                    at += length + 2;
                }
                None => at += 1,
            },
            b if is_space(b) => at += 1,
            _ => {
                let end = rest.iter().position(|b| is_space(*b)).unwrap_or(rest.len());
                split.push(words::from_bytes(&rest[..end]));
                at += end;
            }
        }
    }
    Ok(split)
}

/// What separates words.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// Where the text in double quotes that this begins with ends, behind its last quote.
pub fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// The text in double quotes, without them and its escapes; nothing if Go would not read it.
pub fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut rest = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut out = Vec::with_capacity(rest.len());
    while let [first, more @ ..] = rest {
        match first {
            b'"' | b'\n' => return None,
            b'\\' => rest = escape(more, &mut out)?,
            byte => {
                out.push(*byte);
                rest = more;
            }
        }
    }
    Some(out)
}

/// Reads what stands behind a backslash; gives back the rest.
fn escape<'t>(text: &'t [u8], out: &mut Vec<u8>) -> Option<&'t [u8]> {
    let [kind, rest @ ..] = text else { return None };
    let plain = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => *kind,
        b'x' => return number(rest, 2, 16).map(|(byte, rest)| (out.push(byte as u8), rest).1),
        b'0'..=b'7' => {
            let (byte, rest) = number(text, 3, 8)?;
            out.push(u8::try_from(byte).ok()?);
            return Some(rest);
        }
        b'u' | b'U' => {
            let (code, rest) = number(rest, if *kind == b'u' { 4 } else { 8 }, 16)?;
            let c = char::from_u32(code)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

/// So many digits, and what is behind them.
fn number(text: &[u8], digits: usize, base: u32) -> Option<(u32, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let number = std::str::from_utf8(number).ok().filter(|n| !n.starts_with('+'))?;
    Some((u32::from_str_radix(number, base).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_stand_in_quotes() {
        let split = |line: &[u8]| split(line).map(|words| words.join("|"));
        assert_eq!(split(b"put a 'b  c' \"d\\x41\\n\\u00e9\""), Ok("put|a|b  c|dA\n\u{e9}".into()));
        assert_eq!(split(b"put a\"b c\" "), Ok("put|a\"b|c\"".into()));
        assert_eq!(split(b"put '' \"\""), Ok("put||".into()));
        // A quote that nothing closes is passed over.
        assert_eq!(split(b"put a \"open"), Ok("put|a|open".into()));
        assert_eq!(split(b"put \"\\q\""), Err(invalid("invalid syntax")));
    }

    #[test]
    fn bytes_may_be_escaped() {
        assert_eq!(unquote(b"\"\\xff\\377\\\"\\\\\""), Some(b"\xff\xff\"\\".to_vec()));
        for wrong in [&b"\"\\'\""[..], b"\"\\400\"", b"\"\\x1\"", b"\"\\ud800\"", b"\"", b"x"] {
            assert_eq!(unquote(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_lost() {
        let mut input = &b"one\n\ntwo"[..];
        assert_eq!(next(&mut input), Ok(Some(b"one".to_vec())));
        assert_eq!(next(&mut input), Ok(Some(b"".to_vec())));
        assert_eq!(next(&mut input), Ok(None));
    }
}
