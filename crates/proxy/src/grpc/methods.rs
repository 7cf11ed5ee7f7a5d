//! What the proxy serves: every method of etcd's services, and how each is passed on. Not here: messages.

use etch_rpc::Route;

/// How a method is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One message each way; may be asked again elsewhere.
    Read,
    /// One message each way; must not happen twice.
    Write,
    /// The same, and it may take as long as it likes.
    Wait,
    /// The list of members, which may be that of the proxies.
    Members,
    /// Messages in either direction, passed on as they are.
    Stream,
    /// Watches, which share those of the cluster.
    Watch,
    /// Leases' renewals, which share a stream.
    KeepAlive,
}

/// Every method: its path and how it is handled.
pub(super) const METHODS: &[(&str, Kind)] = &[
    ("/etcdserverpb.KV/Range", Kind::Read),
    ("/etcdserverpb.KV/Put", Kind::Write),
    ("/etcdserverpb.KV/DeleteRange", Kind::Write),
    ("/etcdserverpb.KV/Txn", Kind::Write),
    ("/etcdserverpb.KV/Compact", Kind::Write),
    ("/etcdserverpb.KV/RangeStream", Kind::Stream),
    ("/etcdserverpb.Watch/Watch", Kind::Watch),
    ("/etcdserverpb.Lease/LeaseGrant", Kind::Write),
    ("/etcdserverpb.Lease/LeaseRevoke", Kind::Write),
    ("/etcdserverpb.Lease/LeaseKeepAlive", Kind::KeepAlive),
    ("/etcdserverpb.Lease/LeaseTimeToLive", Kind::Read),
    ("/etcdserverpb.Lease/LeaseLeases", Kind::Read),
    ("/etcdserverpb.Cluster/MemberAdd", Kind::Write),
    ("/etcdserverpb.Cluster/MemberRemove", Kind::Write),
    ("/etcdserverpb.Cluster/MemberUpdate", Kind::Write),
    ("/etcdserverpb.Cluster/MemberList", Kind::Members),
    ("/etcdserverpb.Cluster/MemberPromote", Kind::Write),
    ("/etcdserverpb.Maintenance/Alarm", Kind::Write),
    ("/etcdserverpb.Maintenance/Status", Kind::Read),
    ("/etcdserverpb.Maintenance/Defragment", Kind::Wait),
    ("/etcdserverpb.Maintenance/Hash", Kind::Read),
    ("/etcdserverpb.Maintenance/HashKV", Kind::Read),
    ("/etcdserverpb.Maintenance/Snapshot", Kind::Stream),
    ("/etcdserverpb.Maintenance/MoveLeader", Kind::Write),
    ("/etcdserverpb.Maintenance/Downgrade", Kind::Write),
    ("/etcdserverpb.Auth/AuthEnable", Kind::Write),
    ("/etcdserverpb.Auth/AuthDisable", Kind::Write),
    ("/etcdserverpb.Auth/AuthStatus", Kind::Read),
    ("/etcdserverpb.Auth/Authenticate", Kind::Write),
    ("/etcdserverpb.Auth/UserAdd", Kind::Write),
    ("/etcdserverpb.Auth/UserGet", Kind::Read),
    ("/etcdserverpb.Auth/UserList", Kind::Read),
    ("/etcdserverpb.Auth/UserDelete", Kind::Write),
    ("/etcdserverpb.Auth/UserChangePassword", Kind::Write),
    ("/etcdserverpb.Auth/UserGrantRole", Kind::Write),
    ("/etcdserverpb.Auth/UserRevokeRole", Kind::Write),
    ("/etcdserverpb.Auth/RoleAdd", Kind::Write),
    ("/etcdserverpb.Auth/RoleGet", Kind::Read),
    ("/etcdserverpb.Auth/RoleList", Kind::Read),
    ("/etcdserverpb.Auth/RoleDelete", Kind::Write),
    ("/etcdserverpb.Auth/RoleGrantPermission", Kind::Write),
    ("/etcdserverpb.Auth/RoleRevokePermission", Kind::Write),
    ("/v3lockpb.Lock/Lock", Kind::Wait),
    ("/v3lockpb.Lock/Unlock", Kind::Write),
    ("/v3electionpb.Election/Campaign", Kind::Wait),
    ("/v3electionpb.Election/Proclaim", Kind::Write),
    ("/v3electionpb.Election/Leader", Kind::Read),
    ("/v3electionpb.Election/Observe", Kind::Stream),
    ("/v3electionpb.Election/Resign", Kind::Write),
    ("/grpc.health.v1.Health/Check", Kind::Read),
    ("/grpc.health.v1.Health/Watch", Kind::Stream),
];

/// What a path names.
pub(super) fn route(path: &str) -> Route {
    match METHODS.iter().position(|(known, _)| *known == path) {
        Some(at) => {
            let number = at as u16;
            match METHODS[at].1 {
                Kind::Stream | Kind::Watch | Kind::KeepAlive => Route::Stream(number),
                _ => Route::Unary(number),
            }
        }
        None => {
            let service = path.rsplit_once('/').map_or("", |(service, _)| service);
            let known = METHODS.iter().any(|(known, _)| {
                known.rsplit_once('/').is_some_and(|(known, _)| known == service)
            });
            if known { Route::UnknownMethod } else { Route::UnknownService }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        assert_eq!(route("/etcdserverpb.KV/Range"), Route::Unary(0));
        assert_eq!(route("/etcdserverpb.Watch/Watch"), Route::Stream(6));
        assert_eq!(route("/etcdserverpb.KV/Nothing"), Route::UnknownMethod);
        assert_eq!(route("/nobody.KV/Range"), Route::UnknownService);
        assert_eq!(route(""), Route::UnknownService);
    }
}
