//! Which path is which method. Not here: what the methods do.

use std::collections::HashMap;

use crate::schema::Schema;

/// All routes, under `/v3`: path, service, method. All of them are POST.
const ROUTES: &[(&str, &str, &str)] = &[
    ("/v3/kv/range", "etcdserverpb.KV", "Range"),
    ("/v3/kv/put", "etcdserverpb.KV", "Put"),
    ("/v3/kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("/v3/kv/txn", "etcdserverpb.KV", "Txn"),
    ("/v3/kv/compaction", "etcdserverpb.KV", "Compact"),
    ("/v3/watch", "etcdserverpb.Watch", "Watch"),
    ("/v3/lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("/v3/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("/v3/kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("/v3/lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("/v3/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("/v3/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("/v3/kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("/v3/cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    ("/v3/cluster/member/remove", "etcdserverpb.Cluster", "MemberRemove"),
    ("/v3/cluster/member/update", "etcdserverpb.Cluster", "MemberUpdate"),
    ("/v3/cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    ("/v3/cluster/member/promote", "etcdserverpb.Cluster", "MemberPromote"),
    ("/v3/maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("/v3/maintenance/status", "etcdserverpb.Maintenance", "Status"),
    ("/v3/maintenance/defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("/v3/maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("/v3/maintenance/hashkv", "etcdserverpb.Maintenance", "HashKV"),
    ("/v3/maintenance/snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    ("/v3/maintenance/transfer-leadership", "etcdserverpb.Maintenance", "MoveLeader"),
    ("/v3/maintenance/downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("/v3/auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("/v3/auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("/v3/auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("/v3/auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("/v3/auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("/v3/auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("/v3/auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("/v3/auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    ("/v3/auth/user/changepw", "etcdserverpb.Auth", "UserChangePassword"),
    ("/v3/auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("/v3/auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("/v3/auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("/v3/auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("/v3/auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("/v3/auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    ("/v3/auth/role/grant", "etcdserverpb.Auth", "RoleGrantPermission"),
    ("/v3/auth/role/revoke", "etcdserverpb.Auth", "RoleRevokePermission"),
    ("/v3/lock/lock", "v3lockpb.Lock", "Lock"),
    ("/v3/lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("/v3/election/campaign", "v3electionpb.Election", "Campaign"),
    ("/v3/election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("/v3/election/leader", "v3electionpb.Election", "Leader"),
    ("/v3/election/observe", "v3electionpb.Election", "Observe"),
    ("/v3/election/resign", "v3electionpb.Election", "Resign"),
];

/// The routes and the messages that go over them.
pub struct Gateway {
    /// The messages.
    pub schema: Schema,
    /// In the order of the table.
    endpoints: Vec<Endpoint>,
    by_path: HashMap<&'static str, usize>,
}

/// What a path names.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `/v3/kv/range`.
    pub path: &'static str,
    /// `etcdserverpb.KV`.
    pub service: &'static str,
    /// `Range`.
    pub method: &'static str,
    /// The request's message, by its place in the schema.
    pub input: usize,
    /// The answer's.
    pub output: usize,
    /// Whether many requests may come.
    pub client_streams: bool,
    /// Whether many answers may come.
    pub server_streams: bool,
}

impl Gateway {
    /// All routes of the API.
    pub fn new() -> Gateway {
        let schema = Schema::of_the_api();
        let endpoints: Vec<Endpoint> =
            ROUTES.iter().map(|route| endpoint(&schema, route)).collect();
        let by_path = endpoints.iter().map(|e| e.path).zip(0..).collect();
        Gateway { schema, endpoints, by_path }
    }

    /// What this path names.
    pub fn endpoint(&self, path: &str) -> Option<&Endpoint> {
        self.by_path.get(path).map(|at| &self.endpoints[*at])
    }

    /// Every route.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Gateway::new()
    }
}

/// A route whose method is not in the descriptors is a fault of the table, which the tests find.
fn endpoint(
    schema: &Schema,
    &(path, service, name): &(&'static str, &'static str, &'static str),
) -> Endpoint {
    let mut methods = schema.methods.iter();
    let method = methods
        .find(|m| m.service == service && m.name == name)
        .unwrap_or_else(|| panic!("{path}: there is no {service}/{name}"));
    Endpoint {
        path,
        service,
        method: name,
        input: method.input,
        output: method.output,
        client_streams: method.client_streams,
        server_streams: method.server_streams,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range in chunks and the checks of health have no routes in etcd either.
    #[test]
    fn every_method_has_a_route() {
        let gateway = Gateway::new();
        for method in &gateway.schema.methods {
            let has_none = method.service.starts_with("grpc.") || method.name == "RangeStream";
            let routed = gateway
                .endpoints()
                .iter()
                .any(|e| e.service == method.service && e.method == method.name);
            assert_eq!(routed, !has_none, "{}/{}", method.service, method.name);
        }
        let watch = gateway.endpoint("/v3/watch").expect("is there");
        assert!(watch.client_streams && watch.server_streams);
        assert!(gateway.endpoint("/v3/nothing").is_none());
    }
}
