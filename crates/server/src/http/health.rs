//! `/health`, `/livez` and `/readyz` with the checks below them, in etcd's words. Not here: the other pages.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::pages::{Alarm, Member, Site, error, guessed_text, text, wrong_method};
use super::query;
use crate::logging::push_json_string;
use crate::{log_debug, log_error, log_warn};

const GOOD: &str = r#"{"health":"true","reason":""}"#;
const TIMED_OUT: &str = "etcdserver: request timed out";

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

/// The pages of checks, and their checks in the order in which they are shown.
const SETS: [(&str, &[Check]); 2] = [
    ("livez", &[Check::SerializableRead]),
    (
        "readyz",
        &[
            Check::DataCorruption,
            Check::SerializableRead,
            Check::LinearizableRead,
            Check::NonLearner,
        ],
    ),
];

impl<M: Member> Site<M> {
    /// The page at a path of health; none at others.
    pub(super) async fn health(&self, request: &Parts) -> Option<Response<Bytes>> {
        let path = request.uri.path();
        if path == "/health" {
            return Some(self.whole_health(request).await);
        }
        for (set, checks) in SETS {
            let Some(rest) = path.strip_prefix('/').and_then(|path| path.strip_prefix(set)) else {
                continue;
            };
            if rest.is_empty() {
                return Some(self.checks(request, set, checks, true).await);
            }
            let one = checks.iter().find(|check| rest.strip_prefix('/') == Some(check.name()))?;
            return Some(self.checks(request, set, &[*one], false).await);
        }
        None
    }

    async fn whole_health(&self, request: &Parts) -> Response<Bytes> {
        if request.method != Method::GET {
            log_warn!(self.log, "/health error", "status-code" => 405);
            return wrong_method();
        }
        let query = query::pairs(request.uri.query());
        let first = query.iter().find(|(name, _)| name == "serializable");
        let serializable = first.is_some_and(|(_, value)| value == "true");
        match self.reason_for_ill_health(&excluded(&query), serializable).await {
            None => {
                self.metrics.server.health_success.inc();
                log_debug!(self.log, "/health OK", "status-code" => 200);
                guessed_text(GOOD)
            }
            Some(reason) => {
                self.metrics.server.health_failures.inc();
                let mut output = "{\"health\":\"false\",\"reason\":".to_owned();
                push_json_string(&mut output, &reason);
                output.push('}');
                log_warn!(self.log, "/health error", "output" => output, "status-code" => 503);
                error(StatusCode::SERVICE_UNAVAILABLE, &output)
            }
        }
    }

    /// First alarms, then the leader, then a read.
    async fn reason_for_ill_health(
        &self,
        excluded: &[String],
        serializable: bool,
    ) -> Option<String> {
        let alarms = self.member.alarms();
        if let Some(alarm) = alarms.iter().find(|alarm| !excluded.iter().any(|e| e == alarm.name()))
        {
            log_warn!(self.log, "serving /health false due to an alarm", "alarm" => alarm.name());
            return Some(format!("ALARM {}", alarm.name()));
        }
        if !serializable && self.member.leader() == 0 {
            log_warn!(self.log, "serving /health false; no leader");
            return Some("RAFT NO LEADER".to_owned());
        }
        let why = self.read(serializable).await.err()?;
        log_warn!(self.log, "serving /health false; Range fails", "error" => why);
        Some(format!("RANGE ERROR:{why}"))
    }

    async fn read(&self, serializable: bool) -> Result<(), String> {
        if serializable {
            return self.member.serializable_read();
        }
        let read = self.member.linearizable_read();
        match tokio::time::timeout(self.settings.read_timeout, read).await {
            Ok(result) => result,
            Err(_) => Err(TIMED_OUT.to_owned()),
        }
    }

    /// Makes the checks; only a page of several lets some be left out.
    async fn checks(
        &self,
        request: &Parts,
        set: &str,
        checks: &[Check],
        several: bool,
    ) -> Response<Bytes> {
        let path = request.uri.path();
        if request.method != Method::GET {
            log_warn!(self.log, "Health request error", "path" => path, "status-code" => 405);
            return wrong_method();
        }
        let query = query::pairs(request.uri.query());
        let excluded = if several { excluded(&query) } else { Vec::new() };
        self.warn_of_unknown(checks, &excluded);
        let mut reason = String::new();
        let mut good = true;
        for check in checks.iter().filter(|check| !excluded.iter().any(|e| e == check.name())) {
            let name = check.name();
            let failure = self.check(*check).await.err();
            match &failure {
                None => reason.push_str(&format!("[+]{name} ok\n")),
                Some(why) => reason.push_str(&format!("[-]{name} failed: {why}\n")),
            }
            good &= failure.is_none();
            let status = if failure.is_none() { "success" } else { "error" };
            let server = &self.metrics.server;
            server.healthcheck.set([name, set], failure.is_none().into());
            server.healthchecks.add([name, status, set], 1);
        }
        if !good {
            log_error!(
                self.log,
                "Health check error",
                "path" => path,
                "reason" => reason,
                "status-code" => 503,
            );
            return error(StatusCode::SERVICE_UNAVAILABLE, &reason);
        }
        log_debug!(
            self.log,
            "Health check OK",
            "path" => path,
            "reason" => reason,
            "status-code" => 200,
        );
        if !query.iter().any(|(name, _)| name == "verbose") {
            reason.clear();
        }
        reason.push_str("ok\n");
        text(reason)
    }

    fn warn_of_unknown(&self, checks: &[Check], excluded: &[String]) {
        let unknown: Vec<String> = excluded
            .iter()
            .filter(|name| !checks.iter().any(|check| check.name() == *name))
            .map(|name| format!("{name:?}"))
            .collect();
        if !unknown.is_empty() {
            log_warn!(
                self.log,
                "some health checks cannot be excluded",
                "missing-health-checks" => unknown.join(","),
            );
        }
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption if self.member.alarms().contains(&Alarm::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::NonLearner if self.member.is_learner() => {
                Err("not supported for learner".to_owned())
            }
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => self.read(true).await,
            Check::LinearizableRead => self.read(false).await,
        }
    }
}

/// The values of `exclude`, each once.
fn excluded(query: &[(String, String)]) -> Vec<String> {
    let mut names: Vec<String> = query
        .iter()
        .filter(|(name, value)| name == "exclude" && !value.is_empty())
        .map(|(_, value)| value.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}
