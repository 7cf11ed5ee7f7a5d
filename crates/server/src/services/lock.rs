//! `v3lockpb.Lock`: whoever's key under the name is the oldest holds the lock. Not here: standing in line
//! (`line`), which elections do as well.

use std::rc::Rc;

use bytes::Bytes;
use etch_api::line;
use etch_api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use etch_rpc::{CallInfo, Code, Status};
use prost::Message as _;

use super::decode;
use super::line::{Caller, Standing, plain};
use crate::net::Net;

/// What etcd says to a holder whose lease died before its turn came.
const EXPIRED: &str = "mutex: session is expired";

/// `Lock`: answers once the lock is held.
pub async fn lock(net: &Rc<Net>, call: &CallInfo, message: &Bytes) -> Result<Bytes, Status> {
    let request: LockRequest = decode(message)?;
    take(Caller::new(net, call), &request).await.map_err(plain)
}

async fn take(caller: Caller, request: &LockRequest) -> Result<Bytes, Status> {
    let lease = caller.lease(request.lease).await?;
    let prefix = line::prefix(&request.name);
    let (standing, joined, mut header) =
        Standing::join(caller, &prefix, Bytes::new(), lease).await?;
    if !joined.is_first {
        let (stands, seen) = standing.wait(&prefix).await?;
        if !stands {
            return Err(Status::new(Code::Unknown, EXPIRED));
        }
        header = seen;
    }
    let response = LockResponse { header, key: standing.key.clone() };
    standing.keep();
    Ok(response.encode_to_vec().into())
}

/// `Unlock`: deletes the key.
pub async fn unlock(net: &Rc<Net>, call: &CallInfo, message: &Bytes) -> Result<Bytes, Status> {
    let request: UnlockRequest = decode(message)?;
    let deleted = Caller::new(net, call).delete(request.key).await.map_err(plain)?;
    Ok(UnlockResponse { header: deleted.header }.encode_to_vec().into())
}
