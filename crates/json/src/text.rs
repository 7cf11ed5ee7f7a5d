//! Strings as JSON and as Go's `%q` have them. Not here: reading them.

use std::fmt::Write as _;

/// Appends a string with its quotes. `<`, `>` and `&` are escaped where Go's own encoder wrote it.
pub(crate) fn quote(text: &str, html: bool, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if c < ' ' || (html && matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}')) => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// A byte between single quotes, as Go's decoder shows it in errors.
pub(crate) fn quoted_byte(c: u8) -> String {
    match c {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        c => format!("'{}'", go_escape(char::from(c))),
    }
}

/// Bytes between double quotes, as Go's `%q` shows them.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '"' {
                out.push_str("\\\"");
            } else {
                out.push_str(&go_escape(c));
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out + "\""
}

fn go_escape(c: char) -> String {
    match c {
        '\\' => r"\\".into(),
        '\u{7}' => r"\a".into(),
        '\u{8}' => r"\b".into(),
        '\u{c}' => r"\f".into(),
        '\n' => r"\n".into(),
        '\r' => r"\r".into(),
        '\t' => r"\t".into(),
        '\u{b}' => r"\v".into(),
        c if c < ' ' || c == '\u{7f}' => format!("\\x{:02x}", u32::from(c)),
        '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{2028}' | '\u{2029}' => {
            format!("\\u{:04x}", u32::from(c))
        }
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_each_encoder_does() {
        let quoted = |html| {
            let mut out = Vec::new();
            quote("a\"\\\n\u{1}<é", html, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(quoted(false), "\"a\\\"\\\\\\n\\u0001<é\"");
        assert_eq!(quoted(true), "\"a\\\"\\\\\\n\\u0001\\u003cé\"");
    }

    #[test]
    fn bytes_are_shown_as_go_shows_them() {
        assert_eq!(quoted_byte(b'x'), "'x'");
        assert_eq!(quoted_byte(b'\''), r"'\''");
        assert_eq!(quoted_byte(0), r"'\x00'");
        assert_eq!(quoted_byte(0xff), "'ÿ'");
        assert_eq!(quoted_byte(0x85), r"'\u0085'");
        assert_eq!(super::quoted(b"\\u12\"\xff"), r#""\\u12\"\xff""#);
    }
}
