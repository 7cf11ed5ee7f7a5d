//! `etcdserverpb.Auth`, as far as it goes: that auth is off. Not here: users and roles, which this release
//! does not have; their methods are not offered at all, and a data directory with auth on is refused.

use bytes::Bytes;
use etch_api::pb::etcdserverpb::{AuthStatusRequest, AuthStatusResponse};
use etch_rpc::Status;
use etch_state::Reply;
use prost::Message as _;

use super::decode;
use crate::member::Member;

/// `AuthStatus`: off, at the revision that a store without users has.
pub fn status(member: &Member, message: Bytes) -> Result<Reply, Status> {
    decode::<AuthStatusRequest>(&message)?;
    let response = AuthStatusResponse { auth_revision: 1, ..AuthStatusResponse::default() };
    Ok(Reply { revision: member.store.revision(), body: response.encode_to_vec().into() })
}
