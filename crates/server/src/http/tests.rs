//! The pages over a member that can be in any state, and a connection over a pipe.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::Config;
use crate::logging::Logger;
use crate::metrics::Metrics;

#[derive(Clone)]
struct Fake {
    leader: u64,
    learner: bool,
    alarms: Vec<Alarm>,
    serializable: Result<(), String>,
    /// None is a read that never ends.
    linearizable: Option<Result<(), String>>,
    version: Option<&'static str>,
}

const WELL: Fake = Fake {
    leader: 1,
    learner: false,
    alarms: Vec::new(),
    serializable: Ok(()),
    linearizable: Some(Ok(())),
    version: Some("3.7.0"),
};

impl Member for Fake {
    fn leader(&self) -> u64 {
        self.leader
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.alarms.clone()
    }

    fn serializable_read(&self) -> Result<(), String> {
        self.serializable.clone()
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        match &self.linearizable {
            Some(result) => result.clone(),
            None => std::future::pending().await,
        }
    }

    fn cluster_version(&self) -> Option<String> {
        self.version.map(str::to_owned)
    }

    fn storage_version(&self) -> Option<String> {
        self.version.map(str::to_owned)
    }

    fn cluster_id(&self) -> u64 {
        0x9c7d_1ab7_e21c_2e2f
    }

    fn auth_is_on(&self) -> bool {
        true
    }

    fn raft(&self) -> [u64; 5] {
        [1, self.leader, 2, 10, 9]
    }

    fn members(&self) -> Vec<MemberInfo> {
        let default = MemberInfo {
            id: 543_920_851_605_942_143,
            peer_urls: vec!["http://127.0.0.1:17002".into()],
            name: "a&b".into(),
            client_urls: vec!["http://127.0.0.1:17001".into()],
            is_learner: false,
        };
        let learner = MemberInfo {
            id: 2,
            peer_urls: vec!["http://a:1".into()],
            is_learner: true,
            ..MemberInfo::default()
        };
        vec![learner, default]
    }
}

fn settings() -> Settings {
    let any = BTreeSet::from(["*".to_owned()]);
    Settings {
        cors: any.clone(),
        host_whitelist: any,
        pprof: false,
        read_timeout: Duration::from_secs(7),
        command_line: vec!["etcd".into(), "--name=\"x\"".into()],
        names_by_certificate: true,
    }
}

fn site(member: &Fake, settings: Settings) -> Site<Fake> {
    let metrics = Arc::new(Metrics::new(&Config::default()));
    Site::new(member.clone(), metrics, Logger::discard(), settings)
}

async fn ask(pages: &Site<Fake>, method: &str, path: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost:2379");
    let (head, ()) = request.body(()).expect("a request").into_parts();
    pages.respond(Pages::Client, &head).await
}

fn body(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).expect("UTF-8")
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// A member in some state, a path, and the status and the body that it answers with.
type Case = (Fake, &'static str, u16, &'static str);

#[tokio::test(start_paused = true)]
async fn health_is_as_etcd_says_it() {
    let cases: Vec<Case> = vec![
        (WELL, "/health", 200, r#"{"health":"true","reason":""}"#),
        (
            Fake { leader: 0, ..WELL },
            "/health",
            503,
            "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n",
        ),
        (
            Fake { leader: 0, ..WELL },
            "/health?serializable=true",
            200,
            r#"{"health":"true","reason":""}"#,
        ),
        (
            Fake { alarms: vec![Alarm::NoSpace], ..WELL },
            "/health",
            503,
            "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n",
        ),
        (
            Fake { alarms: vec![Alarm::NoSpace], ..WELL },
            "/health?exclude=NOSPACE",
            200,
            r#"{"health":"true","reason":""}"#,
        ),
        (
            Fake { alarms: vec![Alarm::NoSpace, Alarm::Corrupt], ..WELL },
            "/health?exclude=NOSPACE",
            503,
            "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n",
        ),
        (
            Fake { alarms: vec![Alarm::NoSpace, Alarm::Corrupt], ..WELL },
            "/health?exclude=NOSPACE&exclude=CORRUPT",
            200,
            r#"{"health":"true","reason":""}"#,
        ),
        (
            Fake { linearizable: Some(Err("\"no\"".into())), ..WELL },
            "/health",
            503,
            "{\"health\":\"false\",\"reason\":\"RANGE ERROR:\\\"no\\\"\"}\n",
        ),
        (
            Fake { linearizable: None, ..WELL },
            "/health",
            503,
            "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n",
        ),
        (
            Fake { linearizable: None, ..WELL },
            "/health?serializable=true",
            200,
            r#"{"health":"true","reason":""}"#,
        ),
        (WELL, "/livez", 200, "ok\n"),
        (WELL, "/livez?verbose", 200, "[+]serializable_read ok\nok\n"),
        (Fake { leader: 0, linearizable: None, ..WELL }, "/livez", 200, "ok\n"),
        (
            Fake { serializable: Err("broken".into()), ..WELL },
            "/livez",
            503,
            "[-]serializable_read failed: broken\n\n",
        ),
        (WELL, "/livez/serializable_read?verbose=true", 200, "[+]serializable_read ok\nok\n"),
        (WELL, "/livez/linearizable_read", 404, "404 page not found\n"),
        (WELL, "/livezx", 404, "404 page not found\n"),
        (WELL, "/readyz", 200, "ok\n"),
        (
            WELL,
            "/readyz?verbose",
            200,
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
        (
            Fake { alarms: vec![Alarm::Corrupt], learner: true, ..WELL },
            "/readyz",
            503,
            "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
             [+]linearizable_read ok\n[-]non_learner failed: not supported for learner\n\n",
        ),
        (
            Fake { alarms: vec![Alarm::Corrupt], learner: true, ..WELL },
            "/readyz?exclude=data_corruption&exclude=non_learner&exclude=nothing&verbose",
            200,
            "[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
        ),
        (Fake { alarms: vec![Alarm::NoSpace], ..WELL }, "/readyz/data_corruption", 200, "ok\n"),
        (
            Fake { linearizable: None, ..WELL },
            "/readyz/linearizable_read",
            503,
            "[-]linearizable_read failed: etcdserver: request timed out\n\n",
        ),
        (WELL, "/readyz/nope", 404, "404 page not found\n"),
        (WELL, "/readyz/", 404, "404 page not found\n"),
    ];
    for (member, path, status, text) in cases {
        let response = ask(&site(&member, settings()), "GET", path).await;
        assert_eq!((response.status().as_u16(), body(&response)), (status, text), "{path}");
        assert_eq!(header(&response, "content-type"), "text/plain; charset=utf-8", "{path}");
        assert_eq!(header(&response, "content-length"), text.len().to_string());
        let guessed = path.starts_with("/health") && status == 200;
        assert_eq!(header(&response, "x-content-type-options").is_empty(), guessed, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn checks_are_counted() {
    let member = Fake { learner: true, ..WELL };
    let pages = site(&member, settings());
    ask(&pages, "GET", "/health").await;
    ask(&pages, "GET", "/readyz").await;
    ask(&pages, "GET", "/readyz/non_learner").await;
    let response = ask(&pages, "GET", "/metrics").await;
    let text = body(&response);
    for line in [
        "etcd_server_health_success 1",
        "etcd_server_health_failures 0",
        "etcd_server_healthcheck{name=\"non_learner\",type=\"readyz\"} 0",
        "etcd_server_healthchecks_total{name=\"non_learner\",status=\"error\",type=\"readyz\"} 2",
        "etcd_server_healthchecks_total{name=\"serializable_read\",status=\"success\",type=\"readyz\"} 1",
        "promhttp_metric_handler_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}");
    }
    assert_eq!(
        header(&response, "content-type"),
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    );
}

#[tokio::test]
async fn the_other_pages_are_etcds() {
    let all = site(&WELL, settings());
    for (path, status, kind, text) in [
        (
            "/version",
            200,
            "application/json",
            r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#,
        ),
        ("/version/", 404, "text/plain; charset=utf-8", "404 page not found\n"),
        ("/", 404, "text/plain; charset=utf-8", "404 page not found\n"),
        ("/v2/keys", 404, "text/plain; charset=utf-8", "404 page not found\n"),
        ("/members", 404, "text/plain; charset=utf-8", "404 page not found\n"),
        ("/debug/pprof/", 404, "text/plain; charset=utf-8", "404 page not found\n"),
        (
            "//health",
            307,
            "text/html; charset=utf-8",
            "<a href=\"/health\">Temporary Redirect</a>.\n\n",
        ),
    ] {
        let response = ask(&all, "GET", path).await;
        let got = (response.status().as_u16(), header(&response, "content-type"), body(&response));
        assert_eq!(got, (status, kind, text), "{path}");
    }
    let young = site(&Fake { version: None, ..WELL }, settings());
    let response = ask(&young, "GET", "/version").await;
    assert_eq!(
        body(&response),
        r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#
    );
    let vars = ask(&all, "GET", "/debug/vars").await;
    let vars: serde_json::Value = serde_json::from_str(body(&vars)).expect("JSON");
    assert_eq!(vars["cmdline"][1], "--name=\"x\"");
    let profiling = site(&WELL, Settings { pprof: true, ..settings() });
    assert_eq!(ask(&profiling, "GET", "/debug/pprof/heap").await.status(), 404);
    let profile = ask(&profiling, "GET", "/debug/pprof/profile?seconds=1").await;
    assert_eq!(profile.headers()["content-type"], "application/octet-stream");
    assert!(body(&ask(&profiling, "GET", "/debug/pprof/").await).contains("cmdline"));
}

#[tokio::test]
async fn other_methods_are_told_which_one() {
    let pages = site(&WELL, settings());
    for path in ["/health", "/livez", "/readyz/non_learner", "/version", "/debug/vars"] {
        for method in ["POST", "PUT", "HEAD"] {
            let response = ask(&pages, method, path).await;
            assert_eq!((response.status().as_u16(), header(&response, "allow")), (405, "GET"));
            let text = if method == "HEAD" { "" } else { "Method Not Allowed\n" };
            assert_eq!(body(&response), text);
            assert_eq!(header(&response, "content-length"), "19");
        }
        let response = ask(&pages, "OPTIONS", path).await;
        assert_eq!((response.status().as_u16(), body(&response)), (200, ""));
        assert_eq!(
            header(&response, "access-control-allow-methods"),
            "POST, GET, OPTIONS, PUT, DELETE"
        );
    }
    assert_eq!(ask(&pages, "POST", "/metrics").await.status(), 200);
    assert_eq!(ask(&pages, "POST", "/nothing").await.status(), 404);
}

#[tokio::test]
async fn strangers_stay_outside() {
    let list = |text: &str| BTreeSet::from([text.to_owned()]);
    let own = site(&WELL, Settings { host_whitelist: list("example.org"), ..settings() });
    assert_eq!(ask(&own, "GET", "/health").await.status(), 421);
    assert_eq!(ask(&own, "GET", "http://example.org:2379/health").await.status(), 200);
    let origins = site(&WELL, Settings { cors: list("http://o:1"), ..settings() });
    let from = |origin: &str| {
        let request = Request::builder().uri("/health").header("origin", origin);
        request.body(()).expect("a request").into_parts().0
    };
    let known = origins.respond(Pages::Client, &from("http://o:1")).await;
    assert_eq!(header(&known, "access-control-allow-origin"), "http://o:1");
    let unknown = origins.respond(Pages::Client, &from("http://o:2")).await;
    assert_eq!(header(&unknown, "access-control-allow-origin"), "");
}

#[tokio::test]
async fn over_tls_hosts_are_not_asked_for_and_a_certificates_name_is_no_user_of_json() {
    let hosts = BTreeSet::from(["example.org".to_owned()]);
    let own = site(&WELL, Settings { host_whitelist: hosts, ..settings() });
    let over = |path: &str, secured: Secured| {
        let mut head = Request::new(()).into_parts().0;
        head.uri = path.parse().expect("a path");
        head.extensions.insert(secured);
        head
    };
    for (path, named, status) in [
        ("/health", false, 200),
        ("/health", true, 200),
        ("/v3/x", true, 400),
        ("/v3/x", false, 404),
    ] {
        let answer = own.respond(Pages::Client, &over(path, Secured { named })).await;
        assert_eq!(answer.status(), status, "{path} {named}");
    }
}

#[tokio::test]
async fn peer_and_metrics_ports_have_their_own_pages() {
    let pages = site(&WELL, settings());
    let parts = |method: &str, path: &str| {
        Request::builder().method(method).uri(path).body(()).expect("a request").into_parts().0
    };
    let members = pages.respond(Pages::Peer, &parts("GET", "/members")).await;
    assert_eq!(header(&members, "x-etcd-cluster-id"), "9c7d1ab7e21c2e2f");
    assert_eq!(
        body(&members),
        "[{\"id\":543920851605942143,\"peerURLs\":[\"http://127.0.0.1:17002\"],\
         \"name\":\"a\\u0026b\",\"clientURLs\":[\"http://127.0.0.1:17001\"]},\
         {\"id\":2,\"peerURLs\":[\"http://a:1\"],\"isLearner\":true}]\n"
    );
    assert_eq!(pages.respond(Pages::Peer, &parts("POST", "/members")).await.status(), 405);
    assert_eq!(pages.respond(Pages::Peer, &parts("GET", "/version")).await.status(), 200);
    for path in ["/health", "/metrics", "/members/", "/raft", "/"] {
        assert_eq!(pages.respond(Pages::Peer, &parts("GET", path)).await.status(), 404, "{path}");
    }
    assert_eq!(pages.respond(Pages::None, &parts("GET", "/health")).await.status(), 404);
    for (path, status) in [("/metrics", 200), ("/health", 200), ("/readyz", 200), ("/version", 404)]
    {
        let response = pages.respond(Pages::Metrics, &parts("GET", path)).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "");
    }
}

/// Sends bytes over a connection and reads what comes back until it is closed.
async fn exchange(sent: &[u8], limits: &Http1Limits) -> String {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let pages = site(&WELL, settings());
    let handler = |request: Request<Bytes>| {
        let pages = &pages;
        async move {
            let (head, _) = request.into_parts();
            pages.respond(Pages::Client, &head).await
        }
    };
    let serve = serve_http1(far, limits, std::future::pending(), handler);
    let talk = async {
        near.write_all(sent).await.expect("sent");
        let mut text = String::new();
        near.read_to_string(&mut text).await.expect("received");
        text
    };
    let (served, text) = tokio::join!(serve, talk);
    drop(served);
    text
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let text = exchange(
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\
          HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n\
          POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
          GET /health HTTP/1.0\r\n\r\n",
        &Http1Limits::default(),
    )
    .await;
    let count = |part: &str| text.matches(part).count();
    assert_eq!((count("HTTP/1.1 200"), count("HTTP/1.0 200"), count(" 405 ")), (2, 1, 1), "{text}");
    assert!(text.contains("content-length: 3\r\n") && text.contains("\r\n\r\nok\n"));
    assert!(!text.contains("# HELP"), "HEAD has no body");
    assert!(text.ends_with("\r\n\r\n{\"health\":\"true\",\"reason\":\"\"}"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_bounds() {
    let limits = Http1Limits { headers: 8, body_bytes: 10, ..Http1Limits::default() };
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(20));
    assert!(exchange(many.as_bytes(), &limits).await.contains(" 431 "));
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(300_000));
    assert!(exchange(long.as_bytes(), &limits).await.contains(" 431 "));
    let large = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n";
    assert!(exchange(large, &limits).await.contains(" 413 "));
    let chunked =
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n123456789012345\r\n";
    assert!(exchange(chunked, &limits).await.contains(" 413 "));
    let unfinished = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab";
    assert!(exchange(unfinished, &limits).await.contains(" 408 "));
    // Time stands still until everybody waits: the wait for the rest of the headers ends by itself.
    exchange(b"GET / HTTP/1.1\r\nHos", &limits).await;
    assert!(exchange(b"nonsense\r\n\r\n", &limits).await.contains(" 400 "));
}

#[tokio::test]
async fn a_connection_ends_when_it_is_told_to() {
    let (_near, far) = tokio::io::duplex(1024);
    let site = site(&WELL, settings());
    serve_port(
        far,
        &site,
        Pages::Client,
        async |head, body| Err((head, body)),
        std::future::ready(()),
    )
    .await
    .expect("ended");
}
