//! The cluster's members.

use etch_api::pb::etcdserverpb as pb;

use crate::call::method::{MEMBER_ADD, MEMBER_LIST, MEMBER_PROMOTE, MEMBER_REMOVE, MEMBER_UPDATE};
use crate::client::Client;
use crate::error::Result;

/// Calls of the Cluster service.
///
/// ```
/// # etch_doctest::run(async |client| {
/// for member in client.member_list().await?.members {
///     println!("{:x} {} {:?}", member.id, member.name, member.client_ur_ls);
/// }
/// # Ok(())
/// # });
/// ```
impl Client {
    /// The members, as a majority sees them.
    pub async fn member_list(&self) -> Result<pb::MemberListResponse> {
        let request = pb::MemberListRequest { linearizable: true };
        self.core.call(&self.options, &MEMBER_LIST, request).await
    }

    /// The members, as the asked one sees them: this works without a leader too.
    pub async fn member_list_serializable(&self) -> Result<pb::MemberListResponse> {
        let request = pb::MemberListRequest { linearizable: false };
        self.core.call(&self.options, &MEMBER_LIST, request).await
    }

    /// Adds a member that will listen to its peers on these URLs.
    pub async fn member_add<U: Into<String>>(
        &self,
        peer_urls: impl IntoIterator<Item = U>,
    ) -> Result<pb::MemberAddResponse> {
        self.add(peer_urls, false).await
    }

    /// Adds a member that takes no part in votes until it is promoted.
    pub async fn member_add_as_learner<U: Into<String>>(
        &self,
        peer_urls: impl IntoIterator<Item = U>,
    ) -> Result<pb::MemberAddResponse> {
        self.add(peer_urls, true).await
    }

    async fn add<U: Into<String>>(
        &self,
        peer_urls: impl IntoIterator<Item = U>,
        is_learner: bool,
    ) -> Result<pb::MemberAddResponse> {
        let peer_ur_ls = peer_urls.into_iter().map(Into::into).collect();
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner };
        self.core.call(&self.options, &MEMBER_ADD, request).await
    }

    /// Removes a member.
    pub async fn member_remove(&self, id: u64) -> Result<pb::MemberRemoveResponse> {
        self.core.call(&self.options, &MEMBER_REMOVE, pb::MemberRemoveRequest { id }).await
    }

    /// Tells the cluster where a member listens to its peers from now on.
    pub async fn member_update<U: Into<String>>(
        &self,
        id: u64,
        peer_urls: impl IntoIterator<Item = U>,
    ) -> Result<pb::MemberUpdateResponse> {
        let peer_ur_ls = peer_urls.into_iter().map(Into::into).collect();
        let request = pb::MemberUpdateRequest { id, peer_ur_ls };
        self.core.call(&self.options, &MEMBER_UPDATE, request).await
    }

    /// Makes a learner a voter.
    pub async fn member_promote(&self, id: u64) -> Result<pb::MemberPromoteResponse> {
        self.core.call(&self.options, &MEMBER_PROMOTE, pb::MemberPromoteRequest { id }).await
    }
}
