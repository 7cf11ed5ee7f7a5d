//! The member as every net thread knows it: identity, limits, the shared parts of its state, and the way
//! to its node. Not here: anything that belongs to one thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, RangeRequest, alarm_request::AlarmAction,
};
use etch_api::wire::HeaderTemplate;
use etch_disk::backend::{Backend, Bolt};
use etch_node::{Identity, View};
use etch_state::alarm::Alarms;
use etch_state::auth::Auth;
use etch_state::lease::Lessor;
use etch_state::members::Members;
use etch_state::mvcc::Store;
use etch_state::watch::Hub;
use etch_state::{Quota, Reply, State};
use etch_transcode::Common;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::aside::Aside;
use crate::auth::Guard;
use crate::auth::claim::Claim;
use crate::driver::clock::Clock;
use crate::driver::inbox::{Caller, Command, Inbox, Outcome};
use crate::http::{self, Site};
use crate::logging::Logger;
use crate::metrics::Metrics;
use crate::services::snapshot::Snapshots;

/// What requests are held to.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// Operations in a transaction (`--max-txn-ops`).
    pub max_txn_ops: usize,
    /// Bytes of a request (`--max-request-bytes`).
    pub max_request_bytes: usize,
    /// Time between two notices of progress on a quiet watch (`--watch-progress-notify-interval`).
    pub progress_interval_ms: u64,
    /// A call slower than this is logged (`--warning-unary-request-duration`).
    pub slow_call_ms: u64,
    /// Learners at the most (`--max-learners`).
    pub max_learners: usize,
    /// Whether changes of the membership that would cost the majority are refused
    /// (`--strict-reconfig-check`).
    pub strict_reconfig_check: bool,
    /// Time without a leader before somebody stands for election (`--election-timeout`).
    pub election_ms: u64,
    /// How long a request waits at the most.
    pub request_timeout_ms: u64,
}

/// Shared by all threads; nothing in it belongs to one of them.
pub struct Member {
    /// The HTTP pages.
    pub site: Site<Asked>,
    /// The API as JSON, unless it is switched off.
    pub gateway: Option<Arc<Common>>,
    /// Who we are.
    pub identity: Identity,
    /// The part of a response header that never changes.
    pub header: HeaderTemplate,
    /// The node's numbers.
    pub view: Arc<View>,
    /// The way to the node.
    pub inbox: Arc<Inbox>,
    /// Keys.
    pub store: Arc<Store>,
    /// Leases.
    pub lessor: Arc<Lessor>,
    /// Watches.
    pub hub: Arc<Hub>,
    /// The member table.
    pub members: Arc<RwLock<Members>>,
    /// The alarms.
    pub alarms: Arc<RwLock<Alarms>>,
    /// Users and permissions.
    pub auth: Arc<Auth>,
    /// Tells callers apart.
    pub guard: Guard,
    /// The space quota.
    pub quota: Arc<Quota>,
    /// The B+tree, for whole-file reads.
    pub backend: Arc<Bolt>,
    /// Where the B+tree's file is.
    pub snap_dir: PathBuf,
    /// Where defragmentations run.
    pub defragmenting: Aside,
    /// What snapshots for clients need.
    pub snapshots: Snapshots,
    /// What requests are held to.
    pub limits: RequestLimits,
    /// The clock.
    pub clock: Clock,
    /// The log.
    pub log: Logger,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The next lease id to give out.
    pub lease_ids: AtomicU64,
}

impl Member {
    /// Response header and body, encoded one behind the other.
    pub fn encode(&self, reply: &Reply, out: &mut bytes::BytesMut) {
        self.header.encode(reply.revision, self.view.term(), out, 1);
        out.extend_from_slice(&reply.body);
    }

    /// The member table.
    pub fn members(&self) -> RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The alarms.
    pub fn alarms(&self) -> RwLockReadGuard<'_, Alarms> {
        self.alarms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease id that nobody has asked for: positive, and another one each time.
    pub fn next_lease_id(&self) -> i64 {
        let id = self.lease_ids.fetch_add(1, Ordering::Relaxed) & (i64::MAX as u64);
        i64::try_from(id.max(1)).unwrap_or(1)
    }

    /// Proposes and waits. For what is not on a hot path.
    pub async fn propose(&self, kind: RequestKind, body: Bytes) -> Outcome {
        self.ask(|caller| Command::Propose(kind, body, caller)).await
    }

    /// The same in the name of whoever calls, if somebody does.
    pub async fn propose_as(&self, claim: &Claim, kind: RequestKind, body: Bytes) -> Outcome {
        match claim.user()?.cloned() {
            None => self.propose(kind, body).await,
            Some(user) => self.ask(|caller| Command::ProposeAs(user, kind, body, caller)).await,
        }
    }

    /// Sends a command that has a caller, and waits for its outcome.
    pub async fn ask(&self, command: impl FnOnce(Caller) -> Command) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        self.inbox.push(command(Caller::Task(sender)));
        receiver.await.unwrap_or(Err(Error::Stopped))
    }

    /// Returns when a read that starts then sees every write acknowledged before the call.
    pub async fn linearize(&self) -> Result<(), Error> {
        if self.view.is_lone_leader() {
            return Ok(());
        }
        self.ask(Command::Read).await.map(drop)
    }

    /// True while this member leads.
    pub fn is_leader(&self) -> bool {
        self.view.leader() == self.identity.member
    }

    /// Returns once this member leads; an error if that takes longer than a request may.
    pub async fn wait_to_lead(&self) -> Result<(), Error> {
        let deadline = self.clock.now_ms() + self.limits.request_timeout_ms;
        while !self.is_leader() {
            let left = deadline.saturating_sub(self.clock.now_ms());
            if left == 0 {
                return Err(Error::NoLeader);
            }
            // An election takes about that long.
            tokio::time::sleep(Duration::from_millis(left.min(self.limits.election_ms))).await;
        }
        Ok(())
    }

    /// Returns when everything applied so far is in the B+tree.
    pub async fn commit_everything(&self) -> Result<(), Error> {
        self.ask(Command::CommitAll).await.map(drop)
    }

    /// The progress interval for one stream: up to a tenth longer, so that the notices of many streams do
    /// not fall together.
    pub fn progress_interval_ms(&self, stream: u64) -> u64 {
        let interval = self.limits.progress_interval_ms;
        interval + interval / 10 * (stream % 16) / 16
    }

    /// Raises our NOSPACE alarm and waits until it is up.
    pub async fn raise_no_space(&self) {
        let request = AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: self.identity.member,
            alarm: AlarmType::Nospace.into(),
        };
        // If it cannot be raised now, the next write that finds no room tries again.
        let _ = self.propose(RequestKind::Alarm, request.encode_to_vec().into()).await;
    }

    /// Bytes of the file, and of them in use.
    pub fn sizes(&self) -> (u64, u64) {
        (self.backend.size(), self.backend.size_in_use())
    }
}

/// What the HTTP pages ask.
pub struct Asked {
    identity: Identity,
    view: Arc<View>,
    inbox: Arc<Inbox>,
    members: Arc<RwLock<Members>>,
    alarms: Arc<RwLock<Alarms>>,
    store: Arc<Store>,
    auth: Arc<Auth>,
}

impl Asked {
    /// Over these parts of the member.
    pub fn new(identity: Identity, view: Arc<View>, inbox: &Arc<Inbox>, state: &State) -> Self {
        Self {
            identity,
            view,
            inbox: Arc::clone(inbox),
            members: Arc::clone(state.shared_members()),
            alarms: Arc::clone(state.shared_alarms()),
            store: Arc::clone(state.store()),
            auth: Arc::clone(state.auth()),
        }
    }

    fn table(&self) -> RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http::Member for Asked {
    fn leader(&self) -> u64 {
        self.view.leader()
    }

    fn is_learner(&self) -> bool {
        self.table().get(self.identity.member).is_some_and(|m| m.is_learner)
    }

    fn alarms(&self) -> Vec<http::Alarm> {
        let alarms = self.alarms.read().unwrap_or_else(PoisonError::into_inner);
        let shown = |alarm: &AlarmMember| match AlarmType::try_from(alarm.alarm) {
            Ok(AlarmType::Nospace) => Some(http::Alarm::NoSpace),
            Ok(AlarmType::Corrupt) => Some(http::Alarm::Corrupt),
            _ => None,
        };
        alarms.list(AlarmType::None).iter().filter_map(shown).collect()
    }

    fn serializable_read(&self) -> Result<(), String> {
        let request =
            RangeRequest { key: Bytes::from_static(b"a"), limit: 1, ..RangeRequest::default() };
        self.store.range(&request).map(drop).map_err(|e| e.to_string())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        if self.view.is_lone_leader() {
            return self.serializable_read();
        }
        let (sender, receiver) = oneshot::channel();
        self.inbox.push(Command::Read(Caller::Task(sender)));
        let read = receiver.await.unwrap_or(Err(Error::Stopped));
        read.map_err(|e| e.message().to_owned())?;
        self.serializable_read()
    }

    fn cluster_version(&self) -> Option<String> {
        self.table().version().map(|v| v.to_string())
    }

    fn storage_version(&self) -> Option<String> {
        self.table().storage_version().map(|v| v.to_string())
    }

    fn cluster_id(&self) -> u64 {
        self.identity.cluster
    }

    fn auth_is_on(&self) -> bool {
        self.auth.is_enabled()
    }

    fn raft(&self) -> [u64; 5] {
        let view = &self.view;
        [self.identity.member, view.leader(), view.term(), view.committed(), view.applied()]
    }

    fn members(&self) -> Vec<http::MemberInfo> {
        let info = |m: &etch_state::members::Member| http::MemberInfo {
            id: m.id,
            peer_urls: m.peer_urls.clone(),
            is_learner: m.is_learner,
            name: m.name.clone(),
            client_urls: m.client_urls.clone(),
        };
        self.table().iter().map(info).collect()
    }
}
