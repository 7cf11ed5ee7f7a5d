//! The configuration from `ETCDCTL_*` variables: the names that etcd's command line tool gives its flags.

use std::time::Duration;

use super::{Config, Pem, Tls, duration};
use crate::error::{Error, Result};

impl Config {
    /// The configuration that `etcdctl` would take from this process's environment.
    pub fn from_env() -> Result<Config> {
        Config::from_vars(|name| std::env::var(name).ok())
    }

    /// The same from whatever says what a variable holds.
    ///
    /// ```
    /// use etch_client::Config;
    ///
    /// let vars = [("ETCDCTL_ENDPOINTS", "http://a:2379,http://b:2379"), ("ETCDCTL_USER", "alice:secret")];
    /// let config = Config::from_vars(|name| {
    ///     vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string())
    /// })?;
    /// assert_eq!(config.endpoints, ["http://a:2379", "http://b:2379"]);
    /// assert_eq!((&config.username[..], &config.password[..]), ("alice", "secret"));
    /// # Ok::<(), etch_client::Error>(())
    /// ```
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let vars = Vars(&lookup);
        let mut config = Config::new(["127.0.0.1:2379"]);
        config.dial_timeout = vars.duration("DIAL_TIMEOUT")?.unwrap_or(Duration::from_secs(2));
        config.dial_keep_alive_time =
            vars.duration("KEEPALIVE_TIME")?.unwrap_or(Duration::from_secs(2));
        config.dial_keep_alive_timeout =
            vars.duration("KEEPALIVE_TIMEOUT")?.unwrap_or(Duration::from_secs(6));
        if let Some(list) = vars.get("ENDPOINTS") {
            config.endpoints = list.split(',').map(|e| e.trim().to_owned()).collect();
        }
        if let Some(domain) = vars.get("DISCOVERY_SRV") {
            let name = vars.get("DISCOVERY_SRV_NAME").map(|n| format!("/{n}")).unwrap_or_default();
            config.endpoints = vec![format!("srv:{domain}{name}")];
        }
        if let Some(size) = vars.number("MAX_REQUEST_BYTES")? {
            config.max_call_send_msg_size = size;
        }
        if let Some(size) = vars.number("MAX_RECV_BYTES")? {
            config.max_call_recv_msg_size = size;
        }
        vars.credentials(&mut config);
        config.tls = vars.tls()?;
        Ok(config)
    }
}

struct Vars<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Vars<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(&format!("ETCDCTL_{name}")).filter(|value| !value.is_empty())
    }

    fn read<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let bad = || Error::Invalid(format!("ETCDCTL_{name}: {text:?} makes no sense"));
        read(&text).map(Some).ok_or_else(bad)
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>> {
        self.read(name, duration::parse)
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        self.read(name, |text| text.parse().ok())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.read(name, |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        })
    }

    fn credentials(&self, config: &mut Config) {
        if let Some(user) = self.get("USER") {
            match user.split_once(':') {
                Some((name, password)) if self.get("PASSWORD").is_none() => {
                    config.username = name.to_owned();
                    config.password = password.to_owned();
                }
                _ => {
                    config.username = user;
                    config.password = self.get("PASSWORD").unwrap_or_default();
                }
            }
        }
        config.token = self.get("AUTH_JWT_TOKEN").unwrap_or_default();
    }

    /// Plain unless something of TLS is given, as the tool does it.
    fn tls(&self) -> Result<Option<Tls>> {
        let mut tls = Tls::new();
        let (ca, cert, key) = (self.get("CACERT"), self.get("CERT"), self.get("KEY"));
        let skip = self.flag("INSECURE_SKIP_TLS_VERIFY")?.unwrap_or(false);
        let plain = self.flag("INSECURE_TRANSPORT")?.unwrap_or(true);
        if plain && !skip && ca.is_none() && cert.is_none() && key.is_none() {
            return Ok(None);
        }
        tls.ca = ca.map(|path| Pem::File(path.into()));
        tls.identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((Pem::File(cert.into()), Pem::File(key.into()))),
            (None, None) => None,
            _ => {
                return Err(Error::Invalid(
                    "a certificate needs a key, and a key a certificate".into(),
                ));
            }
        };
        Ok(Some(if skip { tls.dangerously_skip_verify() } else { tls }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<Config> {
        Config::from_vars(|name| {
            let short = name.strip_prefix("ETCDCTL_")?;
            vars.iter().find(|(n, _)| *n == short).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_given_is_the_tool_s_default() {
        let config = config(&[]).expect("a configuration");
        assert_eq!(config.endpoints, ["127.0.0.1:2379"]);
        assert_eq!(config.dial_timeout, Duration::from_secs(2));
        assert_eq!(config.tls, None);
    }

    #[test]
    fn tls_is_on_where_something_of_it_is_given() {
        let tls = |vars: &[(&str, &str)]| config(vars).expect("a configuration").tls;
        assert_eq!(tls(&[("CACERT", "ca")]), Some(Tls::new().ca_file("ca")));
        assert!(tls(&[("INSECURE_TRANSPORT", "false")]).is_some());
        assert!(tls(&[("INSECURE_SKIP_TLS_VERIFY", "true")]).is_some_and(|t| t.skips_verify()));
        assert!(config(&[("CERT", "c")]).is_err());
        assert!(config(&[("INSECURE_TRANSPORT", "perhaps")]).is_err());
    }

    #[test]
    fn a_password_of_its_own_leaves_the_user_s_colons_alone() {
        let config = config(&[("USER", "a:b"), ("PASSWORD", "p")]).expect("a configuration");
        assert_eq!((&config.username[..], &config.password[..]), ("a:b", "p"));
    }

    #[test]
    fn bad_values_are_named() {
        let error = config(&[("DIAL_TIMEOUT", "soon")]).expect_err("no duration");
        assert_eq!(error.to_string(), "ETCDCTL_DIAL_TIMEOUT: \"soon\" makes no sense");
    }
}
