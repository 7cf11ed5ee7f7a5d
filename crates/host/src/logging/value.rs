//! What a field of a log line can hold, as JSON. Not here: the line around it.

use std::fmt::Write as _;
use std::time::Duration;

/// A value of a field.
pub trait Value {
    /// Appends the value as JSON.
    fn json(&self, out: &mut String);
}

/// Appends a JSON string with its quotes, escaped as zap escapes: what is not a control character stays.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: Option<&str> = match byte {
            b'"' => Some("\\\""),
            b'\\' => Some("\\\\"),
            b'\n' => Some("\\n"),
            b'\r' => Some("\\r"),
            b'\t' => Some("\\t"),
            0..0x20 => None,
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        match escape {
            Some(escape) => out.push_str(escape),
            None => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// A duration as Go prints one: `1.5s`, `300ms`, `10m0s`, `2.129507ms`, `0s`.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos < 1_000_000_000 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", decimal(nanos, 3)),
            _ => format!("{}ms", decimal(nanos, 6)),
        };
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 9);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `n` with its last `places` digits behind a point, without zeros at the end.
fn decimal(n: u128, places: u32) -> String {
    let unit = 10u128.pow(places);
    let (whole, fraction) = (n / unit, n % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{fraction:0width$}", width = places as usize);
    text.trim_end_matches('0').to_owned()
}

impl Value for str {
    fn json(&self, out: &mut String) {
        push_json_string(out, self);
    }
}

impl Value for String {
    fn json(&self, out: &mut String) {
        push_json_string(out, self);
    }
}

impl Value for bool {
    fn json(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn json(&self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 isize);

impl Value for f64 {
    fn json(&self, out: &mut String) {
        if self.is_finite() {
            let _ = write!(out, "{self}");
        } else {
            let _ = write!(out, "\"{self}\"");
        }
    }
}

impl Value for Duration {
    fn json(&self, out: &mut String) {
        push_json_string(out, &go_duration(*self));
    }
}

impl Value for std::io::Error {
    fn json(&self, out: &mut String) {
        push_json_string(out, &self.to_string());
    }
}

impl Value for std::fmt::Arguments<'_> {
    fn json(&self, out: &mut String) {
        push_json_string(out, &self.to_string());
    }
}

impl Value for serde_json::Value {
    fn json(&self, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn json(&self, out: &mut String) {
        (**self).json(out);
    }
}

impl<T: Value> Value for Option<T> {
    fn json(&self, out: &mut String) {
        match self {
            Some(value) => value.json(out),
            None => out.push_str("null"),
        }
    }
}

impl<T: Value> Value for [T] {
    fn json(&self, out: &mut String) {
        out.push('[');
        for (at, value) in self.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            value.json(out);
        }
        out.push(']');
    }
}

impl<T: Value> Value for Vec<T> {
    fn json(&self, out: &mut String) {
        self.as_slice().json(out);
    }
}

impl<T: Value, const N: usize> Value for [T; N] {
    fn json(&self, out: &mut String) {
        self.as_slice().json(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_129_507, "2.129507ms"),
            (300_000_000, "300ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (7_200_000_000_000, "2h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn strings_survive_a_json_parser() {
        for text in ["", "plain", "\"quoted\\\"", "tab\tline\nnul\0bell\u{7}", "µ→\u{1f600}"] {
            let mut out = String::new();
            push_json_string(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).expect("valid JSON"), text);
        }
    }
}
