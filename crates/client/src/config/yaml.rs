//! The configuration from a YAML file: the keys that Go's `clientv3/yaml` reads, and the rest of [`Config`] under
//! names of the same kind.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, Pem, Tls, duration};
use crate::error::{Error, Result};

/// What a file may hold. A key that is not here is refused: it would otherwise be a setting that silently is none.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    endpoints: Vec<String>,
    auto_sync_interval: Option<Span>,
    dial_timeout: Option<Span>,
    dial_keep_alive_time: Option<Span>,
    dial_keep_alive_timeout: Option<Span>,
    #[serde(alias = "MaxCallSendMsgSize")]
    max_call_send_msg_size: Option<usize>,
    #[serde(alias = "MaxCallRecvMsgSize")]
    max_call_recv_msg_size: Option<usize>,
    username: String,
    password: String,
    token: String,
    reject_old_cluster: bool,
    permit_without_stream: bool,
    max_unary_retries: Option<u32>,
    backoff_wait_between: Option<Span>,
    backoff_jitter_fraction: Option<f64>,
    require_leader: bool,
    insecure_transport: bool,
    insecure_skip_tls_verify: bool,
    cert_file: Option<String>,
    key_file: Option<String>,
    trusted_ca_file: Option<String>,
    ca_file: Option<String>,
    server_name: Option<String>,
}

/// Go's client reads nanoseconds only; text with a unit is ours.
#[derive(Deserialize)]
#[serde(untagged)]
enum Span {
    Nanoseconds(u64),
    Text(String),
}

impl Span {
    fn read(self, key: &str) -> Result<Duration> {
        match self {
            Span::Nanoseconds(n) => Ok(Duration::from_nanos(n)),
            Span::Text(text) => duration::parse(&text)
                .ok_or_else(|| Error::Invalid(format!("{key}: {text:?} is no duration"))),
        }
    }
}

impl Config {
    /// Reads a YAML file.
    pub fn from_yaml_file(path: impl AsRef<Path>) -> Result<Config> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Invalid(format!("cannot read {}: {e}", path.display())))?;
        Config::from_yaml(&text)
    }

    /// Reads YAML text. As with Go's client, connections are secured unless it says `insecure-transport: true`.
    ///
    /// ```
    /// use etch_client::Config;
    ///
    /// let config = Config::from_yaml("endpoints: [127.0.0.1:2379]\ndial-timeout: 2s\ninsecure-transport: true\n")?;
    /// assert_eq!(config.dial_timeout.as_secs(), 2);
    /// assert!(config.tls.is_none());
    /// # Ok::<(), etch_client::Error>(())
    /// ```
    pub fn from_yaml(text: &str) -> Result<Config> {
        let file: Option<File> = serde_saphyr::from_str(text)
            .map_err(|e| Error::Invalid(format!("the configuration is no valid YAML: {e}")))?;
        let mut file = file.unwrap_or_default();
        let mut config = Config::new(std::mem::take(&mut file.endpoints));
        for (key, span, field) in [
            ("auto-sync-interval", file.auto_sync_interval.take(), &mut config.auto_sync_interval),
            ("dial-timeout", file.dial_timeout.take(), &mut config.dial_timeout),
            (
                "dial-keep-alive-time",
                file.dial_keep_alive_time.take(),
                &mut config.dial_keep_alive_time,
            ),
            (
                "dial-keep-alive-timeout",
                file.dial_keep_alive_timeout.take(),
                &mut config.dial_keep_alive_timeout,
            ),
            (
                "backoff-wait-between",
                file.backoff_wait_between.take(),
                &mut config.backoff_wait_between,
            ),
        ] {
            if let Some(span) = span {
                *field = span.read(key)?;
            }
        }
        file.apply_plain(&mut config);
        config.tls = file.tls()?;
        Ok(config)
    }
}

impl File {
    fn apply_plain(&mut self, config: &mut Config) {
        // Zero means the default, as it does for Go's client.
        let size = |given: Option<usize>, default| given.filter(|&n| n > 0).unwrap_or(default);
        config.max_call_send_msg_size =
            size(self.max_call_send_msg_size, config.max_call_send_msg_size);
        config.max_call_recv_msg_size =
            size(self.max_call_recv_msg_size, config.max_call_recv_msg_size);
        config.max_unary_retries =
            self.max_unary_retries.filter(|&n| n > 0).unwrap_or(config.max_unary_retries);
        config.backoff_jitter_fraction =
            self.backoff_jitter_fraction.unwrap_or(config.backoff_jitter_fraction);
        config.username = std::mem::take(&mut self.username);
        config.password = std::mem::take(&mut self.password);
        config.token = std::mem::take(&mut self.token);
        config.reject_old_cluster = self.reject_old_cluster;
        config.permit_without_stream = self.permit_without_stream;
        config.require_leader = self.require_leader;
    }

    fn tls(self) -> Result<Option<Tls>> {
        if self.insecure_transport {
            return Ok(None);
        }
        let mut tls = Tls::new();
        tls.ca = self.trusted_ca_file.or(self.ca_file).map(|path| Pem::File(path.into()));
        tls.server_name = self.server_name;
        tls.identity = match (self.cert_file, self.key_file) {
            (Some(cert), Some(key)) => Some((Pem::File(cert.into()), Pem::File(key.into()))),
            (None, None) => None,
            _ => return Err(Error::Invalid("cert-file needs key-file, and the reverse".into())),
        };
        Ok(Some(if self.insecure_skip_tls_verify { tls.dangerously_skip_verify() } else { tls }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_arrives() {
        let text = "
endpoints: ['https://a:1', 'b:2']
auto-sync-interval: 60000000000
dial-timeout: 5000000000
dial-keep-alive-time: 7s
dial-keep-alive-timeout: 8s
max-call-send-msg-size: 100
MaxCallRecvMsgSize: 200
username: u
password: p
reject-old-cluster: true
permit-without-stream: true
max-unary-retries: 3
backoff-wait-between: 10ms
backoff-jitter-fraction: 0.5
require-leader: true
insecure-skip-tls-verify: true
cert-file: c
key-file: k
trusted-ca-file: ca
server-name: s
";
        let config = Config::from_yaml(text).expect("a configuration");
        let tls = Tls::new().ca_file("ca").identity_files("c", "k").server_name("s");
        let expected = Config::new(["https://a:1", "b:2"])
            .auto_sync_interval(Duration::from_secs(60))
            .dial_timeout(Duration::from_secs(5))
            .dial_keep_alive_time(Duration::from_secs(7))
            .dial_keep_alive_timeout(Duration::from_secs(8))
            .max_call_send_msg_size(100)
            .max_call_recv_msg_size(200)
            .user("u", "p")
            .reject_old_cluster(true)
            .permit_without_stream(true)
            .max_unary_retries(3)
            .backoff_wait_between(Duration::from_millis(10))
            .backoff_jitter_fraction(0.5)
            .require_leader(true)
            .tls(tls.dangerously_skip_verify());
        assert_eq!(config, expected);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("endpoint: [a:1]", "endpoint"),
            ("dial-timeout: soon", "dial-timeout"),
            ("cert-file: c", "key-file"),
            ("endpoints: [", "YAML"),
        ] {
            let error = Config::from_yaml(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
