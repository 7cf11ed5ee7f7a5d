//! The page against the families that etcd 3.7.1 shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

/// Families of Go's runtime without a meaning here: its collector and its allocator's books.
const OF_GO_ALONE: [&str; 22] = [
    "go_gc_duration_seconds",
    "go_gc_gogc_percent",
    "go_gc_gomemlimit_bytes",
    "go_goroutines",
    "go_memstats_alloc_bytes_total",
    "go_memstats_buck_hash_sys_bytes",
    "go_memstats_frees_total",
    "go_memstats_gc_sys_bytes",
    "go_memstats_heap_idle_bytes",
    "go_memstats_heap_objects",
    "go_memstats_heap_released_bytes",
    "go_memstats_heap_sys_bytes",
    "go_memstats_last_gc_time_seconds",
    "go_memstats_mallocs_total",
    "go_memstats_mcache_inuse_bytes",
    "go_memstats_mcache_sys_bytes",
    "go_memstats_mspan_inuse_bytes",
    "go_memstats_mspan_sys_bytes",
    "go_memstats_next_gc_bytes",
    "go_memstats_other_sys_bytes",
    "go_memstats_stack_inuse_bytes",
    "go_memstats_stack_sys_bytes",
];

/// What etcd shows only after it has happened, and the member sets at its start.
fn fill_in_what_a_member_sets(metrics: &Metrics) {
    metrics.server.cluster_version.set("3.7");
    metrics.server.id.set("8e9e05c52164694d");
    metrics.network.known_peers.set(["8e9e05c52164694d", "8e9e05c52164694d"], 1);
    metrics.ops.applied(Op::ClusterVersionSet, true, Duration::from_micros(75), 1);
    metrics.ops.requested(Op::ClusterVersionSet, true, Duration::from_micros(800));
}

fn page(metrics: &Metrics) -> String {
    let mut out = String::new();
    metrics.render(&mut out);
    out
}

#[test]
fn the_families_are_those_of_etcd() {
    let config = Config { metrics: "extensive".into(), ..Config::default() };
    let metrics = Metrics::new(&config);
    fill_in_what_a_member_sets(&metrics);
    let text = page(&metrics);
    let ours: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let theirs: BTreeMap<&str, &str> = include_str!("testdata/families.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| !OF_GO_ALONE.contains(name))
        .collect();
    for (name, kind) in &theirs {
        assert_eq!(ours.get(name), Some(kind), "{name}");
    }
    for name in ours.keys() {
        assert!(theirs.contains_key(name), "{name} is not etcd's");
    }
}

#[test]
fn every_line_is_of_the_format() {
    let metrics = Metrics::new(&Config::default());
    fill_in_what_a_member_sets(&metrics);
    let text = page(&metrics);
    let mut family = "";
    let mut last = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().expect("a name");
            assert!(last < family, "{last} before {family}");
            last = family;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(rest.starts_with(family));
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.starts_with(family), "{line} in {family}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn what_dashboards_read_is_exact() {
    let metrics = Arc::new(Metrics::new(&Config::default()));
    fill_in_what_a_member_sets(&metrics);
    metrics.add_source(|metrics| metrics.mvcc.keys.set(42));
    metrics.mvcc.puts.add(2);
    metrics.server.quota_bytes.set(2 << 30);
    metrics.wal_synced(Duration::from_millis(1), Duration::from_millis(3), 480);
    let text = page(&metrics);
    for line in [
        "etcd_mvcc_put_total 2",
        "etcd_debugging_mvcc_keys_total 42",
        "etcd_debugging_mvcc_compact_revision -1",
        "etcd_server_version{server_version=\"3.7.1\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_server_id{server_id=\"8e9e05c52164694d\"} 1",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        "etcd_server_is_learner 0",
        "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1",
        "etcd_disk_wal_fsync_duration_seconds_sum 0.003",
        "etcd_disk_wal_write_bytes_total 480",
        "promhttp_metric_handler_requests_total{code=\"200\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}");
    }
}
