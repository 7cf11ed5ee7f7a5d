//! The configuration file: YAML (and with it JSON) under the keys that etcd reads. Not here: what the
//! values are for.

use std::fs;

use serde_json::Value;

use super::table::{self, Kind};
use super::urls;
use etch_host::os_error_text;

use super::{Config, values};

/// Flags that the file has no key for, at least not at its top.
const NOT_IN_FILE: &[&str] = &[
    "raft-read-timeout",
    "raft-write-timeout",
    "config-file",
    "version",
    "discovery-fallback",
    "discovery-token",
    "discovery-endpoints",
    "socket-reuse-port",
    "socket-reuse-address",
];

/// Keys that are groups, and the flags that the keys within stand for.
const GROUPS: &[(&str, &[(&str, &str)])] = &[
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    ),
    (
        "socket-options",
        &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
    ),
    ("discovery-config", &[("token", "discovery-token")]),
];

/// Why a file was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileError {
    /// It cannot be read, is no YAML, or holds what does not belong there.
    Invalid(String),
    /// A URL in it is wrong; etcd says this on stderr alone.
    Url(String),
}

/// Reads the file at `path` into `config`.
pub(super) fn read(config: &mut Config, path: &str) -> Result<(), FileError> {
    let text = fs::read_to_string(path)
        .map_err(|error| FileError::Invalid(format!("open {path}: {}", os_error_text(&error))))?;
    apply(config, &text)
}

/// Reads the text of a file into `config`.
pub(super) fn apply(config: &mut Config, text: &str) -> Result<(), FileError> {
    let invalid = |why: String| FileError::Invalid(why);
    // What holds nothing but comments is an empty file.
    let root: Option<Value> = serde_saphyr::from_str(text)
        .map_err(|error| invalid(format!("error converting YAML to JSON: yaml: {error}")))?;
    let entries = match root {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            return Err(invalid(format!("config file: expected keys, found {}", kind(&other))));
        }
    };
    for (key, value) in &entries {
        let key = key.to_lowercase();
        if let Some((group, members)) = GROUPS.iter().find(|(group, _)| *group == key) {
            config.given.insert(key);
            set_group(config, group, members, value)?;
        } else if let Some(flag) = table::find(&key).filter(|flag| is_top_level(flag.name)) {
            set(config, &key, flag, value)?;
        }
    }
    if let Some(client) = entries.get("discovery-config").and_then(|group| group.get("client")) {
        for endpoint in client.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            config.discovery.endpoints.extend(endpoint.as_str().map(str::to_owned));
        }
    }
    Ok(())
}

/// Flags that the file reads within a group only are no keys at its top.
fn is_top_level(name: &str) -> bool {
    let in_group = GROUPS.iter().any(|(_, members)| members.iter().any(|(_, flag)| *flag == name));
    let discovery = name.starts_with("discovery-") && !name.starts_with("discovery-srv");
    !in_group && !discovery && !NOT_IN_FILE.contains(&name) && !name.ends_with("crl-file")
}

fn set_group(
    config: &mut Config,
    group: &str,
    members: &[(&str, &str)],
    value: &Value,
) -> Result<(), FileError> {
    let entries = match value {
        Value::Null => return Ok(()),
        Value::Object(entries) => entries,
        other => {
            return Err(FileError::Invalid(format!(
                "config file: {group}: expected keys, found {}",
                kind(other)
            )));
        }
    };
    for (key, value) in entries {
        let member = members.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        if let Some(flag) = member.and_then(|(_, flag)| table::find(flag)) {
            set(config, &format!("{group}.{key}"), flag, value)?;
        }
    }
    Ok(())
}

/// Sets one flag. A key without a value leaves the default.
fn set(config: &mut Config, key: &str, flag: &table::Flag, value: &Value) -> Result<(), FileError> {
    config.given.insert(flag.name.to_owned());
    if value.is_null() {
        return Ok(());
    }
    let expected = |what: &str| {
        FileError::Invalid(format!("config file: {key}: expected {what}, found {}", kind(value)))
    };
    let text = || value.as_str().ok_or_else(|| expected("a string"));
    match flag.kind {
        Kind::Text(field) | Kind::Choice(_, field) => text()?.clone_into(field(config)),
        Kind::Switch(field) => {
            *field(config) = value.as_bool().ok_or_else(|| expected("true or false"))?;
        }
        Kind::Unsigned(field) => {
            *field(config) = integer(value)
                .and_then(|n| n.try_into().ok())
                .ok_or_else(|| expected("a number that is not negative"))?;
        }
        Kind::Unsigned32(field) => {
            *field(config) = integer(value)
                .and_then(|n| n.try_into().ok())
                .ok_or_else(|| expected("a number of 32 bits"))?;
        }
        Kind::Signed(field) => {
            *field(config) = integer(value)
                .and_then(|n| n.try_into().ok())
                .ok_or_else(|| expected("a whole number"))?;
        }
        Kind::Time(field) => {
            let nanos = integer(value).and_then(|n| n.try_into().ok());
            *field(config) =
                values::duration(nanos.ok_or_else(|| expected("a number of nanoseconds"))?);
        }
        Kind::Urls(_) if text()?.is_empty() => {}
        Kind::Urls(field) => {
            *field(config) = urls::parse_list(text()?).map_err(|why| {
                FileError::Url(format!("unexpected error setting up {}: {why}", flag.name))
            })?;
        }
        Kind::Words(field) => *field(config) = words(value).ok_or_else(|| expected("a list"))?,
        Kind::WordSet(field) if flag.name == "log-outputs" => {
            let list = words(value).ok_or_else(|| expected("a list"))?;
            if !list.is_empty() {
                *field(config) = list.into_iter().collect();
            }
        }
        Kind::WordSet(_) | Kind::Origins(_) | Kind::Gates(_) if text()?.is_empty() => {}
        Kind::WordSet(_) | Kind::Origins(_) | Kind::Gates(_) => {
            flag.set(config, text()?).map_err(FileError::Invalid)?;
        }
        Kind::Phases(_) | Kind::Ignored => {}
    }
    Ok(())
}

fn words(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|word| Some(word.as_str()?.to_owned())).collect()
}

/// A whole number, however it is written.
fn integer(value: &Value) -> Option<i128> {
    match (value.as_i64(), value.as_u64(), value.as_f64()) {
        (Some(n), _, _) => Some(n.into()),
        (_, Some(n), _) => Some(n.into()),
        (_, _, Some(x)) if x.fract() == 0.0 && x.abs() < 1e18 => Some(x as i128),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "keys",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, FileError> {
        let mut config = Config::default();
        apply(&mut config, text).map(|()| config)
    }

    #[test]
    fn a_file_like_etcds_sample_is_read() {
        let config = load(
            "# This is the configuration file\n\
             name: 'm1'\ndata-dir:\nsnapshot-count: 5000\nheartbeat-interval: 50\n\
             listen-client-urls: http://127.0.0.1:3,http://127.0.0.1:2\ncors:\n\
             discovery-fallback: 'proxy'\nproxy: 'off'\nproxy-failure-wait: 5000\n\
             client-transport-security:\n  cert-file:\n  client-cert-auth: false\n\
             peer-transport-security:\n  allowed-cn:\n  trusted-ca-file: ca.pem\n\
             socket-options:\n  reuse-port: true\n\
             log-outputs: [stderr]\nauto-compaction-retention: \"1\"\npre-vote: no\n\
             quota-backend-bytes: 1e9\nwatch-progress-notify-interval: 600000000000\n\
             cipher-suites: [\n  A,\n  B\n]\n",
        )
        .expect("a good file");
        assert_eq!((config.name.as_str(), config.data_dir.as_str()), ("m1", ""));
        assert_eq!((config.snapshot_count, config.heartbeat_interval), (5000, 50));
        assert_eq!(urls::join(&config.listen_client_urls), "http://127.0.0.1:2,http://127.0.0.1:3");
        assert_eq!(config.peer_tls.trusted_ca_file, "ca.pem");
        assert_eq!(config.client_tls, super::super::Tls::default());
        assert!(config.socket_reuse_port && !config.pre_vote);
        assert_eq!(config.quota_backend_bytes, 1_000_000_000);
        assert_eq!(config.watch_progress_notify_interval.as_secs(), 600);
        assert_eq!(config.cipher_suites, ["A", "B"]);
        assert!(config.cors.contains("*"), "a key without a value leaves the default");
        assert_eq!(config.discovery.fallback, "exit", "keys of the v2 era count for nothing");
        assert!(config.given.contains("name") && config.given.contains("pre-vote"));
    }

    #[test]
    fn keys_are_found_in_any_case_and_others_are_passed_over() {
        let config = load("Name: foo\nnonsense: 1\ncert-file: x\n").expect("a good file");
        assert_eq!(config.name, "foo");
        assert_eq!(config.client_tls.cert_file, "", "TLS has keys in its group alone");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, start) in [
            ("name: [y]", "config file: name: expected a string, found a list"),
            ("name: 12", "config file: name: expected a string, found a number"),
            ("heartbeat-interval: foo", "config file: heartbeat-interval: expected a number"),
            ("heartbeat-interval: -1", "config file: heartbeat-interval: expected a number"),
            ("pre-vote: \"yes\"", "config file: pre-vote: expected true or false, found a string"),
            (
                "watch-progress-notify-interval: 10m",
                "config file: watch-progress-notify-interval: expected a number of nanoseconds",
            ),
            ("peer-transport-security: 1", "config file: peer-transport-security: expected keys"),
            ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
            ("listen-client-urls: [http://a:1]", "config file: listen-client-urls: expected a str"),
            (": : :\n - [", "error converting YAML to JSON: yaml: "),
            ("just text", "config file: expected keys, found a string"),
        ] {
            match load(text) {
                Err(FileError::Invalid(why)) => assert!(why.starts_with(start), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(
            load("listen-client-urls: foo").expect_err("not a URL"),
            FileError::Url(
                "unexpected error setting up listen-client-urls: \
                 URL scheme must be http, https, unix, or unixs: foo"
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        for text in ["", "# nothing\n", "---\n"] {
            assert_eq!(load(text).expect(text), Config::default(), "{text:?}");
        }
    }
}
