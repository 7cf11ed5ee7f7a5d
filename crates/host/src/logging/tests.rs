//! Lines as a reader of the log gets them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

fn capture(level: Level, format: Format, write: impl FnOnce(&Logger)) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    write(&Logger::new(level, format, Outputs::memory(&lines)));
    let bytes = lines.lock().expect("not poisoned").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn every_line_is_a_json_object_with_etcds_keys_first() {
    let text = capture(Level::Debug, Format::Json, |log| {
        log_debug!(log, "a \"debug\" line\n");
        log_info!(
            log,
            "fields",
            "text" => "x",
            "number" => 7u64,
            "list" => vec!["a".to_owned(), "b".to_owned()],
            "took" => Duration::from_millis(1500),
            "none" => None::<i64>,
            "yes" => true,
        );
        log_error!(log.named("raft"), "named");
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for key in ["level", "ts", "caller", "msg"] {
            assert!(value[key].as_str().is_some_and(|v| !v.is_empty()), "{key} in {line}");
        }
        assert!(line.starts_with("{\"level\":\""));
    }
    assert!(lines[0].ends_with(r#""msg":"a \"debug\" line\n"}"#), "{}", lines[0]);
    assert!(
        lines[1].ends_with(
            r#","msg":"fields","text":"x","number":7,"list":["a","b"],"took":"1.5s","none":null,"yes":true}"#
        ),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains(r#"Z","logger":"raft","caller":""#), "{}", lines[2]);
    assert!(lines[0].contains(r#"logging/tests.rs:"#), "{}", lines[0]);
}

#[test]
fn the_console_has_columns() {
    let text = capture(Level::Info, Format::Console, |log| {
        log_info!(log, "bare");
        log_warn!(log, "two", "a" => 1, "b" => ["x"]);
    });
    let lines: Vec<&str> = text.lines().collect();
    let columns: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!((columns[1], columns[3]), ("info", "bare"));
    assert_eq!(columns.len(), 4);
    assert!(lines[1].ends_with("\ttwo\t{\"a\": 1, \"b\": [\"x\"]}"), "{}", lines[1]);
}

#[test]
fn below_the_level_nothing_is_evaluated() {
    let text = capture(Level::Warn, Format::Json, |log| {
        log_info!(log, "no", "never" => { assert!(!log.enabled(Level::Info), "evaluated"); 1 });
        log_warn!(log, "yes");
    });
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("\"msg\":\"yes\""));
}

#[test]
fn levels_have_the_names_of_the_flag() {
    for name in ["debug", "info", "warn", "error", "panic", "fatal"] {
        assert_eq!(Level::parse(name).expect("a level").name(), name);
    }
    assert_eq!(Level::parse(""), Some(Level::Info));
    assert_eq!(Level::parse("foo"), None);
}
