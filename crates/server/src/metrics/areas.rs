//! The families by area: each a field, with the name and the type that etcd's dashboards know. Not here:
//! who counts, and how a page is made.

use super::text::{Counters, Gauges, Info, Page};
use super::value::{Counter, Gauge, Histogram};

/// Defines an area: a struct with a field for each family, and the page's part of it.
macro_rules! area {
    ($(#[$doc:meta])* $area:ident {
        $($field:ident: $kind:ty = $new:expr, $name:literal, $help:literal;)*
    }) => {
        $(#[$doc])*
        pub struct $area {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: $kind,)*
        }

        impl $area {
            pub(super) fn new() -> $area {
                $area { $($field: $new,)* }
            }

            pub(super) fn write(&self, page: &mut Page) {
                $(page.add($name, $help, &self.$field);)*
            }
        }
    };
}

fn counter() -> Counter {
    Counter::default()
}

fn gauge() -> Gauge {
    Gauge::default()
}

area! {
    /// The member: raft, versions, requests, health.
    Server {
        cluster_version: Info = Info::new("cluster_version"), "etcd_cluster_version", "The cluster version, as a label.";
        version: Info = Info::new("server_version"), "etcd_server_version", "The version of etcd that this member speaks, as a label.";
        go_version: Info = Info::new("server_go_version"), "etcd_server_go_version", "What this server is built with, as a label.";
        id: Info = Info::new("server_id"), "etcd_server_id", "The member's id in hexadecimal, as a label.";
        has_leader: Gauge = gauge(), "etcd_server_has_leader", "1 if there is a leader.";
        is_leader: Gauge = gauge(), "etcd_server_is_leader", "1 if this member leads.";
        is_learner: Gauge = gauge(), "etcd_server_is_learner", "1 if this member is a learner.";
        leader_changes: Counter = counter(), "etcd_server_leader_changes_seen_total", "Changes of leader that this member has seen.";
        learner_promotions: Counter = counter(), "etcd_server_learner_promote_successes", "Learners promoted while this member led.";
        learner_promotions_failed: Counters<1> = Counters::new(["Reason"]), "etcd_server_learner_promote_failures", "Promotions refused while this member led.";
        heartbeat_send_failures: Counter = counter(), "etcd_server_heartbeat_send_failures_total", "Heartbeats that a leader was late to send.";
        snapshot_applying: Gauge = gauge(), "etcd_server_snapshot_apply_in_progress_total", "1 while a snapshot of the leader is applied.";
        proposals_committed: Gauge = gauge(), "etcd_server_proposals_committed_total", "Index of the last entry committed.";
        proposals_applied: Gauge = gauge(), "etcd_server_proposals_applied_total", "Index of the last entry applied.";
        proposals_pending: Gauge = gauge(), "etcd_server_proposals_pending", "Proposals that wait to be committed.";
        proposals_failed: Counter = counter(), "etcd_server_proposals_failed_total", "Proposals that were not committed in time.";
        slow_applies: Counter = counter(), "etcd_server_slow_apply_total", "Entries that took long to apply.";
        slow_read_indexes: Counter = counter(), "etcd_server_slow_read_indexes_total", "Read indexes that came late.";
        read_indexes_failed: Counter = counter(), "etcd_server_read_indexes_failed_total", "Read indexes that did not come.";
        quota_bytes: Gauge = gauge(), "etcd_server_quota_backend_bytes", "The space quota.";
        leases_expired: Counter = counter(), "etcd_debugging_server_lease_expired_total", "Leases expired.";
        alarms: Gauges<2> = Gauges::new(["alarm_type", "server_id"]), "etcd_debugging_server_alarms", "1 for each alarm that is up.";
        auth_revision: Gauge = gauge(), "etcd_debugging_auth_revision", "The revision of the auth store.";
        requests: Counters<2> = Counters::new(["client_api_version", "type"]), "etcd_server_client_requests_total", "Requests by the client's version.";
        features: Gauges<2> = Gauges::new(["name", "stage"]), "etcd_server_feature_enabled", "1 if the feature gate is open.";
        health_success: Counter = counter(), "etcd_server_health_success", "Answers of /health that were good.";
        health_failures: Counter = counter(), "etcd_server_health_failures", "Answers of /health that were not.";
        healthcheck: Gauges<2> = Gauges::new(["name", "type"]), "etcd_server_healthcheck", "1 if the check was good when it was last made.";
        healthchecks: Counters<3> = Counters::new(["name", "status", "type"]), "etcd_server_healthchecks_total", "Checks made, by result.";
    }
}

area! {
    /// Keys, revisions, watches, compaction.
    Mvcc {
        puts: Counter = counter(), "etcd_mvcc_put_total", "Puts applied.";
        deletes: Counter = counter(), "etcd_mvcc_delete_total", "Deletes applied.";
        ranges: Counter = counter(), "etcd_mvcc_range_total", "Ranges read.";
        txns: Counter = counter(), "etcd_mvcc_txn_total", "Transactions applied.";
        keys: Gauge = gauge(), "etcd_debugging_mvcc_keys_total", "Keys in the index.";
        put_bytes: Gauge = gauge(), "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of the puts seen.";
        events: Counter = counter(), "etcd_debugging_mvcc_events_total", "Events sent to watchers.";
        pending_events: Gauge = gauge(), "etcd_debugging_mvcc_pending_events_total", "Events that wait to be sent.";
        watch_streams: Gauge = gauge(), "etcd_debugging_mvcc_watch_stream_total", "Watch streams.";
        watchers: Gauge = gauge(), "etcd_debugging_mvcc_watcher_total", "Watchers.";
        slow_watchers: Gauge = gauge(), "etcd_debugging_mvcc_slow_watcher_total", "Watchers that catch up from history.";
        current_revision: Gauge = gauge(), "etcd_debugging_mvcc_current_revision", "The revision.";
        compact_revision: Gauge = gauge(), "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction, -1 before the first.";
        db_compaction_keys: Counter = counter(), "etcd_debugging_mvcc_db_compaction_keys_total", "Revisions that compaction has removed.";
        db_compaction_last: Gauge = gauge(), "etcd_debugging_mvcc_db_compaction_last", "When the last compaction ended, in seconds since 1970.";
        db_compaction_pause: Histogram = Histogram::in_millis::<13>(1.0), "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Steps of a compaction in the database.";
        db_compaction_total: Histogram = Histogram::in_millis::<14>(100.0), "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Whole compactions.";
        index_compaction_pause: Histogram = Histogram::in_millis::<14>(0.5), "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", "Steps of a compaction in the index.";
        hash: Histogram = Histogram::centis::<15>(), "etcd_mvcc_hash_duration_seconds", "Hashes of the whole database.";
        hash_rev: Histogram = Histogram::centis::<15>(), "etcd_mvcc_hash_rev_duration_seconds", "Hashes of the keys at a revision.";
        watch_send: Histogram = Histogram::millis(), "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", "Sending what one turn of a watch stream has.";
        watch_send_event: Histogram = Histogram::millis(), "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", "The same, for each event.";
        watch_control: Histogram = Histogram::millis(), "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", "Answering a watch stream's requests.";
        watch_progress: Histogram = Histogram::millis(), "etcd_debugging_server_watch_send_loop_progress_duration_seconds", "Sending notices of progress.";
    }
}

area! {
    /// Leases.
    Lease {
        granted: Counter = counter(), "etcd_debugging_lease_granted_total", "Leases granted.";
        renewed: Counter = counter(), "etcd_debugging_lease_renewed_total", "Leases kept alive.";
        revoked: Counter = counter(), "etcd_debugging_lease_revoked_total", "Leases revoked.";
        ttl: Histogram = Histogram::plain::<24>(), "etcd_debugging_lease_ttl_total", "Times to live of the leases granted, in seconds.";
    }
}

area! {
    /// The log, the database, snapshots.
    Disk {
        wal_fsync: Histogram = Histogram::millis(), "etcd_disk_wal_fsync_duration_seconds", "Flushes of the log: one for a batch of entries.";
        wal_write: Histogram = Histogram::millis(), "etcd_disk_wal_write_duration_seconds", "Writes of the log.";
        wal_bytes: Gauge = gauge(), "etcd_disk_wal_write_bytes_total", "Bytes written to the log.";
        backend_commit: Histogram = Histogram::millis(), "etcd_disk_backend_commit_duration_seconds", "Commits of the database.";
        backend_rebalance: Histogram = Histogram::millis(), "etcd_debugging_disk_backend_commit_rebalance_duration_seconds", "The part of a commit that merges pages.";
        backend_spill: Histogram = Histogram::millis(), "etcd_debugging_disk_backend_commit_spill_duration_seconds", "The part of a commit that splits pages.";
        backend_write: Histogram = Histogram::millis(), "etcd_debugging_disk_backend_commit_write_duration_seconds", "The part of a commit that writes pages.";
        backend_snapshot: Histogram = Histogram::centis::<17>(), "etcd_disk_backend_snapshot_duration_seconds", "Sending the database as a snapshot.";
        backend_defrag: Histogram = Histogram::decis::<13>(), "etcd_disk_backend_defrag_duration_seconds", "Defragmentations.";
        defrag_inflight: Gauge = gauge(), "etcd_disk_defrag_inflight", "1 while the database is defragmented.";
        open_reads: Gauge = gauge(), "etcd_mvcc_db_open_read_transactions", "Readers of the database.";
        size: Gauge = gauge(), "etcd_mvcc_db_total_size_in_bytes", "Size of the database.";
        size_in_use: Gauge = gauge(), "etcd_mvcc_db_total_size_in_use_in_bytes", "Size of what the database uses of it.";
        snap_marshal: Histogram = Histogram::millis(), "etcd_debugging_snap_save_marshalling_duration_seconds", "Encoding a snapshot file.";
        snap_save: Histogram = Histogram::millis(), "etcd_debugging_snap_save_total_duration_seconds", "Saving a snapshot file.";
        snap_fsync: Histogram = Histogram::millis(), "etcd_snap_fsync_duration_seconds", "Flushes of a snapshot file.";
        snap_db_fsync: Histogram = Histogram::millis(), "etcd_snap_db_fsync_duration_seconds", "Flushes of a database received as a snapshot.";
        snap_db_save: Histogram = Histogram::decis::<10>(), "etcd_snap_db_save_total_duration_seconds", "Saving a database received as a snapshot.";
    }
}

area! {
    /// Clients, peers, and who reads this page.
    Network {
        client_received: Counter = counter(), "etcd_network_client_grpc_received_bytes_total", "Bytes of messages received from clients.";
        client_sent: Counter = counter(), "etcd_network_client_grpc_sent_bytes_total", "Bytes of messages sent to clients.";
        stream_failures: Counters<2> = Counters::new(["API", "Type"]), "etcd_network_server_stream_failures_total", "Streams that failed on our side.";
        known_peers: Gauges<2> = Gauges::new(["Local", "Remote"]), "etcd_network_known_peers", "1 for each member known.";
        scrapes: Counters<1> = Counters::new(["code"]), "promhttp_metric_handler_requests_total", "Pages of metrics served.";
        scrapes_under_way: Gauge = gauge(), "promhttp_metric_handler_requests_in_flight", "Pages of metrics under way.";
    }
}

area! {
    /// What etcd shows and a server like this one never counts: the v2 store, and the proxy. Always 0, so
    /// that what reads them finds them.
    Elsewhere {
        store_expires: Counter = counter(), "etcd_debugging_store_expires_total", "Keys of the v2 store expired: there is none.";
        store_watch_requests: Counter = counter(), "etcd_debugging_store_watch_requests_total", "Watches of the v2 store: there is none.";
        store_watchers: Gauge = gauge(), "etcd_debugging_store_watchers", "Watchers of the v2 store: there is none.";
        cache_hits: Gauge = gauge(), "etcd_grpc_proxy_cache_hits_total", "The proxy's: this is none.";
        cache_keys: Gauge = gauge(), "etcd_grpc_proxy_cache_keys_total", "The proxy's: this is none.";
        cache_misses: Gauge = gauge(), "etcd_grpc_proxy_cache_misses_total", "The proxy's: this is none.";
        events_coalescing: Counter = counter(), "etcd_grpc_proxy_events_coalescing_total", "The proxy's: this is none.";
        watchers_coalescing: Gauge = gauge(), "etcd_grpc_proxy_watchers_coalescing_total", "The proxy's: this is none.";
    }
}
