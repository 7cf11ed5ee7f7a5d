//! A line's bytes. Not here: where they go.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Level;
use super::value::{Value, push_json_string};

/// What stands in every line.
pub(super) struct Head<'a> {
    pub level: Level,
    pub now: SystemTime,
    pub logger: Option<&'a str>,
    pub file: &'a str,
    pub line: u32,
    pub message: &'a str,
}

/// The fields of a line, in the order in which they are added.
pub struct Fields<'a> {
    out: &'a mut String,
    first: bool,
    separator: &'static str,
    colon: &'static str,
}

impl Fields<'_> {
    /// Adds a field.
    pub fn add(&mut self, key: &str, value: &(impl Value + ?Sized)) {
        if !self.first {
            self.out.push_str(self.separator);
        }
        self.first = false;
        push_json_string(self.out, key);
        self.out.push_str(self.colon);
        value.json(self.out);
    }
}

pub(super) fn json(out: &mut String, head: &Head<'_>, fields: impl FnOnce(&mut Fields<'_>)) {
    out.push_str("{\"level\":\"");
    out.push_str(head.level.name());
    out.push_str("\",\"ts\":\"");
    push_timestamp(out, head.now);
    out.push('"');
    if let Some(logger) = head.logger {
        out.push_str(",\"logger\":");
        push_json_string(out, logger);
    }
    out.push_str(",\"caller\":\"");
    push_caller(out, head.file, head.line);
    out.push_str("\",\"msg\":");
    push_json_string(out, head.message);
    fields(&mut Fields { out, first: false, separator: ",", colon: ":" });
    out.push_str("}\n");
}

pub(super) fn console(out: &mut String, head: &Head<'_>, fields: impl FnOnce(&mut Fields<'_>)) {
    push_timestamp(out, head.now);
    out.push('\t');
    out.push_str(head.level.name());
    out.push('\t');
    if let Some(logger) = head.logger {
        out.push_str(logger);
        out.push('\t');
    }
    push_caller(out, head.file, head.line);
    out.push('\t');
    out.push_str(head.message);
    let before = out.len();
    out.push_str("\t{");
    let mut list = Fields { out, first: true, separator: ", ", colon: ": " };
    fields(&mut list);
    if list.first {
        out.truncate(before);
        out.push('\n');
    } else {
        out.push_str("}\n");
    }
}

/// `crates/server/src/http/pages.rs` says `server/http/pages.rs:12`: the parts that tell something.
fn push_caller(out: &mut String, file: &str, line: u32) {
    let file = file.rfind("crates/").map_or(file, |at| &file[at + "crates/".len()..]);
    match file.split_once("src/") {
        Some((krate, rest)) => {
            out.push_str(krate);
            out.push_str(rest);
        }
        None => out.push_str(file),
    }
    let _ = write!(out, ":{line}");
}

/// UTC to the microsecond: `2006-01-02T15:04:05.999999Z`.
fn push_timestamp(out: &mut String, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_date(days);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    );
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are taken to
/// begin in March, so that the leap day is a year's last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let from_march_0 = days + 719_468;
    let (era, day_of_era) = (from_march_0 / DAYS_OF_400_YEARS, from_march_0 % DAYS_OF_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_utc() {
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.000005Z"),
            (1_795_239_381, 933_049, "2026-11-21T05:36:21.933049Z"),
            (4_107_542_399, 999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut out = String::new();
            push_timestamp(&mut out, UNIX_EPOCH + Duration::new(seconds, micros * 1_000));
            assert_eq!(out, text);
        }
    }

    #[test]
    fn callers_are_short() {
        for (file, text) in [
            ("crates/server/src/run.rs", "server/run.rs:7"),
            ("/build/crates/server/src/http/pages.rs", "server/http/pages.rs:7"),
            ("src/main.rs", "main.rs:7"),
            ("elsewhere.rs", "elsewhere.rs:7"),
        ] {
            let mut out = String::new();
            push_caller(&mut out, file, 7);
            assert_eq!(out, text);
        }
    }
}
