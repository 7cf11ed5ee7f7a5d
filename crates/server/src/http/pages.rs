//! The pages of the client, metrics and peer ports: who may ask, which path is what, versions, metrics,
//! members. Not here: the checks of health (`health`).

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etch_host::profile;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use serde::Serialize;

use super::query;
use crate::config::{Config, ETCD_VERSION, release};
use crate::log_warn;
use crate::logging::Logger;
use crate::metrics::{Metrics, open_files};

/// An alarm that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The database has reached its quota.
    NoSpace,
    /// Members' data differ.
    Corrupt,
}

impl Alarm {
    /// Its name in queries and answers.
    pub fn name(self) -> &'static str {
        match self {
            Alarm::NoSpace => "NOSPACE",
            Alarm::Corrupt => "CORRUPT",
        }
    }
}

/// A member, as `/members` shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberInfo {
    /// Its id.
    pub id: u64,
    /// Where other members find it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Whether it is a learner.
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name; none before its first start.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients find it.
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// What the pages ask of the member. Errors are texts for people.
pub trait Member {
    /// The leader's id; 0 is none.
    fn leader(&self) -> u64;
    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;
    /// The alarms that are up, of any member.
    fn alarms(&self) -> Vec<Alarm>;
    /// Whether this member can read what it has.
    fn serializable_read(&self) -> Result<(), String>;
    /// Whether this member can read what the cluster has agreed on.
    fn linearizable_read(&self) -> impl Future<Output = Result<(), String>>;
    /// The cluster's version (`3.7.0`), once there is one.
    fn cluster_version(&self) -> Option<String>;
    /// The storage's version (`3.7.0`), if it is known.
    fn storage_version(&self) -> Option<String>;
    /// The cluster's id.
    fn cluster_id(&self) -> u64;
    /// The members.
    fn members(&self) -> Vec<MemberInfo>;
    /// Whether users are asked who they are.
    fn auth_is_on(&self) -> bool;
    /// Raft's state: our id, the leader's, the term, the committed and the applied index.
    fn raft(&self) -> [u64; 5];
}

/// What the pages take from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Origins that browsers may ask from; `*` or none is any.
    pub cors: BTreeSet<String>,
    /// Host names that may be asked under; `*` or none is any.
    pub host_whitelist: BTreeSet<String>,
    /// Whether `/debug/pprof/` answers.
    pub pprof: bool,
    /// How long a read may take that `/health` makes.
    pub read_timeout: Duration,
    /// The command line, without passwords.
    pub command_line: Vec<String>,
    /// Whether gRPC takes the common name of a certificate for a user, as JSON cannot.
    pub names_by_certificate: bool,
}

/// What TLS says of the connection that a request came over. Where this is not among a request's extensions,
/// TLS is not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// The client has shown a certificate with a common name.
    pub named: bool,
}

impl Secured {
    /// As extensions of a request.
    pub fn into_extensions(self) -> http::Extensions {
        let mut extensions = http::Extensions::new();
        extensions.insert(self);
        extensions
    }
}

impl Settings {
    /// What the configuration says.
    pub fn new(config: &Config) -> Settings {
        const READ_TIMEOUT: Duration = Duration::from_secs(5);
        let election = Duration::from_millis(config.election_timeout);
        Settings {
            cors: config.cors.clone(),
            host_whitelist: config.host_whitelist.clone(),
            pprof: config.enable_pprof,
            read_timeout: READ_TIMEOUT + 2 * election,
            command_line: config.command_line.clone(),
            names_by_certificate: config.client_tls.client_cert_auth && config.enable_grpc_gateway,
        }
    }
}

/// Which pages a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// None: gRPC alone is spoken there.
    None,
    /// All of them: client ports, and those of `--listen-client-http-urls`.
    Client,
    /// Metrics and health alone: `--listen-metrics-urls`.
    Metrics,
    /// What members ask of each other, but for raft.
    Peer,
}

/// The pages over a member.
pub struct Site<M> {
    pub(super) member: M,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Logger,
    pub(super) settings: Settings,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
const NO_SNIFF: (HeaderName, &str) = (HeaderName::from_static("x-content-type-options"), "nosniff");

impl<M: Member> Site<M> {
    /// The pages over this member.
    pub fn new(member: M, metrics: Arc<Metrics>, log: Logger, settings: Settings) -> Site<M> {
        Site { member, metrics, log, settings }
    }

    /// The answer of a port with these pages.
    pub async fn respond(&self, pages: Pages, request: &Parts) -> Response<Bytes> {
        match pages {
            Pages::None => finish(request, not_found()),
            Pages::Client => self.client(request).await,
            Pages::Metrics => self.metrics_port(request).await,
            Pages::Peer => self.peer(request),
        }
    }

    /// Calls in JSON by somebody who trusts that a certificate's name counts, which it does in gRPC alone.
    fn refuse_named(&self, request: &Parts) -> Option<Response<Bytes>> {
        const TEXT: &str = "CommonName of client sending a request against gateway will be ignored and \
             not used as expected";
        let named = request.extensions.get::<Secured>().is_some_and(|secured| secured.named);
        let refused = named
            && self.settings.names_by_certificate
            && request.uri.path().starts_with("/v3/")
            && self.member.auth_is_on();
        refused.then(|| error(StatusCode::BAD_REQUEST, TEXT))
    }

    /// A request on a client port: all pages, for the hosts and origins that are let in.
    async fn client(&self, request: &Parts) -> Response<Bytes> {
        if let Some(refused) = self.refuse(request) {
            return finish(request, refused);
        }
        let mut response = match self.at_once(request) {
            Some(response) => response,
            None => match self.common(request).await {
                Some(response) => response,
                None => self.client_only(request).await,
            },
        };
        self.allow_origin(request, response.headers_mut());
        finish(request, response)
    }

    /// What a request on a client port gets that is not let in.
    pub fn refuse(&self, request: &Parts) -> Option<Response<Bytes>> {
        // A page in a browser cannot have another name's certificate.
        if request.extensions.get::<Secured>().is_some() {
            return self.refuse_named(request);
        }
        let host = query::host_name(host(request));
        let allowed = &self.settings.host_whitelist;
        if allowed.is_empty() || allowed.contains("*") || allowed.contains(host) {
            return None;
        }
        log_warn!(
            self.log,
            "rejecting HTTP request to prevent DNS rebinding attacks",
            "host" => host
        );
        Some(error(StatusCode::MISDIRECTED_REQUEST, &wrong_host(host)))
    }

    /// What a request on a client port gets whatever its path is for.
    pub fn at_once(&self, request: &Parts) -> Option<Response<Bytes>> {
        if request.method == Method::OPTIONS {
            return Some(Response::default());
        }
        let clean = query::cleaned(request.uri.path())?;
        Some(redirect(request, &clean))
    }

    /// A request on a port of `--listen-metrics-urls`: metrics and health alone.
    async fn metrics_port(&self, request: &Parts) -> Response<Bytes> {
        let response = self.common(request).await.unwrap_or_else(not_found);
        finish(request, response)
    }

    /// A request on a peer port that is not for raft.
    fn peer(&self, request: &Parts) -> Response<Bytes> {
        let response = match request.uri.path() {
            path if let Some(clean) = query::cleaned(path) => redirect(request, &clean),
            "/version" => self.version(request),
            "/members" => self.members(request),
            _ => not_found(),
        };
        finish(request, response)
    }

    /// The pages that both the client and the metrics ports have.
    async fn common(&self, request: &Parts) -> Option<Response<Bytes>> {
        let path = request.uri.path();
        if let Some(clean) = query::cleaned(path) {
            return Some(redirect(request, &clean));
        }
        match path {
            "/metrics" => Some(self.metrics_page()),
            _ => self.health(request).await,
        }
    }

    async fn client_only(&self, request: &Parts) -> Response<Bytes> {
        match request.uri.path() {
            "/version" => self.version(request),
            "/debug/vars" => self.vars(request),
            path if path.starts_with("/debug/pprof/") && self.settings.pprof => {
                profile(request.uri.clone()).await
            }
            _ => not_found(),
        }
    }

    fn metrics_page(&self) -> Response<Bytes> {
        let network = &self.metrics.network;
        network.scrapes_under_way.add(1);
        let mut out = String::with_capacity(256 * 1024);
        self.metrics.render(&mut out);
        network.scrapes_under_way.add(-1);
        network.scrapes.add(["200"], 1);
        page(METRICS, out)
    }

    fn version(&self, request: &Parts) -> Response<Bytes> {
        if request.method != Method::GET {
            return wrong_method();
        }
        let cluster = self.member.cluster_version().unwrap_or_else(|| "not_decided".into());
        let storage = self.member.storage_version().unwrap_or_else(|| "unknown".into());
        page(
            JSON,
            format!(
                "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}"
            ),
        )
    }

    fn members(&self, request: &Parts) -> Response<Bytes> {
        if request.method != Method::GET {
            return wrong_method();
        }
        let mut members = self.member.members();
        members.sort_by(|a, b| a.peer_urls.first().cmp(&b.peer_urls.first()));
        let text = serde_json::to_string(&members).unwrap_or_default();
        // These stand within strings alone, where Go escapes them.
        let text =
            text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026") + "\n";
        let mut response = page(JSON, text);
        let cluster = HeaderValue::from_str(&format!("{:x}", self.member.cluster_id()));
        if let Ok(cluster) = cluster {
            response.headers_mut().insert("x-etcd-cluster-id", cluster);
        }
        response
    }

    fn vars(&self, request: &Parts) -> Response<Bytes> {
        if request.method != Method::GET {
            return wrong_method();
        }
        let (_, limit) = open_files();
        let line = serde_json::to_string(&self.settings.command_line).unwrap_or_default();
        let [id, leader, term, commit, applied] = self.member.raft();
        let state = if id == leader { "StateLeader" } else { "StateFollower" };
        let raft = format!(
            "{{\"id\":\"{id:x}\",\"term\":{term},\"commit\":{commit},\"lead\":\"{leader:x}\",\
             \"raftState\":\"{state}\",\"applied\":{applied}}}"
        );
        let text = format!(
            "{{\n\"cmdline\": {line},\n\"file_descriptor_limit\": {limit},\n\"raft.status\": {raft},\n\
             \"release\": \"{}\"\n}}\n",
            release()
        );
        page("application/json; charset=utf-8", text)
    }

    /// Says which origins' pages may read the answer.
    pub fn allow_origin(&self, request: &Parts, headers: &mut HeaderMap) {
        let cors = &self.settings.cors;
        let origin = if cors.is_empty() || cors.contains("*") {
            HeaderValue::from_static("*")
        } else {
            match request.headers.get(ORIGIN) {
                Some(origin) if origin.to_str().is_ok_and(|text| cors.contains(text)) => {
                    origin.clone()
                }
                _ => return,
            }
        };
        etch_transcode::allow_origin(origin, headers);
    }
}

fn host(request: &Parts) -> &str {
    match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// A page that says yes.
pub(super) fn page(kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A page of text that browsers are not to guess about.
pub(super) fn text(body: String) -> Response<Bytes> {
    let mut response = page(TEXT, body);
    response.headers_mut().insert(NO_SNIFF.0, HeaderValue::from_static(NO_SNIFF.1));
    response
}

/// A page of plain text without more headers, as Go sends what it has guessed to be text.
pub(super) fn guessed_text(body: &'static str) -> Response<Bytes> {
    page(TEXT, body)
}

/// A page that says no, as Go's `http.Error` does.
pub(super) fn error(status: StatusCode, message: &str) -> Response<Bytes> {
    let mut response = text(format!("{message}\n"));
    *response.status_mut() = status;
    response
}

/// A page below `/debug/pprof/`.
async fn profile(uri: Uri) -> Response<Bytes> {
    let made = tokio::task::spawn_blocking(move || profile::answer(uri.path(), uri.query()));
    let Ok(made) = made.await else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "the server has stopped");
    };
    let mut response = page(made.kind, made.body);
    *response.status_mut() =
        StatusCode::from_u16(made.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

pub(super) fn wrong_method() -> Response<Bytes> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

fn not_found() -> Response<Bytes> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// Leads to another path.
pub fn redirect(request: &Parts, path: &str) -> Response<Bytes> {
    let target = match request.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let Ok(location) = HeaderValue::from_str(&target) else { return not_found() };
    let shown = target
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;");
    let mut response = match request.method {
        Method::GET | Method::HEAD => page(
            "text/html; charset=utf-8",
            format!("<a href=\"{shown}\">Temporary Redirect</a>.\n\n"),
        ),
        _ => Response::default(),
    };
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The length of every answer is told; to HEAD it is all that there is.
fn finish(request: &Parts, mut response: Response<Bytes>) -> Response<Bytes> {
    let length = HeaderValue::from(response.body().len());
    response.headers_mut().insert(CONTENT_LENGTH, length);
    if request.method == Method::HEAD {
        response.body_mut().clear();
    }
    response
}

fn wrong_host(host: &str) -> String {
    format!(
        "\nThis server does not go by the name in the request's Host header.\n\n\
         Either add the name to --host-whitelist {host:?}, or ask under a name that is in it.\n\
         This keeps web pages from reaching the server by \"DNS rebinding\" (CVE-2018-5702).\n"
    )
}
