//! Where the processor's time goes, for `--enable-pprof`: what `/debug/pprof/` answers, in the format that
//! `go tool pprof` reads. Not here: the ports. Of Go's own profiles (heap, goroutine, mutex and others) there are none.

use std::collections::HashMap;
use std::env;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use pprof::{Frames, ProfilerGuardBuilder, Report};
use prost::Message;

/// Samples a second, as Go takes them.
const FREQUENCY: i32 = 100;
/// How long a profile takes if nothing is said of that, as in Go, and at the most.
const SECONDS: (u64, u64) = (30, 600);
/// A signal that comes while the stack is walked must not walk it again.
const LEFT_OUT: [&str; 2] = ["libgcc", "vdso"];

const INDEX: &str = "<html><head><title>/debug/pprof/</title></head><body>\n\
    <p>Profiles:</p>\n<ul>\n\
    <li><a href=\"profile?seconds=30\">profile</a>: where the processor's time goes</li>\n\
    <li><a href=\"cmdline\">cmdline</a>: the command line</li>\n\
    </ul>\n</body></html>\n";

/// What a request below `/debug/pprof/` is answered.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The type of the body.
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn text(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: text.into() }
    }
}

/// Answers a request; `path` is whole. A profile takes as long as it is asked for: to be called where that may be
/// waited for.
pub fn answer(path: &str, query: Option<&str>) -> Answer {
    match path.strip_prefix("/debug/pprof/") {
        Some("") => Answer { status: 200, kind: "text/html; charset=utf-8", body: INDEX.into() },
        Some("cmdline") => {
            let words: Vec<_> = env::args_os().map(|w| w.to_string_lossy().into_owned()).collect();
            Answer::text(200, words.join("\0"))
        }
        Some("profile") => match cpu(time(query)) {
            Ok(body) => Answer { status: 200, kind: "application/octet-stream", body },
            Err(why) => Answer::text(500, format!("Could not enable CPU profiling: {why}\n")),
        },
        _ => Answer::text(404, "Unknown profile\n"),
    }
}

fn time(query: Option<&str>) -> Duration {
    let mut words = query.unwrap_or_default().split('&');
    let seconds = words.find_map(|word| word.strip_prefix("seconds=")?.parse().ok());
    let seconds = seconds.filter(|n| *n > 0).unwrap_or(SECONDS.0).min(SECONDS.1);
    Duration::from_secs(seconds)
}

/// Watches the whole process for so long, on this thread, and gives the profile's bytes. Not if one is being made
/// already, or if the kernel gives no timer.
fn cpu(time: Duration) -> Result<Vec<u8>, pprof::Error> {
    let watch = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&LEFT_OUT);
    let watch = watch.build()?;
    thread::sleep(time);
    let report = watch.report().build()?;
    Ok(encode(&report).encode_to_vec())
}

fn encode(report: &Report) -> Profile {
    let mut profile = Profile::default();
    let mut names = Names::default();
    let period = 1_000_000_000 / i64::from(FREQUENCY);
    let mut locations = HashMap::new();
    let samples = names.value_type("samples", "count");
    let time = names.value_type("cpu", "nanoseconds");
    let thread = names.of("thread");
    for (frames, count) in &report.data {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let label = Label { key: thread, text: names.of(&frames.thread_name) };
        let location_ids = stack(frames, &mut names, &mut locations, &mut profile);
        let values = vec![count, count.saturating_mul(period)];
        profile.samples.push(Sample { location_ids, values, labels: vec![label] });
    }
    let timing = &report.timing;
    let began = timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    (profile.time_nanos, profile.duration_nanos) = (nanos(began), nanos(timing.duration));
    (profile.sample_types, profile.period_type) = (vec![samples, time], Some(time));
    profile.period = period;
    profile.strings = names.list;
    profile
}

/// The places of a stack, innermost first. A place is known by all that was inlined into it.
fn stack(
    frames: &Frames,
    names: &mut Names,
    locations: &mut HashMap<Vec<(i64, i64, i64)>, u64>,
    profile: &mut Profile,
) -> Vec<u64> {
    let mut ids = Vec::with_capacity(frames.frames.len());
    for frame in &frames.frames {
        let place: Vec<_> = frame
            .iter()
            .map(|s| (names.of(&s.name()), names.of(&s.filename()), i64::from(s.lineno())))
            .collect();
        let next = locations.len() as u64 + 1;
        let id = *locations.entry(place).or_insert_with_key(|place| {
            let lines = place.iter().map(|(name, file, line)| {
                let id = profile.functions.len() as u64 + 1;
                profile.functions.push(Function { id, name: *name, file: *file });
                Line { function_id: id, line: *line }
            });
            profile.locations.push(Location { id: next, lines: lines.collect() });
            next
        });
        ids.push(id);
    }
    ids
}

/// The strings of a profile, each once; the first is empty.
struct Names {
    list: Vec<String>,
    places: HashMap<String, i64>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self { list: Vec::new(), places: HashMap::new() };
        names.of("");
        names
    }
}

impl Names {
    fn of(&mut self, name: &str) -> i64 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.list.len() as i64;
        self.list.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { kind: self.of(kind), unit: self.of(unit) }
    }
}

// The parts of pprof's `profile.proto` that are written, by the numbers that it gives them.

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_types: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_ids: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    labels: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    file: i64,
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[inline(never)]
    fn burns_the_processor(stop: &AtomicBool) {
        let mut n = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            n = black_box(n.wrapping_mul(31) + 7);
        }
    }

    #[test]
    fn a_busy_function_is_named() {
        let stop = AtomicBool::new(false);
        let bytes = thread::scope(|scope| {
            let busy = thread::Builder::new().name("busy".into());
            busy.spawn_scoped(scope, || burns_the_processor(&stop)).expect("a thread");
            let bytes = loop {
                // A machine with much to do may not come to it in the first second.
                let bytes = cpu(Duration::from_secs(1)).expect("nobody else makes one");
                if !Profile::decode(&bytes[..]).expect("a profile").samples.is_empty() {
                    break bytes;
                }
            };
            stop.store(true, Ordering::Relaxed);
            bytes
        });
        let profile = Profile::decode(&bytes[..]).expect("a profile");
        let name = |id: u64| {
            let at = &profile.locations[id as usize - 1].lines[0];
            let function = profile.functions[at.function_id as usize - 1];
            profile.strings[function.name as usize].as_str()
        };
        let in_it = |s: &&Sample| s.location_ids.iter().any(|id| name(*id).contains("burns_the"));
        let sample = profile.samples.iter().find(in_it).expect("it is in the profile");
        assert_eq!(sample.values[1], sample.values[0] * 10_000_000);
        assert_eq!(profile.strings[sample.labels[0].text as usize], "busy");
        assert_eq!(profile.strings[0], "");
    }

    #[test]
    fn requests_are_read_as_go_reads_them() {
        for (query, want) in [
            (None, 30),
            (Some("seconds=5"), 5),
            (Some("debug=1&seconds=7"), 7),
            (Some("seconds=0"), 30),
            (Some("seconds=x"), 30),
            (Some("seconds=99999"), 600),
        ] {
            assert_eq!(time(query), Duration::from_secs(want), "{query:?}");
        }
        assert_eq!(answer("/debug/pprof/", None).status, 200);
        assert_eq!(answer("/debug/pprof/cmdline", None).status, 200);
        assert_eq!(answer("/debug/pprof/heap", None).body, b"Unknown profile\n");
    }
}
