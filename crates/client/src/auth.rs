//! Users, roles, and what roles may do.

use etch_api::pb::authpb;
pub use etch_api::pb::authpb::permission::Type as PermissionType;
use etch_api::pb::etcdserverpb as pb;

use crate::bytes::IntoBytes;
use crate::call::method::{
    AUTH_DISABLE, AUTH_ENABLE, AUTH_STATUS, AUTHENTICATE, ROLE_ADD, ROLE_DELETE, ROLE_GET,
    ROLE_GRANT_PERMISSION, ROLE_LIST, ROLE_REVOKE_PERMISSION, USER_ADD, USER_CHANGE_PASSWORD,
    USER_DELETE, USER_GET, USER_GRANT_ROLE, USER_LIST, USER_REVOKE_ROLE,
};
use crate::client::Client;
use crate::error::Result;

/// Keys that a role may do something with.
///
/// ```
/// use etch_client::KeySpan;
///
/// let all_of_a_team = KeySpan::prefix("team/");
/// assert_eq!(all_of_a_team.range_end, "team0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpan {
    /// The first key.
    pub key: bytes::Bytes,
    /// The end, as in a range request: empty for the one key, a zero byte for all that follow.
    pub range_end: bytes::Bytes,
}

impl KeySpan {
    /// One key.
    pub fn key(key: impl IntoBytes) -> KeySpan {
        KeySpan { key: key.into_bytes(), range_end: bytes::Bytes::new() }
    }

    /// From a key up to, and without, an end.
    pub fn range(key: impl IntoBytes, end: impl IntoBytes) -> KeySpan {
        KeySpan { key: key.into_bytes(), range_end: end.into_bytes() }
    }

    /// All keys that begin so.
    pub fn prefix(prefix: impl IntoBytes) -> KeySpan {
        let (key, range_end) = etch_api::KeyRange::prefix(prefix.into_bytes()).to_parts();
        KeySpan { key, range_end }
    }

    /// All keys from this one on.
    pub fn from_key(key: impl IntoBytes) -> KeySpan {
        KeySpan::range(key, "\0")
    }
}

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($($arg:ident),*) $method:ident $request:ident { $($field:ident: $value:expr),* } $response:ident;
    )*) => {
        $(
            $(#[$doc])*
            pub async fn $name(&self, $($arg: impl Into<String>),*) -> Result<pb::$response> {
                let request = pb::$request { $($field: $value),* };
                self.core.call(&self.options, &$method, request).await
            }
        )*
    };
}

/// Calls of the Auth service.
///
/// ```
/// use etch_client::{KeySpan, PermissionType};
///
/// # etch_doctest::run(async |client| {
/// client.role_add("readers").await?;
/// client.role_grant_permission("readers", KeySpan::prefix("public/"), PermissionType::Read).await?;
/// client.user_add("alice", "secret").await?;
/// client.user_grant_role("alice", "readers").await?;
/// # Ok(())
/// # });
/// ```
impl Client {
    calls! {
        /// Turns authentication on. There must be a user `root` with the role `root`.
        auth_enable() AUTH_ENABLE AuthEnableRequest {} AuthEnableResponse;
        /// Turns authentication off.
        auth_disable() AUTH_DISABLE AuthDisableRequest {} AuthDisableResponse;
        /// Whether it is on.
        auth_status() AUTH_STATUS AuthStatusRequest {} AuthStatusResponse;
        /// A token for a user. The client itself asks for its own: see [`crate::Config::user`].
        authenticate(name, password) AUTHENTICATE
            AuthenticateRequest { name: name.into(), password: password.into() } AuthenticateResponse;
        /// Adds a user with a password.
        user_add(name, password) USER_ADD AuthUserAddRequest {
            name: name.into(), password: password.into(),
            options: Some(authpb::UserAddOptions { no_password: false }), hashed_password: String::new()
        } AuthUserAddResponse;
        /// Adds a user that only a certificate can log in as.
        user_add_without_password(name) USER_ADD AuthUserAddRequest {
            name: name.into(), password: String::new(),
            options: Some(authpb::UserAddOptions { no_password: true }), hashed_password: String::new()
        } AuthUserAddResponse;
        /// The roles of a user.
        user_get(name) USER_GET AuthUserGetRequest { name: name.into() } AuthUserGetResponse;
        /// All users.
        user_list() USER_LIST AuthUserListRequest {} AuthUserListResponse;
        /// Deletes a user.
        user_delete(name) USER_DELETE AuthUserDeleteRequest { name: name.into() } AuthUserDeleteResponse;
        /// Gives a user another password.
        user_change_password(name, password) USER_CHANGE_PASSWORD AuthUserChangePasswordRequest {
            name: name.into(), password: password.into(), hashed_password: String::new()
        } AuthUserChangePasswordResponse;
        /// Gives a user a role.
        user_grant_role(user, role) USER_GRANT_ROLE
            AuthUserGrantRoleRequest { user: user.into(), role: role.into() } AuthUserGrantRoleResponse;
        /// Takes a role from a user.
        user_revoke_role(user, role) USER_REVOKE_ROLE
            AuthUserRevokeRoleRequest { name: user.into(), role: role.into() } AuthUserRevokeRoleResponse;
        /// Adds a role.
        role_add(name) ROLE_ADD AuthRoleAddRequest { name: name.into() } AuthRoleAddResponse;
        /// What a role may do.
        role_get(name) ROLE_GET AuthRoleGetRequest { role: name.into() } AuthRoleGetResponse;
        /// All roles.
        role_list() ROLE_LIST AuthRoleListRequest {} AuthRoleListResponse;
        /// Deletes a role.
        role_delete(name) ROLE_DELETE AuthRoleDeleteRequest { role: name.into() } AuthRoleDeleteResponse;
    }

    /// Lets a role do something with keys.
    pub async fn role_grant_permission(
        &self,
        role: impl Into<String>,
        keys: KeySpan,
        what: PermissionType,
    ) -> Result<pb::AuthRoleGrantPermissionResponse> {
        let perm =
            authpb::Permission { perm_type: what as i32, key: keys.key, range_end: keys.range_end };
        let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        self.core.call(&self.options, &ROLE_GRANT_PERMISSION, request).await
    }

    /// No longer lets a role do anything with these keys.
    pub async fn role_revoke_permission(
        &self,
        role: impl Into<String>,
        keys: KeySpan,
    ) -> Result<pb::AuthRoleRevokePermissionResponse> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: keys.key,
            range_end: keys.range_end,
        };
        self.core.call(&self.options, &ROLE_REVOKE_PERMISSION, request).await
    }
}
