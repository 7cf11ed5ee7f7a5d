//! Users, roles and permissions: what entries of any content make of them, and that whoever may see a range may see
//! each key of it, before a restart and after. Not here: signed tokens (`jwt`).

use std::sync::Arc;

use bytes::Bytes;
use etch_api::decode::decode;
use etch_api::internal::{self, Header, RequestKind};
use etch_api::pb::authpb::{Permission, UserAddOptions};
use etch_api::pb::etcdserverpb as pb;
use etch_disk::backend::Backend;
use etch_disk::fs::MemDisk;
use etch_state::State;
use etch_state::auth::{ROOT, SimpleTokens, View, Who};
use prost::Message;

use super::db;
use crate::{Bits, Target};

/// A sequence of requests to the auth service, of any content, as far as a server would let them into the log.
pub const TARGET: Target = Target { name: "auth", run, seeds, memory: 64 << 20 };

/// The requests that are tried, by number.
const KINDS: [RequestKind; 17] = [
    RequestKind::AuthEnable,
    RequestKind::AuthDisable,
    RequestKind::AuthStatus,
    RequestKind::AuthUserAdd,
    RequestKind::AuthUserDelete,
    RequestKind::AuthUserGet,
    RequestKind::AuthUserChangePassword,
    RequestKind::AuthUserGrantRole,
    RequestKind::AuthUserRevokeRole,
    RequestKind::AuthUserList,
    RequestKind::AuthRoleList,
    RequestKind::AuthRoleAdd,
    RequestKind::AuthRoleDelete,
    RequestKind::AuthRoleGet,
    RequestKind::AuthRoleGrantPermission,
    RequestKind::AuthRoleRevokePermission,
    RequestKind::Authenticate,
];

/// Whether a server would propose this: it decodes.
fn is_admitted(kind: RequestKind, body: &Bytes) -> bool {
    match kind {
        RequestKind::AuthUserAdd => decode::<pb::AuthUserAddRequest>(body).is_ok(),
        RequestKind::AuthUserDelete => decode::<pb::AuthUserDeleteRequest>(body).is_ok(),
        RequestKind::AuthUserGet => decode::<pb::AuthUserGetRequest>(body).is_ok(),
        RequestKind::AuthUserChangePassword => {
            decode::<pb::AuthUserChangePasswordRequest>(body).is_ok()
        }
        RequestKind::AuthUserGrantRole => decode::<pb::AuthUserGrantRoleRequest>(body).is_ok(),
        RequestKind::AuthUserRevokeRole => decode::<pb::AuthUserRevokeRoleRequest>(body).is_ok(),
        RequestKind::AuthRoleAdd => decode::<pb::AuthRoleAddRequest>(body).is_ok(),
        RequestKind::AuthRoleDelete => decode::<pb::AuthRoleDeleteRequest>(body).is_ok(),
        RequestKind::AuthRoleGet => decode::<pb::AuthRoleGetRequest>(body).is_ok(),
        RequestKind::AuthRoleGrantPermission => {
            decode::<pb::AuthRoleGrantPermissionRequest>(body).is_ok()
        }
        RequestKind::AuthRoleRevokePermission => {
            decode::<pb::AuthRoleRevokePermissionRequest>(body).is_ok()
        }
        // A login in the log is the server's own, and the others say nothing.
        RequestKind::Authenticate => pb::InternalAuthenticateRequest::decode(body.clone()).is_ok(),
        _ => true,
    }
}

fn run(input: &[u8]) {
    let disk = MemDisk::new();
    let tree: Arc<dyn Backend> = db::open(&disk).expect("a new file");
    let mut state = State::open(tree, &db::config()).expect("a new file");
    let mut bits = Bits(input);
    let mut asked: Vec<(Bytes, Bytes)> = Vec::new();
    while !bits.is_empty() {
        let number = bits.below(KINDS.len() + 1);
        let Some(kind) = KINDS.get(number) else {
            let piece = |bits: &mut Bits<'_>| Bytes::copy_from_slice(bits.piece());
            asked.push((piece(&mut bits), piece(&mut bits)));
            continue;
        };
        let body = Bytes::copy_from_slice(bits.piece());
        if is_admitted(*kind, &body) {
            let index = state.index() + 1;
            let auth_revision = state.auth().revision();
            let header = Header { id: index, username: ROOT, auth_revision };
            let entry = internal::encode_entry_from(&header, *kind, &body);
            state.apply([(index, 1, &entry)].into_iter(), &mut Vec::new());
        }
    }
    let before = verdicts(&state.auth().view(), &asked);
    let (mut batch, revision) = state.take_commit();
    state.store().backend().commit(&mut batch).expect("memory");
    state.committed(revision);
    drop(state);
    let tree: Arc<dyn Backend> = db::open(&disk).expect("what was committed can be opened");
    let again = State::open(tree, &db::config()).expect("what was committed is good");
    assert_eq!(verdicts(&again.auth().view(), &asked), before, "permissions over a restart");
}

/// What each user may see of each range. Who may see a range may see its first key and the one behind that, and who
/// may see all behind a key may see that as well.
fn verdicts(view: &View, asked: &[(Bytes, Bytes)]) -> Vec<bool> {
    let mut all = Vec::new();
    for name in view.user_names() {
        let who = Who { username: name, revision: view.revision() };
        for (key, end) in asked {
            let may = view.check_read(who, key, end).is_ok();
            let next = [key, &b"\0"[..]].concat();
            let holds_keys = !end.is_empty() && (end == "\0" || end > key);
            if may && holds_keys {
                assert!(view.check_read(who, key, b"").is_ok(), "{name}: {key:?} of a range");
                if end == "\0" || end[..] > next[..] {
                    assert!(view.check_read(who, &next, b"").is_ok(), "{name}: behind {key:?}");
                }
            }
            let watches = view.check_watch(who, key, end).is_ok();
            assert!(!watches || may || key.is_empty(), "{name} watches what it may not see");
            all.push(may);
        }
        if let Some(user) = view.user(name) {
            assert!(user.roles().is_sorted(), "roles are looked for by their order");
        }
    }
    for (key, end) in asked {
        let token = String::from_utf8_lossy(key);
        let _ = SimpleTokens::waits_for(&token);
        // Nobody is a user by no name.
        assert!(!view.is_enabled() || view.check_read(Who::default(), key, end).is_err());
    }
    all
}

fn seeds() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut add = |kind: RequestKind, body: Vec<u8>| {
        let number = KINDS.iter().position(|k| *k == kind).expect("one of those that are tried");
        out.push(number as u8);
        Bits::put(&mut out, &body);
    };
    for name in [ROOT, "ann"] {
        let options = Some(UserAddOptions { no_password: false });
        let user = pb::AuthUserAddRequest {
            name: name.into(),
            options,
            hashed_password: "aGFzaA==".into(),
            ..Default::default()
        };
        add(RequestKind::AuthUserAdd, user.encode_to_vec());
        let role = pb::AuthRoleAddRequest { name: name.into() };
        add(RequestKind::AuthRoleAdd, role.encode_to_vec());
        let grant = pb::AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
        add(RequestKind::AuthUserGrantRole, grant.encode_to_vec());
    }
    for (key, range_end) in [("a", "c"), ("c", "e"), ("x", "\0"), ("k", "")] {
        let perm = Permission { perm_type: 2, key: key.into(), range_end: range_end.into() };
        let perm = Some(perm);
        let grant = pb::AuthRoleGrantPermissionRequest { name: "ann".into(), perm };
        add(RequestKind::AuthRoleGrantPermission, grant.encode_to_vec());
    }
    add(RequestKind::AuthEnable, Vec::new());
    let login = pb::InternalAuthenticateRequest {
        name: "ann".into(),
        simple_token: "abcdefghijklmnop".into(),
        ..Default::default()
    };
    add(RequestKind::Authenticate, login.encode_to_vec());
    add(RequestKind::AuthUserGet, pb::AuthUserGetRequest { name: "ann".into() }.encode_to_vec());
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "ann".into(),
        key: "c".into(),
        range_end: "e".into(),
    };
    add(RequestKind::AuthRoleRevokePermission, revoke.encode_to_vec());
    for (key, range_end) in [("a", "d"), ("a", "b"), ("b", ""), ("y", "\0"), ("", "\0"), ("c", "b")]
    {
        out.push(KINDS.len() as u8);
        Bits::put(&mut out, key.as_bytes());
        Bits::put(&mut out, range_end.as_bytes());
    }
    vec![out]
}
