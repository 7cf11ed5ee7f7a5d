//! Values as Go's `flag`, `strconv` and `time` read and print them, with their texts for what is wrong. Not
//! here: which flag takes what.

use std::time::Duration;

/// What `flag` says of a value that cannot be read.
pub const PARSE_ERROR: &str = "parse error";
/// What `flag` says of a number that does not fit.
pub const RANGE_ERROR: &str = "value out of range";

/// Why a number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Not a number.
    Syntax,
    /// Does not fit.
    Range,
}

impl NumberError {
    /// The text of the `flag` package.
    pub fn flag_text(self) -> String {
        match self {
            NumberError::Syntax => PARSE_ERROR.to_owned(),
            NumberError::Range => RANGE_ERROR.to_owned(),
        }
    }

    /// The text of `strconv`.
    pub fn strconv_text(self, function: &str, value: &str) -> String {
        let why = match self {
            NumberError::Syntax => "invalid syntax",
            NumberError::Range => RANGE_ERROR,
        };
        format!("strconv.{function}: parsing {value:?}: {why}")
    }
}

/// The truth values of `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number without a sign, in decimal or with one of Go's prefixes (`0x`, `0o`, `0b`, `0`), where digits
/// may be set apart by `_`.
pub fn parse_unsigned(text: &str) -> Result<u64, NumberError> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    let prefixed = digits.len() < lower.len();
    if digits.is_empty() || digits.starts_with('_') && !prefixed || digits.ends_with('_') {
        return Err(NumberError::Syntax);
    }
    if digits.contains("__") || digits.contains('_') && !prefixed {
        return Err(NumberError::Syntax);
    }
    let mut number: u64 = 0;
    let mut fits = true;
    for c in digits.chars().filter(|c| *c != '_') {
        let digit = c.to_digit(radix).ok_or(NumberError::Syntax)?;
        match number.checked_mul(radix.into()).and_then(|n| n.checked_add(digit.into())) {
            Some(next) => number = next,
            None => fits = false,
        }
    }
    if fits { Ok(number) } else { Err(NumberError::Range) }
}

/// A number with or without a sign.
pub fn parse_signed(text: &str) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let size = parse_unsigned(digits)?;
    if negative { 0i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() }
        .ok_or(NumberError::Range)
}

/// A duration as `time.ParseDuration` reads it, in nanoseconds; the error is its text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let nanos = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000u128,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += scaled(whole, fraction, nanos).ok_or_else(invalid)?;
        rest = next;
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` units, in nanoseconds, what is smaller cut off.
fn scaled(whole: &str, fraction: &str, nanos: u128) -> Option<u128> {
    let number = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    let fraction = &fraction[..fraction.len().min(18)];
    let whole: u64 = number(whole)?;
    let part: u64 = number(fraction)?;
    Some(u128::from(whole) * nanos + u128::from(part) * nanos / 10u128.pow(fraction.len() as u32))
}

/// Nanoseconds as a duration; less than nothing is nothing.
pub fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (text, number) in [
            ("0", 0),
            ("10", 10),
            ("0x1F", 31),
            ("017", 15),
            ("0o17", 15),
            ("0b11", 3),
            ("0x_ff", 255),
        ] {
            assert_eq!(parse_unsigned(text), Ok(number), "{text}");
        }
        for text in ["", "-1", "+1", "1e9", "08", "1_000", "0x", "x", "1.0", "_1", " 1"] {
            assert_eq!(parse_unsigned(text), Err(NumberError::Syntax), "{text}");
        }
        assert_eq!(parse_unsigned("18446744073709551616"), Err(NumberError::Range));
        assert_eq!(parse_signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), Err(NumberError::Range));
        assert_eq!(parse_signed("+5"), Ok(5));
        assert_eq!(parse_signed("--5"), Err(NumberError::Syntax));
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("1µs", 1_000),
            ("1us", 1_000),
            ("300ms", 300_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("1.0000000015s", 1_000_000_001),
            (".5s", 500_000_000),
            ("2m3.5s", 123_500_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("xx", "time: invalid duration \"xx\""),
            ("5", "time: missing unit in duration \"5\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            (".s", "time: invalid duration \".s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        }
    }
}
