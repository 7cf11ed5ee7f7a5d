//! Auth's entries from the log on: what they change, who may ask, and that replay and snapshots bring the
//! same.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::{Header, RequestKind as K, encode_entry_from};
use etch_api::pb::authpb::{Permission, UserAddOptions, permission::Type};
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::etcdserverpb::request_op::Request;
use etch_disk::backend::{Backend, Bolt, Options};
use etch_disk::fs::{Disk, MemDisk};
use prost::Message;

use super::*;
use crate::lease::LessorConfig;
use crate::watch::{Doorbell, StreamConfig, StreamState, Wake};
use crate::{Reply, State, StateConfig};

/// A member's state, fed with entries.
struct World {
    disk: Arc<MemDisk>,
    backend: Arc<Bolt>,
    state: State,
    /// The log: what a restart replays.
    log: Vec<Bytes>,
}

fn open(disk: &Arc<MemDisk>) -> (Arc<Bolt>, State) {
    let files = Arc::clone(disk) as Arc<dyn Disk>;
    let backend =
        Bolt::open(files, Path::new("/db"), Options::default()).expect("a file in memory");
    let config =
        StateConfig { quota_bytes: 0, leases: LessorConfig::default(), persist_checkpoints: false };
    let state =
        State::open(Arc::clone(&backend) as Arc<dyn Backend>, &config).expect("a sound file");
    (backend, state)
}

impl World {
    fn new() -> Self {
        let disk = Arc::new(MemDisk::new());
        let (backend, state) = open(&disk);
        Self { disk, backend, state, log: Vec::new() }
    }

    /// With root, whose role is root, and auth on.
    fn enabled() -> Self {
        let mut world = Self::new();
        world.add_user("root");
        world.by("", K::AuthRoleAdd, &pb::AuthRoleAddRequest { name: "root".into() }).unwrap();
        world.grant_role("root", "root");
        world.by("", K::AuthEnable, &pb::AuthEnableRequest {}).unwrap();
        world
    }

    fn apply_from(&mut self) -> Vec<Result<Reply, Error>> {
        let mut done = Vec::new();
        let from = self.state.index();
        let skip = usize::try_from(from).unwrap();
        let entries =
            self.log.iter().enumerate().skip(skip).map(|(i, data)| (i as u64 + 1, 2, data));
        self.state.apply(entries, &mut done);
        done.into_iter().map(|done| done.result).collect()
    }

    /// One entry by a user who was identified just now; by nobody for the empty name.
    fn by(&mut self, user: &str, kind: K, body: &impl Message) -> Result<Reply, Error> {
        let revision = if user.is_empty() { 0 } else { self.state.auth().revision() };
        self.at(user, revision, kind, body)
    }

    fn at(
        &mut self,
        user: &str,
        revision: u64,
        kind: K,
        body: &impl Message,
    ) -> Result<Reply, Error> {
        let header = Header { id: 9, username: user, auth_revision: revision };
        self.log.push(encode_entry_from(&header, kind, &body.encode_to_vec()));
        self.apply_from().pop().unwrap()
    }

    fn add_user(&mut self, name: &str) {
        let request = pb::AuthUserAddRequest {
            name: name.into(),
            hashed_password: "aGFzaA==".into(),
            ..Default::default()
        };
        self.by("root", K::AuthUserAdd, &request).unwrap();
    }

    fn grant_role(&mut self, user: &str, role: &str) {
        let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        self.by("root", K::AuthUserGrantRole, &request).unwrap();
    }

    /// A user with a role of its own that grants these.
    fn user_with(&mut self, name: &str, grants: &[(Type, &str, &str)]) {
        self.add_user(name);
        self.by("root", K::AuthRoleAdd, &pb::AuthRoleAddRequest { name: name.into() }).unwrap();
        for (perm, key, end) in grants {
            self.grant(name, *perm, key, end).unwrap();
        }
        self.grant_role(name, name);
    }

    fn grant(&mut self, role: &str, perm: Type, key: &str, end: &str) -> Result<Reply, Error> {
        let perm = Permission {
            perm_type: perm.into(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(end.as_bytes()),
        };
        let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        self.by("root", K::AuthRoleGrantPermission, &request)
    }

    fn commit(&mut self) {
        let (mut batch, revision) = self.state.take_commit();
        self.backend.commit(&mut batch).unwrap();
        self.state.committed(revision);
    }

    /// What the file holds comes back; what it does not is applied again.
    fn restart(&mut self) {
        let World { disk, log, .. } = std::mem::replace(self, World::new());
        let (backend, state) = open(&disk);
        *self = World { disk, backend, state, log };
        self.apply_from();
    }

    fn shown(&self) -> String {
        format!("{:?}", self.state.auth().view())
    }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

fn txn(op: Request) -> pb::TxnRequest {
    pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() }
}

fn denied<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::PermissionDenied))
}

#[test]
fn a_new_store_is_at_revision_one_and_says_so_in_the_file() {
    let mut world = World::new();
    assert_eq!((world.state.auth().revision(), world.state.auth().is_enabled()), (1, false));
    world.commit();
    world.restart();
    assert_eq!(world.state.auth().revision(), 1);
}

#[test]
fn auth_needs_a_root_and_then_guards_it() {
    let mut world = World::new();
    let enable = pb::AuthEnableRequest {};
    assert_eq!(world.by("", K::AuthEnable, &enable).unwrap_err(), Error::RootUserNotExist);
    world.add_user("root");
    assert_eq!(world.by("", K::AuthEnable, &enable).unwrap_err(), Error::RootRoleNotExist);
    world.grant_role("root", "root");
    let before = world.state.auth().revision();
    world.by("", K::AuthEnable, &enable).unwrap();
    world.by("root", K::AuthEnable, &enable).unwrap();
    assert_eq!(world.state.auth().revision(), before, "to enable is no change of permissions");
    let delete = pb::AuthUserDeleteRequest { name: "root".into() };
    assert_eq!(world.by("root", K::AuthUserDelete, &delete).unwrap_err(), Error::InvalidAuthMgmt);
    let delete = pb::AuthRoleDeleteRequest { role: "root".into() };
    assert_eq!(world.by("root", K::AuthRoleDelete, &delete).unwrap_err(), Error::InvalidAuthMgmt);
    let revoke = pb::AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() };
    assert_eq!(
        world.by("root", K::AuthUserRevokeRole, &revoke).unwrap_err(),
        Error::InvalidAuthMgmt
    );
    world.by("root", K::AuthDisable, &pb::AuthDisableRequest {}).unwrap();
    assert_eq!(world.state.auth().revision(), before + 1);
    world.by("", K::AuthUserRevokeRole, &revoke).unwrap();
}

#[test]
fn what_cannot_be_done_is_said_in_etcds_words_and_changes_nothing() {
    let mut world = World::new();
    world.user_with("ann", &[(Type::Read, "a", "")]);
    let before = world.shown();
    let user = |name: &str| pb::AuthUserAddRequest { name: name.into(), ..Default::default() };
    assert_eq!(world.by("", K::AuthUserAdd, &user("")).unwrap_err(), Error::UserEmpty);
    assert_eq!(world.by("", K::AuthUserAdd, &user("ann")).unwrap_err(), Error::UserAlreadyExist);
    let (long, longer) = ("x".repeat(32_768), "x".repeat(32_769));
    assert_eq!(world.by("", K::AuthUserAdd, &user(&longer)).unwrap_err(), Error::InvalidAuthMgmt);
    let role = pb::AuthRoleAddRequest { name: longer };
    assert_eq!(world.by("", K::AuthRoleAdd, &role).unwrap_err(), Error::InvalidAuthMgmt);
    let bad = pb::AuthUserChangePasswordRequest {
        name: "ann".into(),
        hashed_password: "!".into(),
        ..Default::default()
    };
    assert_eq!(world.by("", K::AuthUserChangePassword, &bad).unwrap_err(), Error::AuthFailed);
    let delete = pb::AuthUserDeleteRequest { name: "bob".into() };
    assert_eq!(world.by("", K::AuthUserDelete, &delete).unwrap_err(), Error::UserNotFound);
    let grant = pb::AuthUserGrantRoleRequest { user: "ann".into(), role: "none".into() };
    assert_eq!(world.by("", K::AuthUserGrantRole, &grant).unwrap_err(), Error::RoleNotFound);
    let revoke = pb::AuthUserRevokeRoleRequest { name: "ann".into(), role: "none".into() };
    assert_eq!(world.by("", K::AuthUserRevokeRole, &revoke).unwrap_err(), Error::RoleNotGranted);
    let role = |name: &str| pb::AuthRoleAddRequest { name: name.into() };
    assert_eq!(world.by("", K::AuthRoleAdd, &role("")).unwrap_err(), Error::RoleEmpty);
    assert_eq!(world.by("", K::AuthRoleAdd, &role("ann")).unwrap_err(), Error::RoleAlreadyExist);
    assert_eq!(world.grant("none", Type::Read, "a", "").unwrap_err(), Error::RoleNotFound);
    assert_eq!(world.grant("ann", Type::Read, "b", "a").unwrap_err(), Error::InvalidAuthMgmt);
    assert_eq!(world.grant("ann", Type::Read, "", "\0").unwrap_err(), Error::InvalidAuthMgmt);
    let none = pb::AuthRoleGrantPermissionRequest { name: "ann".into(), perm: None };
    let none = world.by("", K::AuthRoleGrantPermission, &none).unwrap_err();
    assert_eq!(none, Error::PermissionNotGiven);
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "ann".into(),
        key: "b".into(),
        ..Default::default()
    };
    let revoked = world.by("", K::AuthRoleRevokePermission, &revoke).unwrap_err();
    assert_eq!(revoked, Error::PermissionNotGranted);
    assert_eq!(world.shown(), before);
    world.by("", K::AuthUserAdd, &user(&long)).unwrap();
    world.commit();
}

#[test]
fn an_entry_is_checked_when_it_is_applied_by_the_revision_it_was_proposed_at() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Readwrite, "a", "b")]);
    world.by("ann", K::Put, &put("a1")).unwrap();
    assert!(denied(&world.by("ann", K::Put, &put("b"))));
    assert_eq!(world.by("", K::Put, &put("a1")).unwrap_err(), Error::UserEmpty);
    assert!(denied(&world.by("bob", K::Put, &put("a1"))));
    let old = world.state.auth().revision();
    world.add_user("bob");
    assert_eq!(world.at("ann", old, K::Put, &put("a1")).unwrap_err(), Error::AuthOldRevision);
    world.by("root", K::Put, &put("zz")).unwrap();
    assert_eq!(
        world.by("ann", K::AuthUserList, &pb::AuthUserListRequest {}).unwrap_err(),
        Error::PermissionDenied
    );
    assert_eq!(
        world.by("", K::AuthUserList, &pb::AuthUserListRequest {}).unwrap_err(),
        Error::UserEmpty
    );
    assert_eq!(
        world.by("eve", K::AuthUserList, &pb::AuthUserListRequest {}).unwrap_err(),
        Error::UserNotFound
    );
}

#[test]
fn users_see_themselves_and_their_own_roles() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Read, "a", "")]);
    world.user_with("bob", &[]);
    let get = |name: &str| pb::AuthUserGetRequest { name: name.into() };
    assert!(world.by("ann", K::AuthUserGet, &get("ann")).is_ok());
    assert!(denied(&world.by("ann", K::AuthUserGet, &get("bob"))));
    let get = |name: &str| pb::AuthRoleGetRequest { role: name.into() };
    assert!(world.by("ann", K::AuthRoleGet, &get("ann")).is_ok());
    assert!(denied(&world.by("ann", K::AuthRoleGet, &get("bob"))));
    let root = world.by("root", K::AuthRoleGet, &get("root")).unwrap();
    let root = pb::AuthRoleGetResponse::decode(root.body).unwrap();
    assert_eq!((root.perm[0].perm_type, &root.perm[0].range_end[..]), (2, &b"\0"[..]));
}

#[test]
fn a_lost_role_is_lost_at_once_and_everywhere() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Write, "a", "")]);
    world.by("ann", K::Put, &put("a")).unwrap();
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "ann".into(),
        key: "a".into(),
        ..Default::default()
    };
    world.by("root", K::AuthRoleRevokePermission, &revoke).unwrap();
    assert!(denied(&world.by("ann", K::Put, &put("a"))));
    world.grant("ann", Type::Write, "a", "").unwrap();
    world.by("root", K::AuthRoleDelete, &pb::AuthRoleDeleteRequest { role: "ann".into() }).unwrap();
    assert!(denied(&world.by("ann", K::Put, &put("a"))));
    assert!(world.state.auth().view().user("ann").unwrap().roles().is_empty());
}

/// 21683 and 21685: what a put in a transaction shows, and the lease that it takes.
#[test]
fn i21683_a_put_in_a_transaction_needs_what_a_put_needs() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Write, "a", "")]);
    let prev = pb::PutRequest { prev_kv: true, ..put("a") };
    assert!(denied(&world.by("ann", K::Put, &prev)));
    assert!(denied(&world.by("ann", K::Txn, &txn(Request::RequestPut(prev.clone())))));
    let nested = Request::RequestTxn(txn(Request::RequestPut(prev)));
    assert!(denied(&world.by("ann", K::Txn, &txn(nested))));
    let lease = pb::LeaseGrantRequest { id: 7, ttl: 100 };
    world.by("root", K::LeaseGrant, &lease).unwrap();
    let leased = pb::PutRequest { lease: 7, ..put("a") };
    world.by("ann", K::Txn, &txn(Request::RequestPut(leased.clone()))).unwrap();
    let other = pb::PutRequest { lease: 7, ..put("b") };
    world.by("root", K::Put, &other).unwrap();
    assert!(denied(&world.by("ann", K::Put, &leased)));
    assert!(denied(&world.by("ann", K::Txn, &txn(Request::RequestPut(leased)))));
    assert!(denied(&world.by("ann", K::LeaseRevoke, &pb::LeaseRevokeRequest { id: 7 })));
    world.by("root", K::LeaseRevoke, &pb::LeaseRevokeRequest { id: 7 }).unwrap();
}

/// CVE-2026-33343: a nested transaction is no way round.
#[test]
fn cve_2026_33343_every_branch_is_checked_however_deep() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Readwrite, "a", "")]);
    let secret = Request::RequestRange(pb::RangeRequest { key: "s".into(), ..Default::default() });
    let own = Request::RequestRange(pb::RangeRequest { key: "a".into(), ..Default::default() });
    world.by("ann", K::Txn, &txn(Request::RequestTxn(txn(own.clone())))).unwrap();
    for depth in 0..4 {
        let mut request = txn(secret.clone());
        for _ in 0..depth {
            request = txn(Request::RequestTxn(request));
        }
        assert!(denied(&world.by("ann", K::Txn, &request)), "depth {depth}");
        // The branch that is not taken, too.
        let failure = std::mem::take(&mut request.success);
        let request = pb::TxnRequest { failure, ..request };
        assert!(denied(&world.by("ann", K::Txn, &request)), "depth {depth}, failure");
    }
    let compare = pb::Compare { key: "s".into(), ..Default::default() };
    let request = pb::TxnRequest { compare: vec![compare], ..txn(own) };
    assert!(denied(&world.by("ann", K::Txn, &request)));
}

/// GHSA-xg4h: one key is not all that follow it.
#[test]
fn ghsa_xg4h_a_watch_from_a_key_needs_all_that_follow() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Read, "a", "")]);
    world.user_with("bob", &[(Type::Read, "a", "\0")]);
    let view = world.state.auth().view();
    let who = |username| Who { username, revision: view.revision() };
    assert!(view.check_watch(who("ann"), b"a", b"").is_ok());
    assert!(denied(&view.check_watch(who("ann"), b"a", b"\0")));
    assert!(denied(&view.check_watch(who("ann"), b"", b"\0")));
    assert!(view.check_watch(who("bob"), b"a", b"\0").is_ok());
    assert!(denied(&view.check_watch(who("bob"), b"", b"\0")));
}

/// 11651: what was applied is not applied again.
#[test]
fn i11651_a_restart_brings_the_same_users_at_the_same_revision() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Readwrite, "a", "b"), (Type::Read, "c", "\0")]);
    world.commit();
    let (before, index) = (world.shown(), world.state.index());
    world.restart();
    assert_eq!((world.shown(), world.state.index()), (before, index));
    // What was not yet committed is replayed, and comes out alike.
    world.user_with("bob", &[(Type::Write, "b", "")]);
    let before = world.shown();
    world.restart();
    assert_eq!(world.shown(), before);
    world.by("ann", K::Put, &put("a")).unwrap();
    assert!(denied(&world.by("bob", K::Put, &put("a"))));
}

/// 14355: a start from the file alone, without an entry to replay, knows what everybody may do.
#[test]
fn i14355_permissions_are_there_after_a_restart() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Readwrite, "a", "b")]);
    world.commit();
    let index = world.state.index();
    world.restart();
    assert_eq!(world.state.index(), index);
    let view = world.state.auth().view();
    let who = Who { username: "ann", revision: view.revision() };
    assert!(view.check_read(who, b"a", b"b").is_ok());
    assert!(denied(&view.check_read(who, b"b", b"")));
}

/// 15814: which keys a lease has is for those to see who may read all of them.
#[test]
fn i15814_the_keys_of_a_lease_are_seen_by_those_who_may_read_them() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Read, "a", "")]);
    world.user_with("bob", &[(Type::Write, "a", "c")]);
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 100 };
    world.by("root", K::LeaseGrant, &grant).unwrap();
    for (key, ann) in [("a", true), ("b", false)] {
        let leased = pb::PutRequest { lease: 7, ..put(key) };
        world.by("root", K::Put, &leased).unwrap();
        let view = world.state.auth().view();
        let sees = |username| {
            let who = Who { username, revision: view.revision() };
            view.check_lease_reads(who, world.state.lessor(), 7)
        };
        assert_eq!((sees("ann").is_ok(), denied(&sees("bob"))), (ann, true), "with {key}");
        assert!(sees("root").is_ok());
    }
}

/// 14571: a snapshot that takes the place of what was there brings its permissions with it.
#[test]
fn i14571_permissions_are_those_of_the_snapshot() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Readwrite, "a", "b")]);
    world.commit();
    let mut follower = World::enabled();
    follower.user_with("ann", &[(Type::Readwrite, "x", "y")]);
    follower.state.auth().load(&world.backend.snapshot()).unwrap();
    let (there, here) = (world.state.auth().view(), follower.state.auth().view());
    let who = Who { username: "ann", revision: here.revision() };
    assert!(here.check_read(who, b"a", b"b").is_ok());
    assert!(denied(&here.check_read(who, b"x", b"y")));
    assert_eq!(format!("{there:?}"), format!("{here:?}"));
}

#[test]
fn a_login_gives_a_token_that_a_new_password_ends() {
    let mut world = World::enabled();
    world.add_user("ann");
    let request = pb::InternalAuthenticateRequest {
        name: "ann".into(),
        simple_token: "abcdefghijklmnop".into(),
        ..Default::default()
    };
    let reply = world.by("", K::Authenticate, &request).unwrap();
    let token = pb::AuthenticateResponse::decode(reply.body).unwrap().token;
    assert_eq!(token, format!("abcdefghijklmnop.{}", world.state.index()));
    assert_eq!(world.state.auth().tokens().user(&token, 5).as_deref(), Some("ann"));
    let change = pb::AuthUserChangePasswordRequest { name: "ann".into(), ..Default::default() };
    world.by("root", K::AuthUserChangePassword, &change).unwrap();
    assert_eq!(world.state.auth().tokens().user(&token, 5), None);
    let nobody = pb::InternalAuthenticateRequest { name: "eve".into(), ..Default::default() };
    assert_eq!(world.by("", K::Authenticate, &nobody).unwrap_err(), Error::AuthFailed);
    world.by("root", K::AuthDisable, &pb::AuthDisableRequest {}).unwrap();
    assert_eq!(world.by("", K::Authenticate, &request).unwrap_err(), Error::AuthNotEnabled);
}

#[test]
fn who_has_no_password_cannot_log_in() {
    let mut world = World::enabled();
    let options = Some(UserAddOptions { no_password: true });
    let add = pb::AuthUserAddRequest { name: "cn".into(), options, ..Default::default() };
    world.by("root", K::AuthUserAdd, &add).unwrap();
    let login = pb::InternalAuthenticateRequest { name: "cn".into(), ..Default::default() };
    assert_eq!(world.by("", K::Authenticate, &login).unwrap_err(), Error::AuthFailed);
}

/// Notes the auth revision at the moment when watchers are told.
struct Noting(Arc<Auth>, AtomicU64);

impl Wake for Noting {
    fn wake(&self) {
        self.1.store(self.0.revision(), Ordering::Release);
    }
}

/// invariant I6: one batch holds a put, the loss of the permission for it, and a put. The first is published
/// under the old permissions, the others under the new ones.
#[test]
fn permissions_change_between_publications_of_keys() {
    let mut world = World::enabled();
    world.user_with("ann", &[(Type::Readwrite, "a", "")]);
    let auth = Arc::clone(world.state.auth());
    let noting = Arc::new(Noting(Arc::clone(&auth), AtomicU64::new(0)));
    let doorbell = Doorbell::new(Arc::clone(&noting) as Arc<dyn Wake>);
    let hub = Arc::clone(world.state.hub());
    let mut stream = StreamState::new(&hub, &doorbell, 1, 0, StreamConfig::default());
    let watch = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
    stream.create(&watch, Ok(()), world.state.store().as_ref());
    stream.poll(world.state.store().as_ref(), usize::MAX, &mut Vec::new()).unwrap();

    let revision = auth.revision();
    let entry = |user: &'static str, revision, kind, body: Vec<u8>| {
        encode_entry_from(&Header { id: 9, username: user, auth_revision: revision }, kind, &body)
    };
    let revoke = pb::AuthUserRevokeRoleRequest { name: "ann".into(), role: "ann".into() };
    world.log.extend([
        entry("ann", revision, K::Put, put("a").encode_to_vec()),
        entry("root", revision, K::AuthUserRevokeRole, revoke.encode_to_vec()),
        entry("ann", revision, K::Put, put("a").encode_to_vec()),
        entry("root", revision + 1, K::Put, put("a").encode_to_vec()),
    ]);
    let results: Vec<_> =
        world.apply_from().into_iter().map(|r| r.map(|reply| reply.revision)).collect();
    let keys = world.state.store().revision();
    assert_eq!(results, [Ok(keys - 1), Ok(keys - 1), Err(Error::AuthOldRevision), Ok(keys)]);
    let told = noting.1.load(Ordering::Acquire);
    assert_eq!((told, auth.revision()), (revision, revision + 1));
}

#[test]
fn a_held_view_is_renewed_when_there_is_a_newer_one() {
    let mut world = World::enabled();
    let auth = Arc::clone(world.state.auth());
    let mut held = Held::default();
    let first = Arc::clone(auth.hold(&mut held));
    assert!(Arc::ptr_eq(&first, auth.hold(&mut held)));
    world.add_user("ann");
    assert!(auth.hold(&mut held).user("ann").is_some() && first.user("ann").is_none());
}

/// Each of etcd's old bugs that these tests stand guard against, put back: they find it.
#[cfg(feature = "mutants")]
#[test]
fn each_old_bug_is_found() {
    use etch_disk::mutants::{self, Mutant};
    let guards: [(Mutant, fn()); 7] = [
        (Mutant::I11651, i11651_a_restart_brings_the_same_users_at_the_same_revision),
        (Mutant::I14571, i14571_permissions_are_those_of_the_snapshot),
        (Mutant::I14355, i14355_permissions_are_there_after_a_restart),
        (Mutant::I15814, i15814_the_keys_of_a_lease_are_seen_by_those_who_may_read_them),
        (Mutant::I21683, i21683_a_put_in_a_transaction_needs_what_a_put_needs),
        (Mutant::GhsaXg4h, ghsa_xg4h_a_watch_from_a_key_needs_all_that_follow),
        (Mutant::Cve202633343, cve_2026_33343_every_branch_is_checked_however_deep),
    ];
    for (mutant, guard) in guards {
        mutants::set(Some(mutant));
        let found = std::panic::catch_unwind(guard).is_err();
        mutants::set(None);
        assert!(found, "{} goes by unseen", mutant.name());
    }
}
