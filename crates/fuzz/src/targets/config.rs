//! Flags, the configuration file, and URLs. Not here: what the values do.

use etch_server::config::{self, Url};

use crate::Target;

/// Arguments, one a line.
pub const FLAGS: Target = Target { name: "flags", run: flags, seeds: some_flags, memory: 8 << 20 };

/// A configuration file.
pub const FILE: Target = Target { name: "yaml", run: file, seeds: some_files, memory: 64 << 20 };

/// A URL.
pub const URLS: Target = Target { name: "urls", run: url, seeds: some_urls, memory: 1 << 20 };

fn flags(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let args: Vec<String> = text.lines().map(str::to_owned).collect();
    let _ = config::read(&args, None);
}

fn file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = config::read(&[], Some(text));
}

fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(url) = Url::parse(text) {
        let again = Url::parse(&url.to_string());
        assert!(again.is_ok(), "{url} was {text:?}");
        let _ = (url.is_tls(), url.is_unix(), url.socket_path(), url.split_host());
        let _ = config::urls::check_bind(std::slice::from_ref(&url));
        let _ = config::urls::check_host_given(&[url]);
    }
    let _ = config::urls::parse_list(text);
}

fn some_flags() -> Vec<Vec<u8>> {
    [
        "--name=one\n--data-dir\n/data\n--listen-client-urls=http://127.0.0.1:2379,unix://a:1",
        "-auto-compaction-retention=5m\n--quota-backend-bytes=0x10\n--pre-vote=false\n--cors=*,a",
        "--experimental-x\n--initial-cluster=a=http://a:1,b=http://b:2\n--heartbeat-interval=1_0",
        "--feature-gates=LeaseCheckpoint=true\n--snapshot-count=10\n--log-outputs=stderr,/x\n--",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn some_files() -> Vec<Vec<u8>> {
    [
        "name: one\ndata-dir: /data\nlisten-client-urls: http://127.0.0.1:2379\npre-vote: yes\n",
        "client-transport-security:\n  cert-file: a\n  client-cert-auth: true\nsnapshot-count: 1e3\n",
        "{\"name\": \"x\", \"cors\": \"*\", \"quota-backend-bytes\": 123, \"log-outputs\": [\"a\"]}",
        "a: &x [1, 2]\nb: *x\nc: !!binary aGk=\nd: |\n  text\ne: {f: [g, {h: ~}]}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn some_urls() -> Vec<Vec<u8>> {
    ["http://127.0.0.1:2379", "https://[::1]:2380/", "unix://a:1", "unixs:///tmp/x", "http://a%20b"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}
