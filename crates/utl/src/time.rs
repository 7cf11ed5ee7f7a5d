//! Times as Go writes them into JSON (RFC 3339 with nanoseconds), as nanoseconds since 1970. Not here: a clock.

/// Nanoseconds of a second.
pub const SECOND: i128 = 1_000_000_000;
/// The zero of Go's clock, the first moment of the year 1.
pub const ZERO: i128 = -62_135_596_800 * SECOND;

/// Reads a time such as `2016-04-01T09:30:00.25+02:00`.
pub fn parse(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let nanos = match fraction.strip_prefix('.') {
        Some(digits) => format!("{digits:0<9}").get(..9)?.parse::<i64>().ok()?,
        None => 0,
    };
    let offset = match zone {
        "Z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    Some(i128::from(seconds) * SECOND + i128::from(nanos))
}

/// Writes a time in UTC, without zeros at the end of its fraction.
pub fn format(at: i128) -> String {
    let (seconds, nanos) = (at.div_euclid(SECOND), at.rem_euclid(SECOND));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(i64::try_from(days).unwrap_or_default());
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match nanos {
        0 => String::new(),
        _ => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days from 1970 to this date. Years begin in March, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date so many days after 1970.
pub fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_as_go_does() {
        let rows = [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", ZERO, "0001-01-01T00:00:00Z"),
            ("2000-02-29T00:00:00.5Z", 951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
            (
                "2026-11-21T13:58:47.257682925+02:00",
                1_795_262_327_257_682_925,
                "2026-11-21T11:58:47.257682925Z",
            ),
        ];
        for (text, nanos, utc) in rows {
            assert_eq!(parse(text), Some(nanos), "{text}");
            assert_eq!(format(nanos), utc);
        }
        for text in
            ["", "2026", "2026-11-21T13:58:47", "2026-11-21T13:58:47.x", "2026-11-21T13:58:47+x"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
