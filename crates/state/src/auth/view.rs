//! Users, roles and permissions as they stand at one revision, and what they say of a caller. A view never
//! changes once it is published. Not here: what a request needs (`check`), and changes (`manage`).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::pb::authpb;
use etch_api::pb::authpb::permission::Type;
use etch_disk::backend::{Batch, Bucket, Snapshot};
use etch_disk::mutants::{self, Mutant};
use prost::Message;

use super::ranges::Ranges;
use super::{ROOT, Who};

pub(super) const ENABLED: &[u8] = b"authEnabled";
pub(super) const REVISION: &[u8] = b"authRevision";

/// What a caller wants to do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See them.
    Read,
    /// Change them.
    Write,
}

/// What a user's roles grant together.
#[derive(Clone, Debug, Default)]
struct Granted {
    read: Ranges,
    write: Ranges,
}

/// A user and what it may do.
#[derive(Clone)]
pub struct User {
    pub(super) row: authpb::User,
    granted: Granted,
}

/// The hash of a password is nobody's to see, either.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.row.name)
            .field("roles", &self.row.roles)
            .finish()
    }
}

impl User {
    /// The bcrypt hash of its password.
    pub fn password_hash(&self) -> &[u8] {
        &self.row.password
    }

    /// True if it has no password, and logs in by a certificate alone.
    pub fn has_no_password(&self) -> bool {
        self.row.options.as_ref().is_some_and(|options| options.no_password)
    }

    /// Its roles, in order.
    pub fn roles(&self) -> &[String] {
        &self.row.roles
    }

    /// Whether it has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.row.roles.iter().any(|r| r == role)
    }
}

/// The auth store at one revision.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(super) enabled: bool,
    pub(super) revision: u64,
    pub(super) users: BTreeMap<Box<str>, Arc<User>>,
    pub(super) roles: BTreeMap<Box<str>, Arc<authpb::Role>>,
}

fn damaged(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn name(key: &[u8], what: &str) -> io::Result<Box<str>> {
    let name =
        std::str::from_utf8(key).map_err(|_| damaged(format!("a {what}'s name is no text")))?;
    Ok(name.into())
}

impl View {
    /// What the committed file holds, in place of `before`.
    pub(super) fn load(snapshot: &Snapshot, before: &View) -> io::Result<Self> {
        let mut view = Self {
            enabled: snapshot.get(Bucket::Auth, ENABLED)?.is_some_and(|v| v == [1]),
            ..Self::default()
        };
        if let Some(value) = snapshot.get(Bucket::Auth, REVISION)? {
            let bytes = value.try_into();
            view.revision = bytes
                .map(u64::from_be_bytes)
                .map_err(|_| damaged("the auth revision is not a number".to_owned()))?;
        }
        let mut rows = snapshot.cursor(Bucket::AuthRoles)?;
        while let Some((key, value)) = rows.next()? {
            let row =
                authpb::Role::decode(value).map_err(|e| damaged(format!("a role's row: {e}")))?;
            view.roles.insert(name(key, "role")?, Arc::new(row));
        }
        let mut rows = snapshot.cursor(Bucket::AuthUsers)?;
        while let Some((key, value)) = rows.next()? {
            let row =
                authpb::User::decode(value).map_err(|e| damaged(format!("a user's row: {e}")))?;
            let name = name(key, "user")?;
            let granted = match before.users.get(&name) {
                Some(old) if mutants::on(Mutant::I14571) => old.granted.clone(),
                _ => Granted::default(),
            };
            view.users.insert(name, Arc::new(User { row, granted }));
        }
        let forgets = if before.users.is_empty() { Mutant::I14355 } else { Mutant::I14571 };
        if !mutants::on(forgets) {
            view.merge_permissions();
        }
        Ok(view)
    }

    /// Writes the first revision of a store that has none. True if it did.
    pub(super) fn begin(&mut self, batch: &mut Batch) -> bool {
        let is_new = self.revision == 0;
        if is_new {
            self.count_change(batch);
        }
        is_new
    }

    /// The next revision.
    pub(super) fn count_change(&mut self, batch: &mut Batch) {
        self.revision += 1;
        let bytes = Bytes::copy_from_slice(&self.revision.to_be_bytes());
        batch.put(Bucket::Auth, REVISION, bytes);
    }

    /// Works out anew what each user's roles grant.
    pub(super) fn merge_permissions(&mut self) {
        let Self { users, roles, .. } = self;
        for user in users.values_mut() {
            let granted = granted(&user.row.roles, roles);
            Arc::make_mut(user).granted = granted;
        }
    }

    /// Works out what a user's row grants, and puts the user in its place.
    pub(super) fn set_user(&mut self, row: authpb::User, batch: &mut Batch) {
        let name = String::from_utf8_lossy(&row.name).into_owned().into_boxed_str();
        let value = Bytes::from(row.encode_to_vec());
        batch.put(Bucket::AuthUsers, row.name.clone(), value);
        let granted = granted(&row.roles, &self.roles);
        self.users.insert(name, Arc::new(User { row, granted }));
    }

    /// Puts a role in its place, and what it grants with everybody who has it.
    pub(super) fn set_role(&mut self, row: authpb::Role, batch: &mut Batch) {
        let name = String::from_utf8_lossy(&row.name).into_owned().into_boxed_str();
        batch.put(Bucket::AuthRoles, row.name.clone(), Bytes::from(row.encode_to_vec()));
        self.roles.insert(name.clone(), Arc::new(row));
        let Self { users, roles, .. } = self;
        for user in users.values_mut().filter(|user| user.has_role(&name)) {
            let granted = granted(&user.row.roles, roles);
            Arc::make_mut(user).granted = granted;
        }
    }

    /// Whether callers are checked at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The revision: it grows with every change of users, roles and permissions.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }

    /// All users' names, in order.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(|name| &**name)
    }

    /// All roles' names, in order.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(|name| &**name)
    }

    /// Whether the caller is an administrator: has the role `root`.
    pub fn check_admin(&self, who: Who<'_>) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if who.username.is_empty() {
            return Err(Error::UserEmpty);
        }
        let user = self.user(who.username).ok_or(Error::UserNotFound)?;
        if user.has_role(ROOT) { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    /// Whether the caller may do this with all keys of a range.
    pub(super) fn check(
        &self,
        who: Who<'_>,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if who.revision == 0 {
            return Err(Error::UserEmpty);
        }
        if who.revision < self.revision {
            return Err(Error::AuthOldRevision);
        }
        let user = self.user(who.username).ok_or(Error::PermissionDenied)?;
        let granted = match access {
            Access::Read => &user.granted.read,
            Access::Write => &user.granted.write,
        };
        if user.has_role(ROOT) || granted.cover(key, range_end) {
            return Ok(());
        }
        Err(Error::PermissionDenied)
    }
}

fn granted(names: &[String], roles: &BTreeMap<Box<str>, Arc<authpb::Role>>) -> Granted {
    let permissions: Vec<&authpb::Permission> = names
        .iter()
        .filter_map(|name| roles.get(&**name))
        .flat_map(|r| &r.key_permission)
        .collect();
    let of = |wanted: Type| {
        let has = move |p: &&&authpb::Permission| {
            Type::try_from(p.perm_type).is_ok_and(|t| t == wanted || t == Type::Readwrite)
        };
        Ranges::merge(permissions.iter().filter(has).map(|p| (&p.key, &p.range_end)))
    };
    Granted { read: of(Type::Read), write: of(Type::Write) }
}
