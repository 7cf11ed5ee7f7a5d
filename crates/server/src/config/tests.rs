//! Command lines, environments and files as etcd 3.7.1 takes or refuses them.

use super::parse::Note;
use super::start::{Loaded, load};
use super::*;

fn run(args: &[&str], env: &[(&str, &str)]) -> (Loaded, Vec<Note>) {
    let args: Vec<String> =
        std::iter::once("etcd").chain(args.iter().copied()).map(str::to_owned).collect();
    let env: Vec<(String, String)> =
        env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut notes = Vec::new();
    (load(&args, &env, &mut notes), notes)
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    match run(args, env).0 {
        Loaded::Serve(config, _) => *config,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn refused(args: &[&str]) -> String {
    match run(args, &[]).0 {
        Loaded::Refuse(error) => error,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// etcd's help text of 3.7.1 names these; two of them it no longer takes, and neither do we.
const GONE: [&str; 2] = ["discovery", "discovery-proxy"];

#[test]
fn every_flag_of_etcds_help_is_known() {
    let names: Vec<&str> = include_str!("testdata/flags.txt").lines().collect();
    assert!(names.len() > 100);
    for name in names {
        assert_eq!(table::find(name).is_some(), !GONE.contains(&name), "--{name}");
    }
    let mut all: Vec<&str> = table::all().map(|flag| flag.name).collect();
    all.sort_unstable();
    let mut once = all.clone();
    once.dedup();
    assert_eq!(all, once, "a flag stands twice in the table");
}

#[test]
fn help_names_every_flag_with_its_default() {
    let text = help::flags();
    for name in include_str!("testdata/flags.txt").lines().filter(|name| !GONE.contains(name)) {
        assert!(text.contains(&format!("\n  --{name} '")), "--{name}");
    }
    assert!(text.contains("--quota-backend-bytes '0'") && text.contains("--pre-vote 'true'"));
    assert!(text.contains("--grpc-keepalive-interval '2h0m0s'"));
    assert!(matches!(run(&["--name", "x", "-h"], &[]).0, Loaded::Print(_)));
}

#[test]
fn version_has_etcds_lines() {
    match run(&["--test.coverprofile", "--v", "--version", "--max-wals=3"], &[]).0 {
        Loaded::Print(text) => {
            assert!(text.starts_with("etcd Version: 3.7.1\nGit SHA: "));
            assert!(text.contains("\nGo Version: ") && text.contains("\nGo OS/Arch: "));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_take_every_form_and_the_last_one_wins() {
    let c = config(
        &[
            "--name=a",
            "-name",
            "b",
            "--snapshot-count",
            "0x10",
            "-pre-vote=false",
            "--strict-reconfig-check=f",
            "--socket-reuse-port",
            "--backend-batch-interval=1m30.5s",
            "--log-outputs=stderr,stdout,stderr",
            "--max-concurrent-streams=7",
            "--listen-client-urls",
            "http://127.0.0.1:2,http://127.0.0.1:1,http://127.0.0.1:2",
            "--advertise-client-urls=http://h:1",
            "--quota-backend-bytes=-1",
            "--data-dir",
            "x y",
            "--cors=http://o:1",
            "--listen-peer-urls=",
        ],
        &[],
    );
    assert_eq!((c.name.as_str(), c.snapshot_count, c.pre_vote), ("b", 16, false));
    assert!(!c.strict_reconfig_check && c.socket_reuse_port);
    assert_eq!(c.backend_batch_interval, Duration::from_millis(90_500));
    assert_eq!(c.log_outputs.len(), 2);
    assert_eq!((c.max_concurrent_streams, c.quota_backend_bytes), (7, -1));
    assert_eq!(urls::join(&c.listen_client_urls), "http://127.0.0.1:1,http://127.0.0.1:2");
    assert_eq!(c.data_dir, "x y");
    assert_eq!(c.cors.iter().collect::<Vec<_>>(), ["http://o:1"]);
    assert_eq!(urls::join(&c.listen_peer_urls), "http://localhost:2380");
}

#[test]
fn nothing_given_is_the_defaults() {
    assert_eq!(config(&[], &[]), Config::default());
    let mut c = config(&[], &[]);
    assert_eq!(c.complete(), None);
    assert_eq!(c.initial_cluster, "default=http://localhost:2380");
    assert_eq!(c.check_bootstrap(), Ok(()));
}

#[test]
fn zero_stands_for_the_default_where_it_would_make_no_sense() {
    let zeros = [
        "--backend-batch-interval=0",
        "--backend-batch-limit=0",
        "--compaction-batch-limit=0",
        "--compaction-sleep-interval=0",
        "--watch-progress-notify-interval=0",
        "--warning-unary-request-duration=0",
    ];
    let c = config(&zeros, &[]);
    assert_eq!(Config { given: BTreeSet::new(), ..c }, Config::default());
    let c = config(&["--watch-progress-notify-interval=1ms"], &[]);
    assert_eq!(c.watch_progress_notify_interval, Duration::from_millis(100));
}

#[test]
fn wrong_flags_print_what_go_prints_and_exit_with_2() {
    for (args, error) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["-nope=1"], "flag provided but not defined: -nope"),
        (&["--discovery", "http://x"], "flag provided but not defined: -discovery"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["--name"], "flag needs an argument: -name"),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (
            &["--heartbeat-interval=x"],
            "invalid value \"x\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--heartbeat-interval=-1"],
            "invalid value \"-1\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--backend-batch-interval=5"],
            "invalid value \"5\" for flag -backend-batch-interval: parse error",
        ),
        (
            &["--backend-batch-interval="],
            "invalid value \"\" for flag -backend-batch-interval: parse error",
        ),
        (
            &["--quota-backend-bytes=1e9"],
            "invalid value \"1e9\" for flag -quota-backend-bytes: parse error",
        ),
        (
            &["--quota-backend-bytes=99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -quota-backend-bytes: value out of range",
        ),
        (
            &["--max-concurrent-streams=4294967296"],
            "invalid value \"4294967296\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            &["--listen-client-urls=http://1.2.3.4"],
            "invalid value \"http://1.2.3.4\" for flag -listen-client-urls: URL address does not have the form \"host:port\": http://1.2.3.4",
        ),
        (
            &["--initial-cluster-state=foo"],
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["-v2-deprecation", "not-yet"],
            "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
        ),
        (
            &["--feature-gates=Foo=true"],
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (
            &["--cors=x"],
            "invalid value \"x\" for flag -cors: URL scheme must be http, https, unix, or unixs: x",
        ),
    ] {
        match run(args, &[]).0 {
            Loaded::Complain(text, 2) => {
                assert!(text.starts_with(&format!("{error}\nUsage:\n")), "{text}");
            }
            other => panic!("{args:?}: {other:?}"),
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused_in_etcds_words() {
    for (args, error) in [
        (&["foo"][..], "\"foo\" is not a valid flag"),
        (&["-"], "\"-\" is not a valid flag"),
        (&["--pre-vote", "false"], "\"false\" is not a valid flag"),
        (&["--version", "--", "x"], "\"x\" is not a valid flag"),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls=http://foo.bar:1", "--advertise-client-urls", "http://x:1"],
            "expected IP in URL for binding (http://foo.bar:1)",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        (
            &["--initial-advertise-peer-urls=http://:1"],
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=400"],
            "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (&["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (
            &["--auto-compaction-retention=xx"],
            "error parsing CompactionRetention: time: invalid duration \"xx\"",
        ),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            &["--tls-min-version=TLS1.1"],
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=X"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (&["--logger=foo"], "unknown logger option \"foo\""),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--log-outputs=/nonexistent/dir/x"],
            "open sink \"/nonexistent/dir/x\": open /nonexistent/dir/x: no such file or directory",
        ),
        (
            &["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-endpoints=x"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            &["--discovery-srv=foo", "--initial-cluster=default=http://localhost:2380"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"],
            "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
        (&["--auth-token=foo"], "auth: invalid auth options"),
        (&["--config-file=/nonexistent"], "open /nonexistent: no such file or directory"),
    ] {
        assert_eq!(refused(args), error, "{args:?}");
    }
}

#[test]
fn another_way_to_find_a_cluster_is_refused_rather_than_left_out() {
    let found = ["--discovery-token=t", "--discovery-endpoints=http://x:1"];
    assert!(refused(&found).contains("discovery is not part of this release"));
}

#[test]
fn flags_without_effect_are_named_in_one_line() {
    let (_, notes) = run(&["--memory-mlock", "--max-snapshots=9", "--name=x"], &[]);
    let said: Vec<&Note> =
        notes.iter().filter(|note| note.message.contains("have no effect")).collect();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].fields[0].1, serde_json::json!(["--max-snapshots", "--memory-mlock"]));
    assert!(notes.iter().any(|note| note.message.starts_with("--max-snapshots is deprecated")));
    let (_, notes) = run(&["--name=x", "--max-txn-ops=5"], &[]);
    assert!(!notes.iter().any(|note| note.message.contains("no effect")), "{notes:?}");
}

#[test]
fn the_environment_counts_below_the_command_line() {
    let env = [("ETCD_NAME", "env"), ("ETCD_PRE_VOTE", "false"), ("ETCD_FOO", "1"), ("PATH", "/")];
    let c = config(&["--snapshot-count=3"], &env);
    assert_eq!((c.name.as_str(), c.pre_vote, c.snapshot_count), ("env", false, 3));
    let (_, notes) = run(&[], &env);
    let texts: Vec<&str> = notes.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(texts.iter().filter(|t| t.starts_with("recognized and used")).count(), 2);
    assert_eq!(texts.iter().filter(|t| t.starts_with("unrecognized environment")).count(), 1);

    match run(&["--name=x"], &env).0 {
        Loaded::Refuse(error) => assert!(error.starts_with("conflicting environment variable")),
        other => panic!("{other:?}"),
    }
    match run(&[], &[("ETCD_HEARTBEAT_INTERVAL", "x")]).0 {
        Loaded::Refuse(error) => {
            assert_eq!(error, "invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL: parse error");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(config(&[], &[("ETCD_VERSION", "3.3"), ("ETCD_NAME", "")]).name, "default");
    assert!(refused_env(&[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")]));
}

fn refused_env(env: &[(&str, &str)]) -> bool {
    matches!(run(&[], env).0, Loaded::Refuse(error) if error == validate::UNSET_ADVERTISE)
}

#[test]
fn with_a_file_flags_and_environment_count_for_nothing() {
    let path = std::env::temp_dir().join(format!("etch-config-{}.yml", std::process::id()));
    std::fs::write(&path, "name: from-file\nlisten-client-urls: http://127.0.0.1:1\n")
        .expect("written");
    let name = path.to_str().expect("UTF-8");
    let c = config(&["--config-file", name, "--name=x", "--pre-vote=false"], &[("ETCD_NAME", "y")]);
    assert_eq!((c.name.as_str(), c.pre_vote), ("from-file", true));
    assert_eq!(config(&[], &[("ETCD_CONFIG_FILE", name)]).name, "from-file");
    std::fs::write(&path, "initial-cluster-state: foo\n").expect("written");
    assert_eq!(refused(&["--config-file", name]), "unexpected clusterState \"foo\"");
    std::fs::write(&path, "client-transport-security:\n  auto-tls: true\n").expect("written");
    assert!(config(&["--config-file", name], &[]).client_tls.auto);
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn the_first_start_of_a_cluster_is_checked() {
    let check = |args: &[&str]| {
        let mut c = config(args, &[]);
        c.complete();
        c.check_bootstrap()
    };
    assert_eq!(check(&["--name=abc"]), Ok(()), "the cluster follows the name");
    let own = "--initial-advertise-peer-urls=http://127.0.0.1:1";
    assert_eq!(check(&["--initial-cluster=default=http://127.0.0.1:1", own]), Ok(()));
    for (args, error) in [
        (
            &["--initial-cluster=foo=http://127.0.0.1:1"][..],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster="],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster=default=http://127.0.0.1:1"],
            "--initial-cluster has default=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:1\")",
        ),
        (
            &["--initial-cluster=default"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
    ] {
        assert_eq!(check(args), Err(error.to_owned()), "{args:?}");
    }
    let existing = check(&["--initial-cluster-state=existing"]).expect_err("nothing to join");
    assert!(existing.starts_with("cannot fetch cluster info from peer urls: could not retrieve"));
    let three =
        check(&["--initial-cluster=default=http://localhost:2380,b=http://b:1,c=http://c:1"]);
    assert!(three.expect_err("one member only").contains("names 3 members"));
}

#[test]
fn compaction_follows_from_two_flags() {
    let mean = |mode: &str, retention: &str| {
        let mode = format!("--auto-compaction-mode={mode}");
        config(&[&mode, &format!("--auto-compaction-retention={retention}")], &[])
            .auto_compaction()
            .expect("checked")
    };
    assert_eq!(mean("periodic", "0"), AutoCompaction::Off);
    assert_eq!(mean("periodic", "2"), AutoCompaction::Periodic(Duration::from_secs(7200)));
    assert_eq!(mean("periodic", "30m"), AutoCompaction::Periodic(Duration::from_secs(1800)));
    assert_eq!(mean("revision", "1000"), AutoCompaction::Revision(1000));
    assert!(
        refused(&["--auto-compaction-mode=revision", "--auto-compaction-retention=1m"])
            .starts_with("error parsing")
    );
}

#[test]
fn passwords_are_not_shown() {
    let args = ["etcd", "--discovery-password=s3cret", "-discovery-password", "s3cret", "--name=x"];
    let shown = parse::without_secrets(&args.map(str::to_owned));
    assert_eq!(shown.join(" "), "etcd --discovery-password=*** -discovery-password *** --name=x");
    let (_, notes) = run(&[], &[("ETCD_DISCOVERY_PASSWORD", "s3cret")]);
    assert!(!format!("{notes:?}").contains("s3cret"));
}

#[test]
fn the_start_line_has_the_effective_values() {
    let path = std::env::temp_dir().join(format!("etch-start-{}.log", std::process::id()));
    let out = format!("--log-outputs={}", path.display());
    let args = [out.as_str(), "--snapshot-catchup-entries=1000", "--election-timeout=2000"];
    let Loaded::Serve(config, log) = run(&args, &[]).0 else { panic!("refused") };
    log_starting(&config, &log, true);
    let text = std::fs::read_to_string(&path).expect("logged");
    std::fs::remove_file(&path).expect("removed");
    for part in [
        "\"msg\":\"starting an etcd server\"",
        "\"snapshot-catchup-entries\":1000",
        "\"election-timeout\":\"2s\"",
        "\"heartbeat-interval\":\"100ms\"",
        "\"member-initialized\":true",
        "\"quota-backend-bytes\":2147483648",
        "\"listen-client-urls\":[\"http://localhost:2379\"]",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn an_unknown_log_level_ends_with_the_code_of_a_panic() {
    let ended = run(&["--log-level=shout"], &[]).0;
    assert!(
        matches!(&ended, Loaded::Complain(text, 2) if text == "unrecognized level: \"shout\"\n"),
        "{ended:?}"
    );
}
