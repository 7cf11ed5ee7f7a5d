//! Arguments that are no text: keys and values may be any bytes, while `etch_cli` reads words of text. Bytes that
//! are no UTF-8 travel through it as characters of a private plane and are turned back here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;

/// The private characters: this one plus the byte.
const FIRST: u32 = 0x10_fe00;

fn hidden(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for, if it stands for one.
fn shown(c: char) -> Option<u8> {
    u8::try_from((c as u32).wrapping_sub(FIRST)).ok()
}

/// An argument as a word.
pub fn from_os(argument: OsString) -> String {
    from_bytes(&argument.into_vec())
}

/// Bytes as a word.
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut word = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match shown(c) {
                None => word.push(c),
                // One of the private characters themselves was given.
                Some(_) => word.extend(c.encode_utf8(&mut [0; 4]).bytes().map(hidden)),
            }
        }
        word.extend(chunk.invalid().iter().copied().map(hidden));
    }
    word
}

/// The bytes that a word was made of.
pub fn bytes(word: &str) -> Bytes {
    let mut bytes = Vec::with_capacity(word.len());
    for c in word.chars() {
        match shown(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes.into()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use etch_cli::{Failure, Flag, Matches};

    /// What a line of words behind a command with these flags gives; `''` is an empty word.
    pub fn matches(flags: Vec<Flag>, line: &str) -> Result<Matches, Failure> {
        let words: Vec<String> =
            line.split(' ').filter(|w| !w.is_empty()).map(|w| w.replace("''", "")).collect();
        let program = std::rc::Rc::new(crate::program("etcdctl"));
        let (path, args) = (String::new(), Vec::new());
        let none = Matches { path, flags: Vec::new(), args, dash: None, program };
        let flags = flags.into_iter().chain(crate::program::global_flags()).collect();
        none.again(flags, &words).map_err(|why| Failure::new(crate::exit::ERROR, why))
    }

    #[test]
    fn any_bytes_come_through() {
        let all: Vec<u8> = (0..=255).collect();
        let private = "a\u{10fe41}b\u{10feff}".as_bytes();
        for given in [&b"plain"[..], "é\u{2028}".as_bytes(), b"\xff\xfe", &all, private, b""] {
            let word = from_bytes(given);
            assert_eq!(bytes(&word), given, "{word:?}");
        }
        assert_eq!(from_bytes("é=1".as_bytes()), "é=1");
    }
}
