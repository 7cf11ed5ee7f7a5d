//! `etcdserverpb.Auth`, as far as it goes: that auth is off. Not here: users and roles, which this release
//! does not have; their methods are not offered at all, and a data directory with auth on is refused.

use etch_api::pb::etcdserverpb::AuthStatusResponse;
use prost::Message as _;

use crate::member::Member;
use etch_state::Reply;

/// `AuthStatus`: off, at the revision that a store without users has.
pub fn status(member: &Member) -> Reply {
    let response = AuthStatusResponse { auth_revision: 1, ..AuthStatusResponse::default() };
    Reply { revision: member.store.revision(), body: response.encode_to_vec().into() }
}
