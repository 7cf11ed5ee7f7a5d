//! The examples run, and end well.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use tokio::process::Command;

use crate::common::{Kind, Proxy, Server, run};

const EXAMPLES: &[&str] = &[
    "quick_start",
    "config_reload",
    "leader_election",
    "lock_fencing",
    "stm_transfer",
    "discovery_channel",
    "discovery_register",
    "discovery_resolve",
];

/// Where cargo puts the examples. Whoever tests the workspace or the package has built them before this runs; only
/// where one is missing, or older than its source, are they built here: a build of one package compiles what it stands
/// on anew, for its own set of features.
fn directory() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let here = std::env::current_exe().expect("a path");
            let built = here.ancestors().nth(2).expect("a target directory").join("examples");
            let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
            let changed = |path: PathBuf| path.metadata().and_then(|m| m.modified()).ok();
            let fresh = |name: &&str| {
                changed(built.join(name)) > changed(sources.join(name).with_extension("rs"))
            };
            if !EXAMPLES.iter().all(fresh) {
                let status = std::process::Command::new(env!("CARGO"))
                    .args(["build", "-q", "-p", "etch-client", "--examples"])
                    .current_dir(env!("CARGO_MANIFEST_DIR"))
                    .status()
                    .expect("cargo runs");
                assert!(status.success(), "the examples do not build");
            }
            built
        })
        .clone()
}

fn command(server: &Server, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(directory().join(name));
    command.args(args).env("ETCDCTL_ENDPOINTS", &server.endpoint);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn example(server: &Server, name: &str, args: &[&str]) -> String {
    let output = command(server, name, args).output().await.expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}{errors}");
    text
}

#[test]
fn the_examples_run() {
    // Built before the clock runs.
    directory();
    run(async {
        let server = Server::start(Kind::Etch).await;
        let out = example(&server, "quick_start", &[]).await;
        assert!(out.contains("fruit/pear = 5") && out.contains("changed: true"), "{out}");
        let out = example(&server, "config_reload", &[]).await;
        assert!(out.ends_with("in the end: {\"level\": \"stop\"}\n"), "{out}");
        let out = example(&server, "leader_election", &[]).await;
        assert_eq!(out.matches(" leads, at revision").count(), 3, "{out}");
        let out = example(&server, "lock_fencing", &[]).await;
        assert!(out.contains("refused: "), "{out}");
        let out = example(&server, "stm_transfer", &[]).await;
        assert!(out.ends_with("in all: 400\n"), "{out}");
        // One place to look, two that offer the service: the channel must find both.
        let other = Proxy::start(server.address()).await;
        let offer = |address: &str| {
            let mut offer = command(&server, "discovery_register", &["services/kv", address]);
            offer.stdout(Stdio::piped()).spawn().expect("the example starts")
        };
        let offers = [server.address(), other.endpoint.trim_start_matches("http://")].map(offer);
        let (asked, looked) = (["services/kv", "3"], ["services/kv", "3"]);
        let (channel, resolved) = tokio::join!(
            example(&server, "discovery_channel", &asked),
            example(&server, "discovery_resolve", &looked),
        );
        for offer in offers {
            let id = offer.id().expect("it runs").to_string();
            Command::new("kill").args(["-INT", &id]).status().await.expect("a signal");
            let ended = offer.wait_with_output().await.expect("its end");
            let text = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success() && text.starts_with("registered "), "{text}");
        }
        assert!(resolved.contains("call 2: answered by member"), "{resolved}");
        assert!(channel.contains("taking services/kv/127.0.0.1:"), "{channel}");
        assert!(channel.contains("call 2: answered by member"), "{channel}");
    });
}
