//! Whether the values of a configuration go together, with etcd's texts; and what this release refuses
//! because to pass over it would be dangerous. Not here: reading the values.

use super::parse::Note;
use super::urls;
use super::{Config, table};
use crate::logging::{Format, Level, Logger, Outputs, Rotation, go_duration};
use etch_tls::Version;
use serde_json::json;

/// etcd's text for client URLs that nobody is told of.
pub(super) const UNSET_ADVERTISE: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// Gates that this release opens and closes; the others do nothing.
const HEEDED_GATES: [&str; 2] = ["LeaseCheckpoint", "LeaseCheckpointPersist"];

impl Config {
    /// Checks everything, and opens the log that the configuration asks for.
    pub(super) fn validate(&self, notes: &mut Vec<Note>) -> Result<Logger, String> {
        let log = self.open_log()?;
        for listen in
            [&self.listen_peer_urls, &self.listen_client_urls, &self.listen_client_http_urls]
        {
            urls::check_bind(listen)?;
        }
        if self.listen_client_http_urls.is_empty() {
            notes.push(warn(
                "Running http and grpc server on single port. This is not recommended for production.",
            ));
        }
        urls::check_bind(&self.listen_metrics_urls)?;
        self.check_advertised()?;
        self.check_cluster_flags()?;
        self.check_times()?;
        if self.advertise_client_urls.is_empty() {
            return Err(UNSET_ADVERTISE.to_owned());
        }
        match self.auto_compaction_mode.as_str() {
            "periodic" | "revision" => {}
            "" => return Err("undefined auto-compaction-mode".to_owned()),
            other => return Err(format!("unknown auto-compaction-mode {other:?}")),
        }
        self.check_features(notes)?;
        if self.name == "default" {
            let mut note = warn(
                "it isn't recommended to use default name, please set a value for --name. \
                 Note that etcd might run into issue when multiple members have the same default name",
            );
            note.fields.push(("name", json!(self.name)));
            notes.push(note);
        }
        self.check_tls_versions()?;
        self.auto_compaction()?;
        self.refuse_what_would_be_unsafe()?;
        self.note_what_has_no_effect(notes);
        Ok(log)
    }

    fn open_log(&self) -> Result<Logger, String> {
        match self.logger.as_str() {
            "zap" => {}
            "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_owned()),
            other => return Err(format!("unknown logger option {other:?}")),
        }
        let targets: Vec<String> = self.log_outputs.iter().cloned().collect();
        if targets.len() > 1 && self.log_outputs.contains("default") {
            return Err("multi logoutput for \"default\" is not supported yet".to_owned());
        }
        let rotation = self.rotation(&targets)?;
        let level = Level::parse(&self.log_level)
            .ok_or_else(|| format!("unrecognized level: {:?}", self.log_level))?;
        let format = match self.log_format.as_str() {
            "json" | "" => Format::Json,
            "console" => Format::Console,
            other => {
                return Err(format!("unknown log format: {other}, supported values json, console"));
            }
        };
        let outputs =
            Outputs::open(&targets, rotation.as_ref()).map_err(|error| error.to_string())?;
        Ok(Logger::new(level, format, outputs))
    }

    fn rotation(&self, targets: &[String]) -> Result<Option<Rotation>, String> {
        if !self.enable_log_rotation {
            return Ok(None);
        }
        let no_file =
            |target: &&String| !matches!(target.as_str(), "default" | "stderr" | "stdout");
        if targets.iter().filter(no_file).count() != 1 {
            return Err("--log-outputs requires a single file path when \
                 --log-rotate-config-json is defined"
                .to_owned());
        }
        let rotation = serde_json::from_str(&self.log_rotation_config_json).map_err(|error| {
            if error.is_data() {
                format!("invalid log rotation config: {error}")
            } else {
                format!("improperly formatted log rotation config: {error}")
            }
        })?;
        Ok(Some(rotation))
    }

    fn check_advertised(&self) -> Result<(), String> {
        let peers = &self.initial_advertise_peer_urls;
        urls::check_host_given(peers).map_err(|why| {
            let list = urls::join(peers);
            format!("--initial-advertise-peer-urls {list:?} must be \"host:port\" ({why})")
        })?;
        let clients = &self.advertise_client_urls;
        urls::check_host_given(clients).map_err(|why| {
            let list = urls::join(clients);
            format!(
                "--advertise-client-urls {list:?} must be in the format \"host:port\", \
                 \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})"
            )
        })
    }

    fn check_cluster_flags(&self) -> Result<(), String> {
        if !matches!(self.initial_cluster_state.as_str(), "new" | "existing") {
            return Err(format!("unexpected clusterState {:?}", self.initial_cluster_state));
        }
        let discovery = &self.discovery;
        let ways = [
            !self.initial_cluster.is_empty(),
            !discovery.srv.is_empty(),
            !discovery.endpoints.is_empty(),
        ];
        if ways.iter().filter(|set| **set).count() > 1 {
            return Err("multiple discovery or bootstrap flags are set. Choose one of \
                 \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
                .to_owned());
        }
        if discovery.token.is_empty() != discovery.endpoints.is_empty() {
            return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
        }
        if discovery.endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
            return Err("--discovery-endpoints must not contain empty endpoints".to_owned());
        }
        if discovery.fallback == "proxy" {
            return Err("v2 proxy is deprecated, and --discovery-fallback can't be configured as \
                 \"proxy\""
                .to_owned());
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), String> {
        const LONGEST_ELECTION_MS: u64 = 50_000;
        let (tick, election) = (self.heartbeat_interval, self.election_timeout);
        if tick == 0 {
            return Err(format!("--heartbeat-interval must be >0 (set to {tick}ms)"));
        }
        if election == 0 {
            return Err(format!("--election-timeout must be >0 (set to {election}ms)"));
        }
        if tick.saturating_mul(5) > election {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{tick}ms]"
            ));
        }
        if election > LONGEST_ELECTION_MS {
            return Err(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than \
                 {LONGEST_ELECTION_MS}ms"
            ));
        }
        Ok(())
    }

    fn check_features(&self, notes: &mut Vec<Note>) -> Result<(), String> {
        const MILLION: i64 = 1_000_000;
        let rate = self.tracing.sampling_rate;
        if self.tracing.enable && !(0..=MILLION).contains(&rate) {
            let why = if rate < 0 {
                "tracing sampling rate must be positive"
            } else {
                "tracing sampling rate must be less than 1000000"
            };
            return Err(format!("distributed tracing configurition is not valid: ({why})"));
        }
        let checkpoint = self.feature_gates.enabled("LeaseCheckpoint");
        match (checkpoint, self.feature_gates.enabled("LeaseCheckpointPersist")) {
            (true, false) => notes.push(warn(
                "Detected that checkpointing is enabled without persistence. \
                 Consider enabling feature gate LeaseCheckpointPersist",
            )),
            (false, true) => {
                return Err("enabling feature gate LeaseCheckpointPersist requires enabling \
                     feature gate LeaseCheckpoint"
                    .to_owned());
            }
            _ => {}
        }
        if self.compact_hash_check_time.is_zero() {
            return Err(format!(
                "--compact-hash-check-time must be >0 (set to {})",
                go_duration(self.compact_hash_check_time)
            ));
        }
        Ok(())
    }

    fn check_tls_versions(&self) -> Result<(), String> {
        let (min, max) =
            (Version::parse(&self.tls_min_version)?, Version::parse(&self.tls_max_version)?);
        if max.is_some() && min > max {
            return Err(format!(
                "min version ({}) is greater than max version ({})",
                self.tls_min_version, self.tls_max_version
            ));
        }
        if min == Some(Version::Tls13) && !self.cipher_suites.is_empty() {
            return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
        }
        Ok(())
    }

    /// Who asks for authentication or for another way to find a cluster must not be served without.
    fn refuse_what_would_be_unsafe(&self) -> Result<(), String> {
        match self.auth_token.split(',').next().unwrap_or_default() {
            "simple" | "jwt" | "" => {}
            _ => return Err("auth: invalid auth options".to_owned()),
        }
        if !self.discovery.endpoints.is_empty() || !self.discovery.srv.is_empty() {
            return Err("discovery is not part of this release of etch, which serves clusters of \
                 one member: leave out --discovery-*"
                .to_owned());
        }
        Ok(())
    }

    /// One line for all flags that are accepted and do nothing.
    fn note_what_has_no_effect(&self, notes: &mut Vec<Note>) {
        let none: Vec<String> = table::all()
            .filter(|flag| flag.effect == table::Effect::None && self.given.contains(flag.name))
            .map(|flag| format!("--{}", flag.name))
            .collect();
        if !none.is_empty() {
            let mut note =
                warn("these flags are accepted but have no effect in this release of etch");
            note.fields.push(("flags", json!(none)));
            notes.push(note);
        }
        let gates = &self.feature_gates;
        let moot: Vec<&str> = gates
            .all()
            .filter(|(gate, open)| *open != gate.default && !HEEDED_GATES.contains(&gate.name))
            .map(|(gate, _)| gate.name)
            .collect();
        if !moot.is_empty() {
            let mut note =
                warn("these feature gates are accepted but have no effect in this release of etch");
            note.fields.push(("feature-gates", json!(moot)));
            notes.push(note);
        }
    }
}

fn warn(message: &str) -> Note {
    Note::new(Level::Warn, message, Vec::new())
}
