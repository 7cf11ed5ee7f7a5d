//! What a client is told before it starts. From a file: `yaml`; from `ETCDCTL_*` variables: `env`; how an endpoint
//! is written: `address`; certificates: `tls`.

pub(crate) mod address;
pub(crate) mod duration;
mod env;
mod tls;
mod yaml;

use std::time::Duration;

pub use tls::{Pem, Tls};

use crate::error::{Error, Result};

/// Everything that a client can be told. The fields are those of Go's `clientv3.Config`.
///
/// ```
/// use std::time::Duration;
/// use etch_client::Config;
///
/// let config = Config::new(["10.0.0.1:2379", "10.0.0.2:2379"])
///     .user("alice", "secret")
///     .dial_timeout(Duration::from_secs(2))
///     .require_leader(true);
/// assert_eq!(config.endpoints.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the members are: `host:port`, `http://host:port`, `https://host:port`, `unix:path`, `unixs:path`,
    /// or `srv:domain`, for which DNS is asked once at the start.
    pub endpoints: Vec<String>,
    /// How often to replace the endpoints by those of the members; zero for never.
    pub auto_sync_interval: Duration,
    /// How long a call waits for an endpoint that can be reached, and how long one attempt to connect may take.
    /// With zero a call waits as long as its own time limit lets it.
    pub dial_timeout: Duration,
    /// After this long without a byte from the server, while calls are open, it is asked for a sign of life; zero
    /// for never. etcd's servers cut clients off that ask more often than every 5 s.
    pub dial_keep_alive_time: Duration,
    /// How long to wait for that sign before the connection is given up.
    pub dial_keep_alive_timeout: Duration,
    /// The largest request that is sent, in bytes.
    pub max_call_send_msg_size: usize,
    /// The largest reply that is taken, in bytes.
    pub max_call_recv_msg_size: usize,
    /// Certificates; needed for `https`, used for endpoints without a scheme where it is given.
    pub tls: Option<Tls>,
    /// The user; empty for none.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// A token (JWT) to show instead of a user and a password; empty for none.
    pub token: String,
    /// Whether to refuse a cluster whose servers are older than 3.6.
    pub reject_old_cluster: bool,
    /// Whether to ask for signs of life on connections without open calls too.
    pub permit_without_stream: bool,
    /// How often a call that is safe to repeat is tried in all.
    pub max_unary_retries: u32,
    /// How long to wait each time a majority of the endpoints has been tried.
    pub backoff_wait_between: Duration,
    /// How far that wait is varied, as a fraction of it.
    pub backoff_jitter_fraction: f64,
    /// Whether members without a leader shall refuse calls and end streams.
    pub require_leader: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: Vec::new(),
            auto_sync_interval: Duration::ZERO,
            dial_timeout: Duration::from_secs(5),
            dial_keep_alive_time: Duration::from_secs(10),
            dial_keep_alive_timeout: Duration::from_secs(6),
            max_call_send_msg_size: 2 << 20,
            max_call_recv_msg_size: i32::MAX as usize,
            tls: None,
            username: String::new(),
            password: String::new(),
            token: String::new(),
            reject_old_cluster: false,
            permit_without_stream: false,
            max_unary_retries: 100,
            backoff_wait_between: Duration::from_millis(25),
            backoff_jitter_fraction: 0.10,
            require_leader: false,
        }
    }
}

/// Writes one setter, named after its field.
macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Config {
                self.$field = $field;
                self
            }
        )*
    };
}

impl Config {
    /// The defaults, with these endpoints.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Config {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Config { endpoints, ..Config::default() }
    }

    /// Logs in as this user.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Config {
        self.username = name.into();
        self.password = password.into();
        self
    }

    /// Shows this token (a JWT) instead of a user and a password.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Config {
        self.token = token.into();
        self
    }

    /// Secures connections like this.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Config {
        self.tls = Some(tls);
        self
    }

    setters! {
        /// See [`Config::auto_sync_interval`](struct@Config).
        auto_sync_interval: Duration;
        /// See [`Config::dial_timeout`](struct@Config).
        dial_timeout: Duration;
        /// See [`Config::dial_keep_alive_time`](struct@Config).
        dial_keep_alive_time: Duration;
        /// See [`Config::dial_keep_alive_timeout`](struct@Config).
        dial_keep_alive_timeout: Duration;
        /// See [`Config::max_call_send_msg_size`](struct@Config).
        max_call_send_msg_size: usize;
        /// See [`Config::max_call_recv_msg_size`](struct@Config).
        max_call_recv_msg_size: usize;
        /// See [`Config::reject_old_cluster`](struct@Config).
        reject_old_cluster: bool;
        /// See [`Config::permit_without_stream`](struct@Config).
        permit_without_stream: bool;
        /// See [`Config::max_unary_retries`](struct@Config).
        max_unary_retries: u32;
        /// See [`Config::backoff_wait_between`](struct@Config).
        backoff_wait_between: Duration;
        /// See [`Config::backoff_jitter_fraction`](struct@Config).
        backoff_jitter_fraction: f64;
        /// See [`Config::require_leader`](struct@Config).
        require_leader: bool;
    }

    /// Says what is wrong with it, without connecting.
    pub fn check(&self) -> Result<()> {
        if self.endpoints.is_empty() {
            return Err(Error::Invalid("at least one endpoint is required".into()));
        }
        let logs_in = !self.username.is_empty() || !self.password.is_empty();
        if logs_in && !self.token.is_empty() {
            let why = "a user with a password and a token exclude each other";
            return Err(Error::Invalid(why.into()));
        }
        if !self.username.is_empty() && self.password.is_empty() {
            let why = format!("user {} has no password", self.username);
            return Err(Error::Invalid(why));
        }
        if self.max_call_send_msg_size > self.max_call_recv_msg_size {
            let why = format!(
                "gRPC message recv limit ({} bytes) must be greater than send limit ({} bytes)",
                self.max_call_recv_msg_size, self.max_call_send_msg_size
            );
            return Err(Error::Invalid(why));
        }
        if !(0.0..=1.0).contains(&self.backoff_jitter_fraction) {
            return Err(Error::Invalid("the backoff's jitter must be between 0 and 1".into()));
        }
        for endpoint in &self.endpoints {
            if address::srv_domain(endpoint).is_none() {
                address::Address::parse(endpoint, self.tls.is_some())?;
            }
        }
        if let Some(tls) = &self.tls {
            tls.load()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_sent() {
        let cases = [
            Config::default(),
            Config::new(["127.0.0.1:1"]).user("a", "b").token("t"),
            Config::new(["127.0.0.1:1"]).user("a", ""),
            Config::new(["127.0.0.1:1"]).max_call_recv_msg_size(10),
            Config::new(["127.0.0.1:1"]).backoff_jitter_fraction(-1.0),
            Config::new(["127.0.0.1:1"]).tls(Tls::new().ca_pem("nothing")),
            Config::new(["127.0.0.1:1"]).tls(Tls::new().ca_file("/no/such/file")),
            Config::new(["no port"]),
        ];
        for config in cases {
            assert!(matches!(config.check(), Err(Error::Invalid(_))), "{config:?}");
        }
        assert_eq!(Config::new(["127.0.0.1:1"]).check(), Ok(()));
    }
}
