//! Lines of progress on standard error, in the form in which etcd's tools write them: time, level, where, what,
//! and fields as JSON. Not here: the result of a command, which goes to standard output.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Says what is going on.
pub fn info(place: &str, what: &str, fields: &[(&str, Value)]) {
    line("info", place, what, fields);
}

/// Says what somebody should look at.
pub fn warn(place: &str, what: &str, fields: &[(&str, Value)]) {
    line("warn", place, what, fields);
}

fn line(level: &str, place: &str, what: &str, fields: &[(&str, Value)]) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut text = format!("{}\t{level}\t{place}\t{what}", timestamp(time));
    if !fields.is_empty() {
        let fields: Vec<String> =
            fields.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        text.push_str(&format!("\t{{{}}}", fields.join(", ")));
    }
    eprintln!("{text}");
}

/// `2026-11-21T08:27:32Z` for so many seconds since 1970.
fn timestamp(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Days since 1 March of year 0, in eras of 400 years: leap days come last in each part.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_795_249_652), "2026-11-21T08:27:32Z");
        assert_eq!(timestamp(4_102_444_799), "2099-12-31T23:59:59Z");
    }
}
