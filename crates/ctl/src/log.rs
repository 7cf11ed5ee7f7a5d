//! Lines of log on standard error, in the form that etcd's client writes. Not here: errors that end a command, which
//! are one plain line.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::display::json;

/// Writes a line with this level and message, and these fields.
pub fn line(level: &str, message: &str, fields: &[(&str, &str)]) {
    let mut text = format!("{{\"level\":\"{level}\",\"ts\":\"{}\",\"msg\":", now());
    json::plain_text(message, &mut text);
    for (name, value) in fields {
        text.push(',');
        json::plain_text(name, &mut text);
        text.push(':');
        json::plain_text(value, &mut text);
    }
    text.push_str("}\n");
    // Nobody to tell if standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    stamp(since.as_secs(), since.subsec_micros())
}

/// `2006-01-02T15:04:05.000000Z`.
fn stamp(seconds: u64, micros: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The date of a day since 1970, by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(stamp(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(stamp(951_782_400, 7), "2000-02-29T00:00:00.000007Z");
        assert_eq!(stamp(1_795_261_640, 211_700), "2026-11-21T11:47:20.211700Z");
    }
}
