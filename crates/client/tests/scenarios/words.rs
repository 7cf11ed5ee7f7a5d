//! A step, taken apart. Options that any step may have are taken out.

use std::collections::HashMap;
use std::time::Duration;

const FLAGS: &[&str] = &[
    "prefix",
    "from",
    "prev",
    "serializable",
    "keysonly",
    "countonly",
    "noput",
    "nodelete",
    "hasleader",
    "ignorevalue",
];

#[derive(Clone, Debug, Default)]
pub struct Words {
    pub verb: String,
    pub args: Vec<String>,
    pub opts: HashMap<String, String>,
    pub on: String,
    pub within: Option<Duration>,
    pub coarse: bool,
    pub retry: bool,
    pub quiet: bool,
}

impl Words {
    pub fn parse(line: &str) -> Words {
        let mut all = line.split_whitespace();
        let verb = all.next().unwrap_or_default().to_owned();
        let mut words = Words { verb, on: "c".into(), ..Words::default() };
        if words.verb == "later" {
            words.args.push(all.next().unwrap_or_default().into());
            words.args.push(all.collect::<Vec<_>>().join(" "));
            return words;
        }
        for word in all {
            words.add(word);
        }
        words
    }

    fn add(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let plain = self.verb != "txn";
        match word {
            "''" => self.args.push(String::new()),
            "coarse" => self.coarse = true,
            "retry" => self.retry = true,
            "quiet" => self.quiet = true,
            _ if name == "on" && !value.is_empty() => self.on = value.into(),
            _ if name == "within" && !value.is_empty() => self.within = Some(duration(value)),
            _ if plain && (FLAGS.contains(&word) || (!name.is_empty() && !value.is_empty())) => {
                self.opts.insert(name.into(), value.into());
            }
            _ => self.args.push(word.into()),
        }
    }

    /// An argument; the empty one if it is not there.
    pub fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// Whether an option is there.
    pub fn has(&self, option: &str) -> bool {
        self.opts.contains_key(option)
    }
}

/// Milliseconds or seconds.
pub fn duration(text: &str) -> Duration {
    let number = |digits: &str| digits.parse().expect("a number");
    match text.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(number(digits)),
        None => Duration::from_secs(number(text.trim_end_matches('s'))),
    }
}

/// A value as it is written in a step: `x*900000` is many of x.
pub fn value(word: &str) -> Vec<u8> {
    match word.split_once('*') {
        Some((one, many)) if one.len() == 1 && many.parse::<usize>().is_ok() => {
            one.repeat(many.parse().expect("a number")).into_bytes()
        }
        _ => word.as_bytes().to_vec(),
    }
}

/// The reverse.
pub fn shown(value: &[u8]) -> String {
    if value.len() > 100 {
        return format!("{}*{}", char::from(value[0]), value.len());
    }
    String::from_utf8_lossy(value).into_owned()
}
