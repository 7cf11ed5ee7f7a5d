//! A server that has users, and who its loads are. Not here: the loads (`rows`).

use etch_api::pb::authpb::{self, permission};
use etch_api::pb::etcdserverpb as pb;

use crate::call;
use crate::requests;
use crate::server::Server;

/// The method that logs somebody in.
pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// Who may read and write all keys of the loads, and does.
const NAME: &str = "ann";
const PASSWORD: &str = "a password of some letters";

/// What logs that user in.
pub fn login() -> pb::AuthenticateRequest {
    pb::AuthenticateRequest { name: NAME.into(), password: PASSWORD.into() }
}

/// Makes users, turns auth on, and logs one of them in. Returns the token.
pub fn begin(server: &Server) -> Result<String, String> {
    let to = server.addr();
    let add = |name: &str| {
        let request = pb::AuthUserAddRequest {
            name: name.into(),
            password: PASSWORD.into(),
            ..Default::default()
        };
        call::unary::<pb::AuthUserAddResponse>(to, "/etcdserverpb.Auth/UserAdd", &request)
    };
    let grant = |user: &str, role: &str| {
        let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        let path = "/etcdserverpb.Auth/UserGrantRole";
        call::unary::<pb::AuthUserGrantRoleResponse>(to, path, &request)
    };
    add("root")?;
    grant("root", "root")?;
    add(NAME)?;
    let request = pb::AuthRoleAddRequest { name: "loads".into() };
    call::unary::<pb::AuthRoleAddResponse>(to, "/etcdserverpb.Auth/RoleAdd", &request)?;
    let request = pb::AuthRoleGrantPermissionRequest {
        name: "loads".into(),
        perm: Some(authpb::Permission {
            perm_type: permission::Type::Readwrite.into(),
            key: requests::key_of(0).into(),
            range_end: requests::end().into(),
        }),
    };
    let path = "/etcdserverpb.Auth/RoleGrantPermission";
    call::unary::<pb::AuthRoleGrantPermissionResponse>(to, path, &request)?;
    grant(NAME, "loads")?;
    let request = pb::AuthEnableRequest {};
    call::unary::<pb::AuthEnableResponse>(to, "/etcdserverpb.Auth/AuthEnable", &request)?;
    call::unary::<pb::AuthenticateResponse>(to, AUTHENTICATE, &login()).map(|told| told.token)
}
