//! What the metrics show and others know best: asked for when a page is made. Not here: the families
//! (`metrics`), and what is counted where it happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etch_api::pb::etcdserverpb::AlarmType;
use etch_rpc::Stats;

use crate::member::Member;
use crate::metrics::Metrics;

/// Lets the metrics ask the member, and the net threads' connections.
pub fn add_sources(member: &Arc<Member>, connections: Vec<Arc<Stats>>) {
    // Weak: the member holds the metrics.
    let weak = Arc::downgrade(member);
    member.metrics.add_source(move |metrics| {
        if let Some(member) = weak.upgrade() {
            server(metrics, &member);
            mvcc(metrics, &member);
            rest(metrics, &member, &connections);
        }
    });
}

fn server(metrics: &Metrics, member: &Member) {
    let (view, us) = (&member.view, member.identity.member);
    let to = &metrics.server;
    to.id.set(format!("{us:x}"));
    if let Some(version) = member.members().version() {
        to.cluster_version.set(format!("{}.{}", version.major, version.minor));
    }
    to.has_leader.set(i64::from(view.leader() != 0));
    to.is_leader.set(i64::from(view.leader() == us));
    to.is_learner.set(i64::from(member.members().get(us).is_some_and(|m| m.is_learner)));
    to.leader_changes.set(view.leader_changes());
    to.proposals_committed.set_size(view.committed());
    to.proposals_applied.set_size(view.applied());
    to.proposals_pending.set_size(view.pending());
    to.proposals_failed.set(view.failed());
    to.quota_bytes.set_size(member.quota.limit());
    to.auth_revision.set_size(member.auth.revision());
    let alarms = member.alarms().list(AlarmType::None);
    for kind in [AlarmType::Nospace, AlarmType::Corrupt] {
        for row in member.members().iter() {
            let up = alarms.iter().any(|a| a.alarm == kind as i32 && a.member_id == row.id);
            if up || to.alarms.has([kind.as_str_name(), &format!("{:x}", row.id)]) {
                to.alarms.set([kind.as_str_name(), &format!("{:x}", row.id)], i64::from(up));
            }
        }
    }
}

fn mvcc(metrics: &Metrics, member: &Member) {
    let (store, watches, to) = (&member.store, member.hub.counters(), &metrics.mvcc);
    let stats = store.stats();
    to.puts.set(stats.puts.get());
    to.deletes.set(stats.deletes.get());
    to.txns.set(stats.txns.get());
    to.ranges.set(stats.ranges.get());
    to.keys.set_size(store.current_keys());
    to.put_bytes.set_size(stats.put_bytes.get());
    to.db_compaction_keys.set(stats.compacted_keys.get());
    to.current_revision.set(store.revision());
    to.compact_revision.set(store.compact_revision());
    to.events.set(watches.events_total.load(Ordering::Relaxed));
    to.pending_events.set(watches.pending_events.load(Ordering::Relaxed));
    to.watch_streams.set(watches.streams.load(Ordering::Relaxed));
    to.watchers.set(watches.watchers.load(Ordering::Relaxed));
    to.slow_watchers.set(watches.slow_watchers.load(Ordering::Relaxed));
}

fn rest(metrics: &Metrics, member: &Member, connections: &[Arc<Stats>]) {
    let counts = member.lessor.counts();
    metrics.lease.granted.set(counts.granted.load(Ordering::Relaxed));
    metrics.lease.revoked.set(counts.revoked.load(Ordering::Relaxed));
    metrics.lease.renewed.set(counts.renewed.load(Ordering::Relaxed));
    metrics.server.leases_expired.set(counts.expired.load(Ordering::Relaxed));
    let (size, in_use) = member.sizes();
    metrics.disk.size.set_size(size);
    metrics.disk.size_in_use.set_size(in_use);
    let sum = |of: fn(&Stats) -> u64| connections.iter().map(|s| of(s)).sum::<u64>();
    metrics.network.client_received.set(sum(|s| s.message_bytes_in.get()));
    metrics.network.client_sent.set(sum(|s| s.message_bytes_out.get()));
    let us = format!("{:x}", member.identity.member);
    for row in member.members().iter() {
        metrics.network.known_peers.set([&us, &format!("{:x}", row.id)], 1);
    }
}
