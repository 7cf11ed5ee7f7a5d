//! The methods that the port offers: path, number, kind. Not here: what they do.

use etch_rpc::Route;

use crate::metrics::Op;

/// How messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One in, one out.
    Unary,
    /// One in, many out.
    ServerStream,
    /// Many in, many out.
    BidiStream,
}

macro_rules! methods {
    ($($service:literal { $($name:ident $method:literal $kind:ident)* })*) => {
        /// A method of one of etcd's services.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Method {
            $($(#[doc = concat!("`/", $service, "/", $method, "`")] $name,)*)*
        }

        impl Method {
            /// Every method, in the order of their numbers.
            pub const ALL: &'static [Method] = &[$($(Method::$name,)*)*];

            /// The service, the method's name there, and how messages flow.
            pub const fn parts(self) -> (&'static str, &'static str, Kind) {
                match self {
                    $($(Method::$name => ($service, $method, Kind::$kind),)*)*
                }
            }
        }

        /// What a path names.
        pub fn route(path: &str) -> Route {
            match path {
                $($(concat!("/", $service, "/", $method) => kind(Method::$name),)*)*
                _ => unknown(path),
            }
        }

        impl Method {
            /// The method of this name of this service.
            pub fn named(service: &str, name: &str) -> Option<Method> {
                match (service, name) {
                    $($(($service, $method) => Some(Method::$name),)*)*
                    _ => None,
                }
            }
        }

        const SERVICES: &[&str] = &[$($service,)*];
    };
}

methods! {
    "etcdserverpb.KV" {
        Range "Range" Unary
        RangeStream "RangeStream" ServerStream
        Put "Put" Unary
        DeleteRange "DeleteRange" Unary
        Txn "Txn" Unary
        Compact "Compact" Unary
    }
    "etcdserverpb.Watch" {
        Watch "Watch" BidiStream
    }
    "etcdserverpb.Lease" {
        LeaseGrant "LeaseGrant" Unary
        LeaseRevoke "LeaseRevoke" Unary
        LeaseKeepAlive "LeaseKeepAlive" BidiStream
        LeaseTimeToLive "LeaseTimeToLive" Unary
        LeaseLeases "LeaseLeases" Unary
    }
    "etcdserverpb.Cluster" {
        MemberAdd "MemberAdd" Unary
        MemberRemove "MemberRemove" Unary
        MemberUpdate "MemberUpdate" Unary
        MemberList "MemberList" Unary
        MemberPromote "MemberPromote" Unary
    }
    "etcdserverpb.Maintenance" {
        Alarm "Alarm" Unary
        Status "Status" Unary
        Defragment "Defragment" Unary
        Hash "Hash" Unary
        HashKv "HashKV" Unary
        Snapshot "Snapshot" ServerStream
        MoveLeader "MoveLeader" Unary
        Downgrade "Downgrade" Unary
    }
    "etcdserverpb.Auth" {
        AuthEnable "AuthEnable" Unary
        AuthDisable "AuthDisable" Unary
        AuthStatus "AuthStatus" Unary
        Authenticate "Authenticate" Unary
        UserAdd "UserAdd" Unary
        UserGet "UserGet" Unary
        UserList "UserList" Unary
        UserDelete "UserDelete" Unary
        UserChangePassword "UserChangePassword" Unary
        UserGrantRole "UserGrantRole" Unary
        UserRevokeRole "UserRevokeRole" Unary
        RoleAdd "RoleAdd" Unary
        RoleGet "RoleGet" Unary
        RoleList "RoleList" Unary
        RoleDelete "RoleDelete" Unary
        RoleGrantPermission "RoleGrantPermission" Unary
        RoleRevokePermission "RoleRevokePermission" Unary
    }
    "v3lockpb.Lock" {
        Lock "Lock" Unary
        Unlock "Unlock" Unary
    }
    "v3electionpb.Election" {
        Campaign "Campaign" Unary
        Proclaim "Proclaim" Unary
        Leader "Leader" Unary
        Observe "Observe" ServerStream
        Resign "Resign" Unary
    }
    "grpc.health.v1.Health" {
        HealthCheck "Check" Unary
        HealthWatch "Watch" ServerStream
    }
}

fn kind(method: Method) -> Route {
    match method.parts().2 {
        Kind::Unary => Route::Unary(method as u16),
        Kind::ServerStream | Kind::BidiStream => Route::Stream(method as u16),
    }
}

fn unknown(path: &str) -> Route {
    let service =
        path.strip_prefix('/').and_then(|p| p.rsplit_once('/')).map(|(service, _)| service);
    match service {
        Some(service) if SERVICES.contains(&service) => Route::UnknownMethod,
        _ => Route::UnknownService,
    }
}

impl Method {
    /// What a call that goes through the log is counted as.
    pub fn op(self) -> Option<Op> {
        Some(match self {
            Method::Range => Op::Range,
            Method::Put => Op::Put,
            Method::DeleteRange => Op::DeleteRange,
            Method::Txn => Op::Txn,
            Method::Compact => Op::Compaction,
            Method::LeaseGrant => Op::LeaseGrant,
            Method::LeaseRevoke => Op::LeaseRevoke,
            Method::Alarm => Op::Alarm,
            Method::AuthEnable => Op::AuthEnable,
            Method::AuthDisable => Op::AuthDisable,
            Method::AuthStatus => Op::AuthStatus,
            Method::Authenticate => Op::Authenticate,
            Method::UserAdd => Op::AuthUserAdd,
            Method::UserGet => Op::AuthUserGet,
            Method::UserList => Op::AuthUserList,
            Method::UserDelete => Op::AuthUserDelete,
            Method::UserChangePassword => Op::AuthUserChangePassword,
            Method::UserGrantRole => Op::AuthUserGrantRole,
            Method::UserRevokeRole => Op::AuthUserRevokeRole,
            Method::RoleAdd => Op::AuthRoleAdd,
            Method::RoleGet => Op::AuthRoleGet,
            Method::RoleList => Op::AuthRoleList,
            Method::RoleDelete => Op::AuthRoleDelete,
            Method::RoleGrantPermission => Op::AuthRoleGrantPermission,
            Method::RoleRevokePermission => Op::AuthRoleRevokePermission,
            _ => return None,
        })
    }

    /// The method with this number, as [`route`] gave it out.
    pub fn from_number(number: u16) -> Method {
        Self::ALL[usize::from(number)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_numbers_agree() {
        for method in Method::ALL {
            let (service, name, flow) = method.parts();
            let want = match flow {
                Kind::Unary => Route::Unary(*method as u16),
                _ => Route::Stream(*method as u16),
            };
            assert_eq!(route(&format!("/{service}/{name}")), want);
            assert_eq!(Method::from_number(*method as u16), *method);
            assert_eq!(Method::named(service, name), Some(*method));
        }
        assert_eq!(route("/etcdserverpb.KV/Nothing"), Route::UnknownMethod);
        assert_eq!(route("/nobody.KV/Range"), Route::UnknownService);
        assert_eq!(route("nonsense"), Route::UnknownService);
    }
}
