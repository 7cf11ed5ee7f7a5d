//! Changes of users, roles and permissions, one function a request. Each checks first and then changes: one
//! that fails leaves everything as it was. Not here: who may ask for them (`apply`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::authpb::{Permission, Role, User, UserAddOptions};
use etch_api::pb::etcdserverpb as pb;
use etch_disk::backend::{Batch, Bucket};

use super::ranges::is_grantable;
use super::view::ENABLED;
use super::{ROOT, View};

/// Whether anything came to be another.
pub(super) type Changed = Result<bool, Error>;

/// A view being changed, and where its rows go.
pub(super) struct Editor<'a> {
    pub view: View,
    pub batch: &'a mut Batch,
}

impl Editor<'_> {
    /// Auth goes on. There must be a root to manage it.
    pub fn enable(&mut self) -> Changed {
        if self.view.enabled {
            return Ok(false);
        }
        let root = self.view.user(ROOT).ok_or(Error::RootUserNotExist)?;
        if !root.has_role(ROOT) {
            return Err(Error::RootRoleNotExist);
        }
        self.set_enabled(true);
        Ok(true)
    }

    /// Auth goes off.
    pub fn disable(&mut self) -> Changed {
        if !self.view.enabled {
            return Ok(false);
        }
        self.set_enabled(false);
        self.count();
        Ok(true)
    }

    fn set_enabled(&mut self, enabled: bool) {
        self.view.enabled = enabled;
        self.batch.put(Bucket::Auth, ENABLED, Bytes::copy_from_slice(&[u8::from(enabled)]));
    }

    fn count(&mut self) {
        self.view.count_change(self.batch);
    }

    fn row(&self, user: &str) -> Result<User, Error> {
        self.view.user(user).map(|user| user.row.clone()).ok_or(Error::UserNotFound)
    }

    fn set_user(&mut self, row: User) -> Changed {
        self.view.set_user(row, self.batch);
        self.count();
        Ok(true)
    }

    /// A new user.
    pub fn add_user(&mut self, request: &pb::AuthUserAddRequest) -> Changed {
        if request.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        check_length(&request.name)?;
        if self.view.user(&request.name).is_some() {
            return Err(Error::UserAlreadyExist);
        }
        let options = request.options.unwrap_or(UserAddOptions { no_password: false });
        let password =
            if options.no_password { Bytes::new() } else { decode_hash(&request.hashed_password)? };
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        self.set_user(User { name, password, roles: Vec::new(), options: Some(options) })
    }

    /// A user goes.
    pub fn delete_user(&mut self, request: &pb::AuthUserDeleteRequest) -> Changed {
        if self.view.enabled && request.name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.view.users.remove(&*request.name).ok_or(Error::UserNotFound)?;
        self.batch.delete(Bucket::AuthUsers, request.name.as_bytes());
        self.count();
        Ok(true)
    }

    /// Another password.
    pub fn change_password(&mut self, request: &pb::AuthUserChangePasswordRequest) -> Changed {
        let mut row = self.row(&request.name)?;
        let has_none = row.options.is_some_and(|options| options.no_password);
        row.password = if has_none { Bytes::new() } else { decode_hash(&request.hashed_password)? };
        self.set_user(row)
    }

    /// A user gets a role. The role `root` need not exist.
    pub fn grant_role(&mut self, request: &pb::AuthUserGrantRoleRequest) -> Changed {
        let mut row = self.row(&request.user)?;
        if request.role != ROOT && !self.view.roles.contains_key(&*request.role) {
            return Err(Error::RoleNotFound);
        }
        match row.roles.binary_search(&request.role) {
            Ok(_) => Ok(false),
            Err(at) => {
                row.roles.insert(at, request.role.clone());
                self.set_user(row)
            }
        }
    }

    /// A user loses a role.
    pub fn revoke_role(&mut self, request: &pb::AuthUserRevokeRoleRequest) -> Changed {
        if self.view.enabled && request.name == ROOT && request.role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut row = self.row(&request.name)?;
        if !lose(&mut row.roles, &request.role) {
            return Err(Error::RoleNotGranted);
        }
        self.set_user(row)
    }

    /// A new role, without permissions.
    pub fn add_role(&mut self, request: &pb::AuthRoleAddRequest) -> Changed {
        if request.name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        check_length(&request.name)?;
        if self.view.roles.contains_key(&*request.name) {
            return Err(Error::RoleAlreadyExist);
        }
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        self.set_role(Role { name, key_permission: Vec::new() })
    }

    /// A role goes, and everybody who has it loses it.
    pub fn delete_role(&mut self, request: &pb::AuthRoleDeleteRequest) -> Changed {
        if self.view.enabled && request.role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.view.roles.remove(&*request.role).ok_or(Error::RoleNotFound)?;
        self.batch.delete(Bucket::AuthRoles, request.role.as_bytes());
        let users: Vec<_> = self.view.users.values().map(Arc::clone).collect();
        for user in users.iter().filter(|user| user.has_role(&request.role)) {
            let mut row = user.row.clone();
            lose(&mut row.roles, &request.role);
            self.view.set_user(row, self.batch);
        }
        self.count();
        Ok(true)
    }

    /// A role gets a permission; one on the same range is replaced.
    pub fn grant_permission(&mut self, request: &pb::AuthRoleGrantPermissionRequest) -> Changed {
        let wanted = request.perm.as_ref().ok_or(Error::PermissionNotGiven)?;
        if !is_grantable(&wanted.key, &wanted.range_end) {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut row = self.role(&request.name)?;
        // Only the first of a key is looked at, as in etcd: rows that it wrote are changed as it would.
        let at = row.key_permission.partition_point(|p| p.key < wanted.key);
        match row.key_permission.get_mut(at) {
            Some(p) if p.key == wanted.key && p.range_end == wanted.range_end => {
                p.perm_type = wanted.perm_type;
            }
            _ => {
                let behind = row.key_permission.partition_point(|p| p.key <= wanted.key);
                row.key_permission.insert(behind, wanted.clone());
            }
        }
        self.set_role(row)
    }

    /// A role loses its permission on a range.
    pub fn revoke_permission(&mut self, request: &pb::AuthRoleRevokePermissionRequest) -> Changed {
        let mut row = self.role(&request.role)?;
        let before = row.key_permission.len();
        let is_it = |p: &Permission| p.key == request.key && p.range_end == request.range_end;
        row.key_permission.retain(|p| !is_it(p));
        if row.key_permission.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        self.set_role(row)
    }

    fn role(&self, name: &str) -> Result<Role, Error> {
        self.view.roles.get(name).map(|role| Role::clone(role)).ok_or(Error::RoleNotFound)
    }

    fn set_role(&mut self, row: Role) -> Changed {
        self.view.set_role(row, self.batch);
        self.count();
        Ok(true)
    }
}

fn lose(roles: &mut Vec<String>, role: &str) -> bool {
    let before = roles.len();
    roles.retain(|r| r != role);
    roles.len() != before
}

/// The longest name that can be a key of the file. etcd ends where it is given a longer one.
const NAME_MAX: usize = 32_768;

fn check_length(name: &str) -> Result<(), Error> {
    if name.len() > NAME_MAX { Err(Error::InvalidAuthMgmt) } else { Ok(()) }
}

/// A password's hash as it comes through the log. What members of before 3.5 proposed, the password itself,
/// cannot come: the data of those must have passed through a release that hashes.
fn decode_hash(hashed: &str) -> Result<Bytes, Error> {
    STANDARD.decode(hashed).map(Bytes::from).map_err(|_| Error::AuthFailed)
}
