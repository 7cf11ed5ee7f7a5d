//! Go's way of reading and writing numbers, spans of time and quoted text, with its words for what it cannot
//! read. Not here: which flag has which of these.

use std::fmt::Write as _;

use crate::printable::is_printable;

const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// `strconv.ParseBool`.
///
/// # Errors
/// Go's text.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

/// `strconv.ParseInt` with base 0: `0x`, `0o`, `0b`, a leading 0 and underscores between digits are taken.
///
/// # Errors
/// Go's text.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let wrong = |why: &str| format!("strconv.ParseInt: parsing {}: {why}", quote(text));
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = digits(rest).map_err(wrong)?;
    let limit = i64::MAX as u64 + u64::from(negative);
    if value > limit {
        return Err(wrong("value out of range"));
    }
    Ok(if negative { (value as i64).wrapping_neg() } else { value as i64 })
}

/// `strconv.ParseUint` with base 0.
///
/// # Errors
/// Go's text.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    digits(text).map_err(|why| format!("strconv.ParseUint: parsing {}: {why}", quote(text)))
}

/// `strconv.ParseUint` with base 0 for 32 bits.
///
/// # Errors
/// Go's text.
pub fn parse_uint32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_uint(text)?)
        .map_err(|_| format!("strconv.ParseUint: parsing {}: value out of range", quote(text)))
}

fn digits(text: &str) -> Result<u64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    let lower = text.to_ascii_lowercase();
    let (base, rest) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let prefixed = rest.len() < lower.len();
    if rest.contains('_') {
        let plain = rest.strip_prefix('_').filter(|_| prefixed).unwrap_or(rest);
        if plain.split('_').any(str::is_empty) {
            return Err(SYNTAX);
        }
    }
    let plain: String = rest.chars().filter(|c| *c != '_').collect();
    if plain.is_empty() || !plain.chars().all(|c| c.is_digit(base)) {
        return Err(SYNTAX);
    }
    u64::from_str_radix(&plain, base).map_err(|_| "value out of range")
}

/// `time.ParseDuration`, in nanoseconds.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let dots = number.matches('.').count();
        if number.is_empty() || dots > 1 || number == "." {
            return Err(invalid());
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let unit = quote(unit);
            return Err(format!("time: unknown unit {unit} in duration {}", quote(text)));
        };
        let value: f64 = number.trim_end_matches('.').parse().map_err(|_| invalid())?;
        total += value * scale;
        rest = tail;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// `time.Duration.String` of this many nanoseconds.
pub fn duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let size = ns.unsigned_abs();
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(size, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(size, 1_000_000)),
        _ => {
            let seconds = size / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = fraction(size % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}s"),
                (0, _) => format!("{sign}{minutes}m{rest}s"),
                _ => format!("{sign}{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

/// `value / unit` as a decimal number without zeros at its end.
fn fraction(value: u64, unit: u64) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let text = format!("{part:0width$}");
    format!("{whole}.{}", text.trim_end_matches('0'))
}

/// `%q`: text in double quotes, with Go's escapes.
pub fn quote(text: impl AsRef<[u8]>) -> String {
    let mut out = String::from('"');
    for chunk in text.as_ref().utf8_chunks() {
        chunk.valid().chars().for_each(|c| quote_char(c, &mut out));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => {
            let _ = write!(out, "\\x{:02x}", c as u32);
        }
        c if is_printable(c) => out.push(c),
        c if (c as u32) < 0x1_0000 => {
            let _ = write!(out, "\\u{:04x}", c as u32);
        }
        c => {
            let _ = write!(out, "\\U{:08x}", c as u32);
        }
    }
}

/// An error of the file system in Go's words, such as `open x: no such file or directory`.
pub fn io_error(call: &str, path: &std::path::Path, error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    let text: String = first.into_iter().chain(chars).collect();
    format!("{call} {}: {text}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_go_reads_them() {
        assert_eq!(parse_duration("10s"), Ok(10_000_000_000));
        assert_eq!(parse_duration("1h2m3.5s"), Ok(3_723_500_000_000));
        assert_eq!(parse_duration("-1.5ms"), Ok(-1_500_000));
        assert_eq!(parse_duration("0"), Ok(0));
        assert_eq!(parse_duration("5"), Err("time: missing unit in duration \"5\"".into()));
        assert_eq!(parse_duration("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
        for wrong in ["", "x", "-", ".s", "1.2.3s"] {
            let text = format!("time: invalid duration {}", quote(wrong));
            assert_eq!(parse_duration(wrong), Err(text));
        }
    }

    #[test]
    fn spans_of_time_are_written_as_go_writes_them() {
        let rows: &[(i64, &str)] = &[
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (3_744_156, "3.744156ms"),
            (2_000_000_000, "2s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-5_000_000_000, "-5s"),
        ];
        for (ns, text) in rows {
            assert_eq!(duration(*ns), *text);
        }
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!(parse_int("-0x10"), Ok(-16));
        assert_eq!(parse_int("010"), Ok(8));
        assert_eq!(parse_int("0x1_0"), Ok(16));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(
            parse_int("x"),
            Err("strconv.ParseInt: parsing \"x\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_int("9223372036854775808"),
            Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range".into())
        );
        assert_eq!(
            parse_uint("-1"),
            Err("strconv.ParseUint: parsing \"-1\": invalid syntax".to_owned())
        );
        assert_eq!(parse_int("1_0"), Ok(10));
        assert!(["_1", "1_", "1__0", "0x_", "_"].iter().all(|text| parse_int(text).is_err()));
    }

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
        assert_eq!(quote(b"\xff\xfea"), "\"\\xff\\xfea\"");
        assert_eq!(quote("\u{200b}\u{e000}"), "\"\\u200b\\ue000\"");
    }
}
