//! What a call says of its caller, and the questions that methods ask about it. While auth is off, each of
//! them costs one look at a flag. Not here: permissions themselves (`etch_state::auth`).

use std::sync::Arc;

use etch_api::Error;
use etch_rpc::CallInfo;
use etch_state::auth::{AuthInfo, View, Who};

use super::{TokenKind, fingerprint};
use crate::log_warn;
use crate::net::Net;

/// Who calls: a user, nobody, or somebody with a token that is worth nothing.
#[derive(Clone, Debug)]
pub struct Claim(Result<Option<AuthInfo>, Error>);

impl Claim {
    /// What this call's token says, or, where there is none, its connection's certificate.
    pub fn of(net: &Net, call: &CallInfo) -> Self {
        if !net.member.auth.is_enabled() {
            return Self(Ok(None));
        }
        Self(identify(net, call))
    }

    /// A caller who did not say who it is.
    pub fn nobody() -> Self {
        Self(Ok(None))
    }

    /// The user, if there is one.
    pub fn user(&self) -> Result<Option<&AuthInfo>, Error> {
        self.0.as_ref().map(Option::as_ref).map_err(|error| *error)
    }

    /// For what every user may do: there must be one.
    pub fn require_user(&self, net: &Net) -> Result<(), Error> {
        if !net.member.auth.is_enabled() || self.user()?.is_some() {
            return Ok(());
        }
        Err(Error::UserEmpty)
    }

    /// For what administrators may do.
    pub fn require_admin(&self, net: &Net) -> Result<(), Error> {
        self.require(net, View::check_admin)
    }

    /// For what a check of the newest permissions allows.
    pub fn require(
        &self,
        net: &Net,
        check: impl FnOnce(&View, Who<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !net.member.auth.is_enabled() {
            return Ok(());
        }
        let who = self.user()?.map(AuthInfo::who).unwrap_or_default();
        net.with_auth(|view| check(view, who))
    }

    /// After a read: it may have been under other permissions than those that were checked.
    pub fn still(&self, net: &Net) -> Result<(), Error> {
        match self.user()? {
            Some(user) if user.revision != 0 && user.revision != net.member.auth.revision() => {
                Err(Error::AuthOldRevision)
            }
            Some(_) => Ok(()),
            // Auth went on in between.
            None if net.member.auth.is_enabled() => Err(Error::UserEmpty),
            None => Ok(()),
        }
    }
}

fn identify(net: &Net, call: &CallInfo) -> Result<Option<AuthInfo>, Error> {
    let given = call.metadata("token").or_else(|| call.metadata("authorization"));
    let Some(given) = given else { return Ok(by_certificate(net, call)) };
    let token = std::str::from_utf8(given).unwrap_or_default();
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    match by_token(net, token) {
        Some(user) => Ok(Some(user)),
        None => {
            let fingerprint = fingerprint(token);
            log_warn!(net.member.log, "invalid auth token", "token-fingerprint" => fingerprint);
            Err(Error::InvalidAuthToken)
        }
    }
}

fn by_token(net: &Net, token: &str) -> Option<AuthInfo> {
    let auth = &net.member.auth;
    match &net.member.guard.tokens {
        TokenKind::Simple => {
            // The revision first: a permission that is lost in between makes it an old one.
            let revision = auth.revision();
            let username = auth.tokens().user(token, net.member.clock.now_ms())?;
            Some(AuthInfo { username, revision })
        }
        TokenKind::None => None,
    }
}

/// The name in the certificate that the connection was opened with. Calls that a gateway makes carry the
/// gateway's certificate, which says nothing of who is behind it.
fn by_certificate(net: &Net, call: &CallInfo) -> Option<AuthInfo> {
    let name = call.peer().common_name.as_deref()?;
    if !net.member.guard.certificates || call.metadata("grpcgateway-accept").is_some() {
        return None;
    }
    Some(AuthInfo { username: Arc::from(name), revision: net.member.auth.revision() })
}
