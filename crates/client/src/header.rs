//! The header that every answer bears: which cluster, which member, which revision.

use etch_api::pb::etcdserverpb as pb;

/// An answer with a header.
///
/// ```
/// use etch_client::{HasHeader, pb};
///
/// let answer = pb::PutResponse {
///     header: Some(pb::ResponseHeader { revision: 7, ..Default::default() }),
///     ..Default::default()
/// };
/// assert_eq!(answer.revision(), 7);
/// ```
pub trait HasHeader {
    /// The header; servers always send one.
    fn header(&self) -> Option<&pb::ResponseHeader>;

    /// The store's revision when the answer was made; zero without a header.
    fn revision(&self) -> i64 {
        self.header().map_or(0, |header| header.revision)
    }
}

macro_rules! has_header {
    ($($name:ident)*) => {
        $(impl HasHeader for pb::$name {
            fn header(&self) -> Option<&pb::ResponseHeader> {
                self.header.as_ref()
            }
        })*
    };
}

has_header! {
    RangeResponse PutResponse DeleteRangeResponse TxnResponse CompactionResponse WatchResponse
    LeaseGrantResponse LeaseRevokeResponse LeaseKeepAliveResponse LeaseTimeToLiveResponse LeaseLeasesResponse
    MemberAddResponse MemberRemoveResponse MemberUpdateResponse MemberListResponse MemberPromoteResponse
    AlarmResponse StatusResponse DefragmentResponse HashResponse HashKvResponse SnapshotResponse MoveLeaderResponse
    DowngradeResponse
    AuthEnableResponse AuthDisableResponse AuthStatusResponse AuthenticateResponse
    AuthUserAddResponse AuthUserGetResponse AuthUserListResponse AuthUserDeleteResponse
    AuthUserChangePasswordResponse AuthUserGrantRoleResponse AuthUserRevokeRoleResponse
    AuthRoleAddResponse AuthRoleGetResponse AuthRoleListResponse AuthRoleDeleteResponse
    AuthRoleGrantPermissionResponse AuthRoleRevokePermissionResponse
}
