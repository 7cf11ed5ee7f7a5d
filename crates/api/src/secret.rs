//! How messages with a password or a token are shown where values are printed: without it. Not here: who
//! prints them.

use std::fmt;

use crate::internal::InternalEntry;
use crate::pb::authpb::User;
use crate::pb::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
    InternalAuthenticateRequest,
};

/// Stands for what is not shown; says no more than whether there is something.
struct Hidden(bool);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "<hidden>" } else { "<empty>" })
    }
}

macro_rules! hidden {
    ($($message:ident { $($shown:ident),* ; $($secret:ident),* })*) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($secret), &Hidden(!self.$secret.is_empty())))*
                    .finish()
            }
        })*
    };
}

hidden! {
    User { name, roles, options; password }
    AuthenticateRequest { name; password }
    AuthenticateResponse { header; token }
    AuthUserAddRequest { name, options; password, hashed_password }
    AuthUserChangePasswordRequest { name; password, hashed_password }
    InternalAuthenticateRequest { name; password, simple_token }
}

/// Without the body, which may hold any of them.
impl fmt::Debug for InternalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalEntry")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("auth_revision", &self.auth_revision)
            .field("kind", &self.kind)
            .field("body_len", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::InternalRaftRequest;

    #[test]
    fn secrets_are_not_shown_however_deep_they_are() {
        let add = AuthUserAddRequest {
            name: "ann".into(),
            password: "s3cret".into(),
            hashed_password: "s3cret".into(),
            options: None,
        };
        let change = AuthUserChangePasswordRequest {
            name: "ann".into(),
            password: "s3cret".into(),
            hashed_password: "s3cret".into(),
        };
        let login = InternalAuthenticateRequest {
            name: "ann".into(),
            password: "s3cret".into(),
            simple_token: "s3cret".into(),
        };
        let entry = InternalRaftRequest {
            auth_user_add: Some(add),
            auth_user_change_password: Some(change),
            authenticate: Some(login),
            ..InternalRaftRequest::default()
        };
        let ask = AuthenticateRequest { name: "ann".into(), password: "s3cret".into() };
        let answer = AuthenticateResponse { token: "s3cret".into(), ..Default::default() };
        let user = User { name: "ann".into(), password: "s3cret".into(), ..User::default() };
        let raw = crate::internal::InternalEntry { body: "s3cret".into(), ..Default::default() };
        let shown = format!("{entry:?} {raw:?} {ask:?} {answer:?} {user:?}");
        assert!(!shown.contains("s3cret") && shown.matches("ann").count() == 5, "{shown}");
        // Bytes print as numbers in some messages: those are not there, either.
        assert!(!shown.contains("115, 51"), "{shown}");
    }
}
