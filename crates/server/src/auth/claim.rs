//! What a call says of its caller, and the questions that methods ask about it. While auth is off, each of
//! them costs one look at a flag. Not here: permissions themselves (`etch_state::auth`).

use std::sync::Arc;
use std::time::Duration;

use etch_api::Error;
use etch_rpc::CallInfo;
use etch_state::auth::{AuthInfo, SimpleTokens, View, Who};

use super::{TokenKind, fingerprint};
use crate::driver::clock::unix_ms;
use crate::log_warn;
use crate::net::Net;
use crate::services::metadata::Metadata;

/// Who calls: a user, nobody, or somebody with a token that is worth nothing.
#[derive(Clone, Debug)]
pub struct Claim {
    user: Result<Option<AuthInfo>, Error>,
    /// Whether auth was on when the call was looked at.
    looked: bool,
}

impl Claim {
    /// What this call's token says, or, where there is none, its connection's certificate.
    pub fn of(net: &Net, call: &CallInfo) -> Self {
        if !net.member.auth.is_enabled() {
            return Self::nobody();
        }
        Self { user: identify(net, call), looked: true }
    }

    /// A caller who did not say who it is.
    pub fn nobody() -> Self {
        Self { user: Ok(None), looked: false }
    }

    /// The same user, by today's permissions: for what goes on after its call was allowed.
    pub fn renewed(&self, net: &Net) -> Self {
        let revision = net.member.auth.revision();
        let user = self.user.clone().map(|user| user.map(|user| AuthInfo { revision, ..user }));
        Self { user, ..*self }
    }

    /// The user, if there is one.
    pub fn user(&self) -> Result<Option<&AuthInfo>, Error> {
        self.user.as_ref().map(Option::as_ref).map_err(|error| *error)
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
            None if !self.looked && net.member.auth.is_enabled() => Err(Error::UserEmpty),
            None => Ok(()),
        }
    }
}

/// The index of a token that another member gave out and that has not come through here yet. Where we are the
/// only voter there is none.
pub fn ahead(net: &Net, call: &CallInfo) -> Option<u64> {
    let member = &net.member;
    let simple = matches!(member.guard.tokens, TokenKind::Simple);
    if !simple || !member.auth.is_enabled() || member.view.is_lone_leader() {
        return None;
    }
    SimpleTokens::waits_for(Metadata::of(call).token.as_deref()?)
        .filter(|index| *index > member.view.applied())
}

/// How often it is looked whether an index has come through, and how many times.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS: u32 = 1000;

/// Waits for the index of a token, but not for ever: anybody can write any number behind a dot.
pub async fn catch_up(net: &Net, index: u64) {
    for _ in 0..LOOKS {
        if net.member.view.applied() >= index {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn identify(net: &Net, call: &CallInfo) -> Result<Option<AuthInfo>, Error> {
    let Some(token) = &Metadata::of(call).token else {
        return Ok(by_certificate(net, call));
    };
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
        TokenKind::Jwt(jwt) => match net.verified.user(jwt, token, unix_ms() as f64 / 1e3) {
            Ok(user) => Some(user),
            Err(why) => {
                log_warn!(net.member.log, "failed to parse a JWT token", "error" => why);
                None
            }
        },
        TokenKind::None => None,
    }
}

/// The name in the certificate that the connection was opened with, where it stands for a user.
fn by_certificate(net: &Net, call: &CallInfo) -> Option<AuthInfo> {
    if !net.member.guard.certificates {
        return None;
    }
    let username = certified(call)?;
    Some(AuthInfo { username, revision: net.member.auth.revision() })
}

/// Whom a call's certificate names. Calls that a gateway makes come with the gateway's own certificate, which
/// says nothing of who is behind it.
fn certified(call: &CallInfo) -> Option<Arc<str>> {
    let name = call.peer().common_name.as_deref()?;
    (!Metadata::of(call).by_gateway).then(|| Arc::from(name))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use etch_rpc::Peer;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn call(headers: &[(&'static str, &'static str)], common_name: Option<&str>) -> CallInfo {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = pairs.collect();
        let peer = Peer { common_name: common_name.map(str::to_owned), ..Peer::default() };
        CallInfo::new(headers, Rc::new(peer), None)
    }

    #[test]
    fn a_certificate_names_a_user_but_not_through_a_gateway() {
        assert_eq!(certified(&call(&[], Some("ann"))).as_deref(), Some("ann"));
        assert_eq!(certified(&call(&[], None)), None);
        assert_eq!(certified(&call(&[("grpcgateway-accept", "*/*")], Some("gateway"))), None);
    }
}
