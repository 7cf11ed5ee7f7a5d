//! Numbers of JSON as whole numbers: `1.0` and `1e1` are whole, `1.5` is not. Not here: where they stand.

/// How far a number reaches, if there is one and a delimiter behind it.
pub(crate) fn scan(input: &[u8]) -> Option<usize> {
    let parts = Parts::of(input)?;
    match input.get(parts.len) {
        Some(c) if is_not_delimiter(*c) => None,
        _ => Some(parts.len),
    }
}

/// Letters, digits and signs do not end what stands before them.
pub(crate) fn is_not_delimiter(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'+' | b'.' | b'_')
}

struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: &'a [u8],
    len: usize,
}

impl<'a> Parts<'a> {
    fn of(input: &'a [u8]) -> Option<Self> {
        let digits =
            |from: usize| from + input[from..].iter().take_while(|c| c.is_ascii_digit()).count();
        let negative = input.first() == Some(&b'-');
        let start = usize::from(negative);
        let mut at = match input.get(start)? {
            b'0' => start + 1,
            b'1'..=b'9' => digits(start),
            _ => return None,
        };
        let whole = &input[start..at];
        let whole = if whole == b"0" { &[] } else { whole };
        let mut fraction: &[u8] = &[];
        if input.get(at) == Some(&b'.') && input.get(at + 1).is_some_and(u8::is_ascii_digit) {
            let end = digits(at + 1);
            fraction = &input[at + 1..end];
            at = end;
        }
        let mut exponent: &[u8] = &[];
        if matches!(input.get(at), Some(b'e' | b'E')) && input.len() > at + 1 {
            let signed = usize::from(matches!(input[at + 1], b'+' | b'-'));
            if input.len() == at + 1 + signed {
                return None;
            }
            let end = digits(at + 1 + signed);
            exponent = &input[at + 1..end];
            at = end;
        }
        Some(Self { negative, whole, fraction, exponent, len: at })
    }

    /// The number's digits, if it is whole.
    fn digits(&self) -> Option<String> {
        let kept = self.fraction.iter().rposition(|c| *c != b'0').map_or(0, |at| at + 1);
        let fraction = &self.fraction[..kept];
        if self.whole.is_empty() && fraction.is_empty() {
            return Some("0".into());
        }
        let exponent = std::str::from_utf8(self.exponent).ok()?;
        let exponent: i32 = if exponent.is_empty() { 0 } else { exponent.parse().ok()? };
        let mut digits = self.whole.to_vec();
        if let Ok(shift) = usize::try_from(exponent) {
            // More digits than these are in no number that a field can hold.
            if fraction.len() > shift || digits.len() + shift > 20 {
                return None;
            }
            digits.extend_from_slice(fraction);
            digits.resize(self.whole.len() + shift, b'0');
        } else {
            let cut = usize::try_from(exponent.unsigned_abs()).ok()?;
            let keep = digits.len().checked_sub(cut)?;
            if !fraction.is_empty() || digits[keep..].iter().any(|c| *c != b'0') {
                return None;
            }
            digits.truncate(keep);
        }
        String::from_utf8(digits).ok()
    }
}

/// The number as a signed one.
pub(crate) fn signed(raw: &[u8]) -> Option<i64> {
    let parts = Parts::of(raw)?;
    let digits = parts.digits()?;
    if parts.negative { format!("-{digits}").parse().ok() } else { digits.parse().ok() }
}

/// The number as one without a sign.
pub(crate) fn unsigned(raw: &[u8]) -> Option<u64> {
    let parts = Parts::of(raw)?;
    let digits = parts.digits()?;
    if parts.negative && digits != "0" {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_found_in_any_spelling() {
        for (text, want) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("12", Some(12)),
            ("1.0", Some(1)),
            ("1e1", Some(10)),
            ("1.5e1", Some(15)),
            ("-120e-1", Some(-12)),
            ("0.0e9", Some(0)),
            ("1.5", None),
            ("15e-1", None),
            ("1e30", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
        ] {
            assert_eq!(scan(text.as_bytes()), Some(text.len()), "{text}");
            assert_eq!(signed(text.as_bytes()), want, "{text}");
        }
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"-1"), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", "01", "1x", "+1", ".5", "1.", "1e+", "--1", "1.e1"] {
            assert_eq!(scan(text.as_bytes()), None, "{text}");
        }
    }
}
