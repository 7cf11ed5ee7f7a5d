//! The calls' names on the wire, and whether each may be sent again when nobody knows what became of it.

/// Whether a call may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes nothing, or the same thing however often it is carried out.
    Repeatable,
    /// Repeated only if it surely was not carried out.
    Once,
}

/// A call of a service.
#[derive(Debug)]
pub(crate) struct Method {
    pub path: &'static str,
    pub kind: Kind,
}

macro_rules! methods {
    ($($name:ident $kind:ident $path:literal;)*) => {
        $(pub(crate) const $name: Method = Method {
            path: concat!("/etcdserverpb.", $path),
            kind: Kind::$kind,
        };)*
    };
}

// Stricter than Go's client: granting and revoking a lease and moving the leader are repeated there, though a
// second grant leaves a lease behind that nobody knows of, and a second revocation turns success into an error.
methods! {
    RANGE Repeatable "KV/Range";
    RANGE_STREAM Repeatable "KV/RangeStream";
    PUT Once "KV/Put";
    DELETE_RANGE Once "KV/DeleteRange";
    TXN Once "KV/Txn";
    TXN_READ Repeatable "KV/Txn";
    COMPACT Once "KV/Compact";
    WATCH Repeatable "Watch/Watch";
    LEASE_GRANT Once "Lease/LeaseGrant";
    LEASE_REVOKE Once "Lease/LeaseRevoke";
    LEASE_KEEP_ALIVE Repeatable "Lease/LeaseKeepAlive";
    LEASE_TIME_TO_LIVE Repeatable "Lease/LeaseTimeToLive";
    LEASE_LEASES Repeatable "Lease/LeaseLeases";
    MEMBER_ADD Once "Cluster/MemberAdd";
    MEMBER_REMOVE Once "Cluster/MemberRemove";
    MEMBER_UPDATE Once "Cluster/MemberUpdate";
    MEMBER_LIST Repeatable "Cluster/MemberList";
    MEMBER_PROMOTE Once "Cluster/MemberPromote";
    ALARM Repeatable "Maintenance/Alarm";
    STATUS Repeatable "Maintenance/Status";
    DEFRAGMENT Once "Maintenance/Defragment";
    HASH Repeatable "Maintenance/Hash";
    HASH_KV Repeatable "Maintenance/HashKV";
    SNAPSHOT Repeatable "Maintenance/Snapshot";
    MOVE_LEADER Once "Maintenance/MoveLeader";
    DOWNGRADE Once "Maintenance/Downgrade";
    AUTH_ENABLE Once "Auth/AuthEnable";
    AUTH_DISABLE Once "Auth/AuthDisable";
    AUTH_STATUS Repeatable "Auth/AuthStatus";
    AUTHENTICATE Repeatable "Auth/Authenticate";
    USER_ADD Once "Auth/UserAdd";
    USER_GET Repeatable "Auth/UserGet";
    USER_LIST Repeatable "Auth/UserList";
    USER_DELETE Once "Auth/UserDelete";
    USER_CHANGE_PASSWORD Once "Auth/UserChangePassword";
    USER_GRANT_ROLE Once "Auth/UserGrantRole";
    USER_REVOKE_ROLE Once "Auth/UserRevokeRole";
    ROLE_ADD Once "Auth/RoleAdd";
    ROLE_GET Repeatable "Auth/RoleGet";
    ROLE_LIST Repeatable "Auth/RoleList";
    ROLE_DELETE Once "Auth/RoleDelete";
    ROLE_GRANT_PERMISSION Once "Auth/RoleGrantPermission";
    ROLE_REVOKE_PERMISSION Once "Auth/RoleRevokePermission";
}

impl Method {
    /// `Service/Call`, for spans and metrics.
    pub fn name(&self) -> &'static str {
        self.path.trim_start_matches("/etcdserverpb.")
    }
}
