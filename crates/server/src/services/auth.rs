//! `etcdserverpb.Auth`: users, roles and logins. All through the log; passwords are hashed or compared
//! before, on threads of their own, so that no password is ever in the log. Not here: what may be changed
//! (`etch_state::auth`).

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb as pb;
use etch_rpc::{CallInfo, Code, Status};
use etch_state::Reply;
use etch_state::auth::User;
use prost::{Message, Name};

use super::methods::Method;
use super::{decode, status};
use crate::auth::claim::Claim;
use crate::auth::jwt::BAD_OPTIONS;
use crate::auth::password::{PasswordError, Passwords};
use crate::auth::{TokenKind, token_prefix};
use crate::driver::clock::unix_ms;
use crate::net::Net;
use crate::{log_info, log_warn};

/// What etcd says where a user without a password gives one. It is in no table of its own.
const NO_PASSWORD_USER: &str =
    "auth: authentication failed, password was given for no password user";

fn refused(error: &PasswordError) -> Status {
    match error {
        PasswordError::Busy => status(Error::TooManyRequests),
        other => Status::new(Code::Unknown, other.to_string()),
    }
}

/// A method of the service, whole.
pub async fn call(
    net: &Rc<Net>,
    method: Method,
    call: &CallInfo,
    message: Bytes,
) -> Result<Reply, Status> {
    if method == Method::Authenticate {
        return authenticate(net, call, decode(&message)?).await;
    }
    let claim = Claim::of(net, call);
    let (kind, body, subject) = prepare(net, method, &claim, message).await?;
    let outcome = net.member.propose_as(&claim, kind, body).await;
    if let Some(subject) = subject {
        audit(net, call, &claim, method, &subject, outcome.as_ref().err().copied());
    }
    outcome.map_err(|error| match (kind, error) {
        // The only reason for which a change of a password fails like this is a hash that is none.
        (RequestKind::AuthUserChangePassword, Error::AuthFailed) => {
            Status::new(Code::Unknown, NO_PASSWORD_USER)
        }
        _ => status(error),
    })
}

/// What goes into the log for a method: the entry's kind, its body, and for our own log what it changes, if it
/// changes something.
type Entry = (RequestKind, Bytes, Option<String>);

async fn prepare(
    net: &Rc<Net>,
    method: Method,
    claim: &Claim,
    message: Bytes,
) -> Result<Entry, Status> {
    use RequestKind as K;
    match method {
        Method::AuthEnable => {
            checked::<pb::AuthEnableRequest>(K::AuthEnable, message, |_| subject(&[]))
        }
        Method::AuthDisable => {
            checked::<pb::AuthDisableRequest>(K::AuthDisable, message, |_| subject(&[]))
        }
        Method::AuthStatus => checked::<pb::AuthStatusRequest>(K::AuthStatus, message, |_| None),
        Method::UserAdd => {
            let (body, name) = add_user(net, claim, decode(&message)?).await?;
            Ok((K::AuthUserAdd, body, Some(name)))
        }
        Method::UserChangePassword => {
            let (body, name) = change_password(net, claim, decode(&message)?).await?;
            Ok((K::AuthUserChangePassword, body, Some(name)))
        }
        Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserGrantRole
        | Method::UserRevokeRole => user(method, message),
        _ => role(method, message),
    }
}

fn subject(names: &[&str]) -> Option<String> {
    Some(names.join(" "))
}

/// The methods about users for which no password is hashed.
fn user(method: Method, message: Bytes) -> Result<Entry, Status> {
    use RequestKind as K;
    match method {
        Method::UserGet => checked::<pb::AuthUserGetRequest>(K::AuthUserGet, message, |_| None),
        Method::UserList => checked::<pb::AuthUserListRequest>(K::AuthUserList, message, |_| None),
        Method::UserDelete => {
            checked::<pb::AuthUserDeleteRequest>(K::AuthUserDelete, message, |r| {
                subject(&[&r.name])
            })
        }
        Method::UserGrantRole => {
            checked::<pb::AuthUserGrantRoleRequest>(K::AuthUserGrantRole, message, |r| {
                subject(&[&r.user, &r.role])
            })
        }
        Method::UserRevokeRole => {
            checked::<pb::AuthUserRevokeRoleRequest>(K::AuthUserRevokeRole, message, |r| {
                subject(&[&r.name, &r.role])
            })
        }
        other => unreachable!("{other:?} is not about users"),
    }
}

/// The methods about roles.
fn role(method: Method, message: Bytes) -> Result<Entry, Status> {
    use RequestKind as K;
    match method {
        Method::RoleAdd => {
            checked::<pb::AuthRoleAddRequest>(K::AuthRoleAdd, message, |r| subject(&[&r.name]))
        }
        Method::RoleGet => checked::<pb::AuthRoleGetRequest>(K::AuthRoleGet, message, |_| None),
        Method::RoleList => checked::<pb::AuthRoleListRequest>(K::AuthRoleList, message, |_| None),
        Method::RoleDelete => {
            checked::<pb::AuthRoleDeleteRequest>(K::AuthRoleDelete, message, |r| {
                subject(&[&r.role])
            })
        }
        Method::RoleGrantPermission => checked::<pb::AuthRoleGrantPermissionRequest>(
            K::AuthRoleGrantPermission,
            message,
            |r| {
                let perm = r.perm.clone().unwrap_or_default();
                let range = format!("{:?} {:?}", perm.key, perm.range_end);
                subject(&[&r.name, perm.perm_type().as_str_name(), &range])
            },
        ),
        Method::RoleRevokePermission => checked::<pb::AuthRoleRevokePermissionRequest>(
            K::AuthRoleRevokePermission,
            message,
            |r| subject(&[&r.role, &format!("{:?} {:?}", r.key, r.range_end)]),
        ),
        other => unreachable!("{other:?} is no method of the auth service"),
    }
}

/// The client's own bytes, once they are seen to be a request.
fn checked<M: Message + Default + Name>(
    kind: RequestKind,
    message: Bytes,
    subject: impl FnOnce(&M) -> Option<String>,
) -> Result<Entry, Status> {
    let request = decode::<M>(&message)?;
    Ok((kind, message, subject(&request)))
}

/// A hash costs as much as a login: only who may add users gets one made. Apply checks once more.
async fn add_user(
    net: &Rc<Net>,
    claim: &Claim,
    mut request: pb::AuthUserAddRequest,
) -> Result<(Bytes, String), Status> {
    let password = std::mem::take(&mut request.password);
    let has_none = request.options.is_some_and(|options| options.no_password);
    if !has_none {
        Passwords::check_length(&password).map_err(|e| refused(&e))?;
    }
    claim.require_admin(net).map_err(status)?;
    if !has_none {
        let passwords = &net.member.guard.passwords;
        request.hashed_password = passwords.hash(password).await.map_err(|e| refused(&e))?;
    }
    Ok((request.encode_to_vec().into(), request.name))
}

async fn change_password(
    net: &Rc<Net>,
    claim: &Claim,
    mut request: pb::AuthUserChangePasswordRequest,
) -> Result<(Bytes, String), Status> {
    let password = std::mem::take(&mut request.password);
    Passwords::check_length(&password).map_err(|e| refused(&e))?;
    claim.require_admin(net).map_err(status)?;
    if !password.is_empty() {
        let passwords = &net.member.guard.passwords;
        request.hashed_password = passwords.hash(password).await.map_err(|e| refused(&e))?;
    }
    Ok((request.encode_to_vec().into(), request.name))
}

/// `Authenticate`. Where users change between the look at the password and the entry, it is done again.
async fn authenticate(
    net: &Rc<Net>,
    call: &CallInfo,
    request: pb::AuthenticateRequest,
) -> Result<Reply, Status> {
    let from = call.peer().remote.map(|address| address.ip());
    net.member.linearize().await.map_err(status)?;
    loop {
        let revision = check_password(net, from, &request).await?;
        let simple_token = match net.member.guard.tokens {
            TokenKind::Simple => token_prefix().map_err(|why| Status::new(Code::Unknown, why))?,
            TokenKind::Jwt(_) => String::new(),
            TokenKind::None => {
                return Err(Status::new(Code::Unknown, BAD_OPTIONS));
            }
        };
        let entry = pb::InternalAuthenticateRequest {
            name: request.name.clone(),
            password: String::new(),
            simple_token,
        };
        let body = entry.encode_to_vec().into();
        let done = net.member.propose(RequestKind::Authenticate, body).await.map_err(status)?;
        if revision == net.member.auth.revision() {
            return signed(net, &request.name, revision, done).await;
        }
        log_info!(net.member.log, "revision when password checked became stale; retrying");
    }
}

/// The answer to a login; where tokens are signed, with one that is made on another thread: a signature takes
/// long.
async fn signed(net: &Net, user: &str, revision: u64, done: Reply) -> Result<Reply, Status> {
    if !matches!(net.member.guard.tokens, TokenKind::Jwt(_)) {
        return Ok(done);
    }
    let (member, user) = (Arc::clone(&net.member), user.to_owned());
    let sign = move || match &member.guard.tokens {
        TokenKind::Jwt(jwt) => jwt.sign(&user, revision, unix_ms() as f64 / 1e3),
        _ => Err(BAD_OPTIONS.to_owned()),
    };
    let token = tokio::task::spawn_blocking(sign).await.unwrap_or_else(|e| Err(e.to_string()));
    let token = token.map_err(|why| Status::new(Code::Unknown, why))?;
    let body = pb::AuthenticateResponse { header: None, token }.encode_to_vec().into();
    Ok(Reply { body, ..done })
}

/// The auth revision at which the password was right.
async fn check_password(
    net: &Rc<Net>,
    from: Option<IpAddr>,
    request: &pb::AuthenticateRequest,
) -> Result<u64, Status> {
    let view = net.member.auth.view();
    if !view.is_enabled() {
        return Err(status(Error::AuthNotEnabled));
    }
    let user = view.user(&request.name);
    let failed = |why: &dyn std::fmt::Display| {
        let from = from.map_or_else(String::new, |ip| ip.to_string());
        log_warn!(net.member.log, "invalid authentication was requested", "user" => request.name, "remote" => from, "error" => why.to_string());
    };
    if user.is_some_and(User::has_no_password) {
        failed(&NO_PASSWORD_USER);
        return Err(Status::new(Code::Unknown, NO_PASSWORD_USER));
    }
    let hashed = user.map(|user| user.password_hash().to_vec());
    let (name, password) = (&request.name, request.password.clone());
    let now_ms = net.member.clock.now_ms();
    let passwords = &net.member.guard.passwords;
    match passwords.matches(name, from, password, hashed, now_ms).await {
        Ok(true) => Ok(view.revision()),
        Ok(false) => {
            failed(&Error::AuthFailed);
            Err(status(Error::AuthFailed))
        }
        Err(error) => {
            failed(&error);
            Err(refused(&error))
        }
    }
}

/// One line for each change of users and roles that was asked for: what, by whom, from where, and how it
/// ended.
fn audit(
    net: &Net,
    call: &CallInfo,
    claim: &Claim,
    method: Method,
    subject: &str,
    error: Option<Error>,
) {
    let by = claim.user().ok().flatten().map_or_else(String::new, |user| user.username.to_string());
    let from = call.peer().remote.map_or_else(String::new, |address| address.to_string());
    let result = error.map_or("done", |error| error.message());
    log_info!(net.member.log, "auth change", "method" => method.parts().1, "subject" => subject, "by" => by, "remote" => from, "result" => result);
}
