//! Lines of progress on standard error, in the form in which etcd's tools write them: time, level, where, what,
//! and fields as JSON. Not here: the result of a command, which goes to standard output.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::time;

/// Says what is going on.
pub fn info(place: &str, what: &str, fields: &[(&str, Value)]) {
    line("info", place, what, fields);
}

/// Says what somebody should look at.
pub fn warn(place: &str, what: &str, fields: &[(&str, Value)]) {
    line("warn", place, what, fields);
}

fn line(level: &str, place: &str, what: &str, fields: &[(&str, Value)]) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i128::from(seconds) * time::SECOND;
    let mut text = format!("{}\t{level}\t{place}\t{what}", time::format(now));
    if !fields.is_empty() {
        let fields: Vec<String> =
            fields.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        text.push_str(&format!("\t{{{}}}", fields.join(", ")));
    }
    eprintln!("{text}");
}
