//! Auth's entries: who may ask for them, what they change, and what their callers are told. Not here: the
//! changes themselves (`manage`).

use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::authpb::{Permission, permission::Type};
use etch_api::pb::etcdserverpb as pb;
use prost::Message;

use super::manage::{Changed, Editor};
use super::{ROOT, View, Who};
use crate::apply::{Applying, Effect, Outcome, decode};

/// Whether an entry of this kind may change who may do what.
pub(crate) fn changes_auth(kind: RequestKind) -> bool {
    use RequestKind as K;
    matches!(
        kind,
        K::AuthEnable
            | K::AuthDisable
            | K::AuthUserAdd
            | K::AuthUserDelete
            | K::AuthUserChangePassword
            | K::AuthUserGrantRole
            | K::AuthUserRevokeRole
            | K::AuthRoleAdd
            | K::AuthRoleDelete
            | K::AuthRoleGrantPermission
            | K::AuthRoleRevokePermission
    )
}

impl Applying<'_> {
    /// Applies an entry of the auth service.
    pub(crate) fn auth_entry(
        &mut self,
        kind: RequestKind,
        body: &Bytes,
        who: Who<'_>,
        index: u64,
    ) -> Outcome {
        if changes_auth(kind) {
            self.auth.check_admin(who)?;
            self.change_auth(kind, body)?;
            return Ok((self.reply(Bytes::new()), Effect::None));
        }
        let body = match kind {
            RequestKind::AuthStatus => self.auth_status(),
            RequestKind::Authenticate => self.authenticate(&decode(body), index)?,
            RequestKind::AuthUserGet => user_get(&self.auth, who, &decode(body))?,
            RequestKind::AuthRoleGet => role_get(&self.auth, who, &decode(body))?,
            RequestKind::AuthUserList => {
                self.auth.check_admin(who)?;
                let users = self.auth.user_names().map(str::to_owned).collect();
                pb::AuthUserListResponse { header: None, users }.encode_to_vec()
            }
            RequestKind::AuthRoleList => {
                self.auth.check_admin(who)?;
                let roles = self.auth.role_names().map(str::to_owned).collect();
                pb::AuthRoleListResponse { header: None, roles }.encode_to_vec()
            }
            other => unreachable!("{other:?} is no entry of the auth service"),
        };
        Ok((self.reply(body.into()), Effect::None))
    }

    /// A change is published at once: what was applied before it is published already.
    fn change_auth(&mut self, kind: RequestKind, body: &Bytes) -> Result<(), Error> {
        let view = View::clone(&self.auth);
        let mut editor = Editor { view, batch: self.batch.pending_mut() };
        let mut ended_user = None;
        let changed = match kind {
            RequestKind::AuthEnable => editor.enable(),
            RequestKind::AuthDisable => editor.disable(),
            RequestKind::AuthUserAdd => editor.add_user(&decode(body)),
            RequestKind::AuthUserDelete => {
                let request: pb::AuthUserDeleteRequest = decode(body);
                let changed = editor.delete_user(&request);
                ended_user = Some(request.name);
                changed
            }
            RequestKind::AuthUserChangePassword => {
                let request: pb::AuthUserChangePasswordRequest = decode(body);
                let changed = editor.change_password(&request);
                ended_user = Some(request.name);
                changed
            }
            RequestKind::AuthUserGrantRole => editor.grant_role(&decode(body)),
            RequestKind::AuthUserRevokeRole => editor.revoke_role(&decode(body)),
            RequestKind::AuthRoleAdd => editor.add_role(&decode(body)),
            RequestKind::AuthRoleDelete => editor.delete_role(&decode(body)),
            RequestKind::AuthRoleGrantPermission => editor.grant_permission(&decode(body)),
            RequestKind::AuthRoleRevokePermission => editor.revoke_permission(&decode(body)),
            other => unreachable!("{other:?} changes nothing of auth"),
        };
        let view = editor.view;
        self.take_auth(changed, view, ended_user.as_deref())
    }

    fn take_auth(
        &mut self,
        changed: Changed,
        view: View,
        ended_user: Option<&str>,
    ) -> Result<(), Error> {
        if !changed? {
            return Ok(());
        }
        self.auth = Arc::new(view);
        let auth = &self.tables.auth;
        // Old tokens end before anybody can read by the new view.
        auth.tokens.switch(self.auth.is_enabled());
        if let Some(user) = ended_user {
            auth.tokens.drop_user(user);
        }
        auth.publish(Arc::clone(&self.auth));
        Ok(())
    }

    fn auth_status(&self) -> Vec<u8> {
        let (enabled, auth_revision) = (self.auth.is_enabled(), self.auth.revision());
        pb::AuthStatusResponse { header: None, enabled, auth_revision }.encode_to_vec()
    }

    /// The password was checked before the entry was proposed; what may have changed since is checked here.
    /// Without the beginning of a token none is kept: then tokens are signed, and need no memory.
    fn authenticate(
        &self,
        request: &pb::InternalAuthenticateRequest,
        index: u64,
    ) -> Result<Vec<u8>, Error> {
        if !self.auth.is_enabled() {
            return Err(Error::AuthNotEnabled);
        }
        let user = self.auth.user(&request.name).ok_or(Error::AuthFailed)?;
        if user.has_no_password() {
            return Err(Error::AuthFailed);
        }
        let token = match &*request.simple_token {
            "" => String::new(),
            prefix => self.tables.auth.tokens.assign(prefix, index, &request.name),
        };
        Ok(pb::AuthenticateResponse { header: None, token }.encode_to_vec())
    }
}

/// A user's roles: for an administrator, and for the user itself.
fn user_get(view: &View, who: Who<'_>, request: &pb::AuthUserGetRequest) -> Result<Vec<u8>, Error> {
    view.check_admin(who)
        .or_else(|e| if request.name == who.username { Ok(()) } else { Err(e) })?;
    let user = view.user(&request.name).ok_or(Error::UserNotFound)?;
    let roles = user.roles().to_vec();
    Ok(pb::AuthUserGetResponse { header: None, roles }.encode_to_vec())
}

/// A role's permissions: for an administrator, and for those who have the role.
fn role_get(view: &View, who: Who<'_>, request: &pb::AuthRoleGetRequest) -> Result<Vec<u8>, Error> {
    view.check_admin(who).or_else(|e| {
        let has_it = view.user(who.username).is_some_and(|user| user.has_role(&request.role));
        if has_it { Ok(()) } else { Err(e) }
    })?;
    let role = view.roles.get(&*request.role).ok_or(Error::RoleNotFound)?;
    let perm = if request.role == ROOT {
        let range_end = Bytes::from_static(b"\0");
        vec![Permission { perm_type: Type::Readwrite.into(), key: Bytes::new(), range_end }]
    } else {
        role.key_permission.clone()
    };
    Ok(pb::AuthRoleGetResponse { header: None, perm }.encode_to_vec())
}
