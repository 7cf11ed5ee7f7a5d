//! Looking after members: status, alarms, hashes, defragmentation, the leader, downgrades. Snapshots are in
//! `snapshot`.

use etch_api::pb::etcdserverpb as pb;
pub use etch_api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use pb::alarm_request::AlarmAction;
use prost::Message;

use crate::call::Via;
use crate::call::method::{
    ALARM, DEFRAGMENT, DOWNGRADE, HASH, HASH_KV, MOVE_LEADER, Method, STATUS,
};
use crate::client::Client;
use crate::config::address::Address;
use crate::error::Result;
use crate::header::HasHeader;

/// Calls of the Maintenance service. Those that concern one member name its endpoint, which need not be one of the
/// client's.
///
/// ```
/// # etch_doctest::run(async |client| {
/// for endpoint in client.endpoints() {
///     let status = client.status(&endpoint).await?;
///     println!("{endpoint}: {} of {} bytes in use", status.db_size_in_use, status.db_size);
/// }
/// # Ok(())
/// # });
/// ```
impl Client {
    /// How the member behind an endpoint is.
    pub async fn status(&self, endpoint: impl AsRef<str>) -> Result<pb::StatusResponse> {
        self.at(endpoint.as_ref(), &STATUS, pb::StatusRequest {}).await
    }

    /// Gives a member's free space back to its file system. The member may not serve meanwhile: one after the other.
    pub async fn defragment(&self, endpoint: impl AsRef<str>) -> Result<pb::DefragmentResponse> {
        self.at(endpoint.as_ref(), &DEFRAGMENT, pb::DefragmentRequest {}).await
    }

    /// A hash over a member's whole store.
    pub async fn hash(&self, endpoint: impl AsRef<str>) -> Result<pb::HashResponse> {
        self.at(endpoint.as_ref(), &HASH, pb::HashRequest {}).await
    }

    /// A hash over a member's keys up to a revision; zero for the newest.
    pub async fn hash_kv(
        &self,
        endpoint: impl AsRef<str>,
        revision: i64,
    ) -> Result<pb::HashKvResponse> {
        self.at(endpoint.as_ref(), &HASH_KV, pb::HashKvRequest { revision }).await
    }

    /// The alarms that are raised.
    pub async fn alarm_list(&self) -> Result<pb::AlarmResponse> {
        let request = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
        self.core.call(&self.options, &ALARM, request).await
    }

    /// Puts one alarm off; with member zero and no kind, all of them.
    pub async fn alarm_disarm(&self, alarm: pb::AlarmMember) -> Result<pb::AlarmResponse> {
        if alarm != pb::AlarmMember::default() {
            return self.disarm(alarm).await;
        }
        let mut answer = self.alarm_list().await?;
        for alarm in std::mem::take(&mut answer.alarms) {
            answer.alarms.extend(self.disarm(alarm).await?.alarms);
        }
        Ok(answer)
    }

    async fn disarm(&self, alarm: pb::AlarmMember) -> Result<pb::AlarmResponse> {
        let request = pb::AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        self.core.call(&self.options, &ALARM, request).await
    }

    /// Hands leadership over. Only the leader does this: [`Client::move_leader_at`] says which endpoint that is.
    pub async fn move_leader(&self, to: u64) -> Result<pb::MoveLeaderResponse> {
        let request = pb::MoveLeaderRequest { target_id: to };
        self.core.call(&self.options, &MOVE_LEADER, request).await
    }

    /// Asks the member behind this endpoint to hand leadership over.
    pub async fn move_leader_at(
        &self,
        endpoint: impl AsRef<str>,
        to: u64,
    ) -> Result<pb::MoveLeaderResponse> {
        let request = pb::MoveLeaderRequest { target_id: to };
        self.at(endpoint.as_ref(), &MOVE_LEADER, request).await
    }

    /// Asks whether the cluster could be downgraded, or starts or cancels that.
    pub async fn downgrade(
        &self,
        action: DowngradeAction,
        version: impl Into<String>,
    ) -> Result<pb::DowngradeResponse> {
        let request = pb::DowngradeRequest { action: action as i32, version: version.into() };
        self.core.call(&self.options, &DOWNGRADE, request).await
    }

    async fn at<Q, A>(&self, endpoint: &str, method: &Method, request: Q) -> Result<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + HasHeader + Send + 'static,
    {
        let address = Address::parse(endpoint, self.core.config.tls.is_some())?;
        let endpoint = self.core.balancer.named(address);
        self.core.call_via(Via::One(&endpoint), &self.options, method, request).await
    }
}
