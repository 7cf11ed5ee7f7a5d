//! Leasing: keys that a client has read are its own to answer from memory, until somebody else wants to write them.
//!
//! Owning a key is a key too: the leasing prefix followed by the owned key, bound to the owner's session. A writer who
//! is not the owner writes `REVOKE` there, the owner forgets what it knows and deletes its key, and only then the write
//! goes through: it is guarded by there being no owner. So reads stay linearizable, at no round trip for owned keys.
//! What is remembered is in `cache`; a write's footprint and guards are in `guard`.

mod cache;
mod guard;

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::bytes::IntoBytes;
use crate::call::CallOptions;
use crate::client::Client;
use crate::concurrency::Session;
use crate::error::{Error, EtcdError, Result};
use crate::header::HasHeader;
use crate::kv::{BoxFuture, Compare, Kv, RangeStream, Txn, delete, get, put};
use crate::pb::{self, response_op::Response};
use crate::{EventType, SortTarget};

use cache::Cache;
use guard::Footprint;

/// What a writer writes under an owner's key.
const REVOKE: &[u8] = b"REVOKE";

/// How long an owner lives on without a sign of life, in seconds: what its crash costs a writer.
const TTL: i64 = 10;

impl Client {
    /// The same client, answering reads of single keys from memory once it owns them. All programs that write these
    /// keys have to use the same leasing prefix: a write past it is not seen by owners.
    ///
    /// ```
    /// # etch_doctest::run(async |client| {
    /// let leasing = client.leasing("owners/").await?;
    /// leasing.get("config").await?; // asks the server, and owns the key
    /// leasing.get("config").await?; // from memory
    /// # Ok(())
    /// # });
    /// ```
    pub async fn leasing(&self, prefix: impl IntoBytes) -> Result<Client> {
        let shared = Arc::new(Shared {
            client: self.clone(),
            prefix: prefix.into_bytes(),
            cache: Cache::default(),
        });
        let session = shared.begin().await?;
        let keeper = tokio::spawn(keep(Arc::downgrade(&shared), session));
        Ok(self.with_kv(Arc::new(Leasing(Arc::new(Running { shared, keeper })))))
    }
}

/// The layer; its last clone ends the ownership.
#[derive(Clone)]
struct Leasing(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The session goes with the task, and with it all that is owned.
        self.keeper.abort();
    }
}

struct Shared {
    client: Client,
    prefix: Bytes,
    cache: Cache,
}

/// A session with a watch on what others want back.
struct Owning {
    session: Session,
    revocations: crate::WatchStream,
}

/// Owns as long as it can; begins anew when the session is lost.
async fn keep(shared: std::sync::Weak<Shared>, mut owning: Owning) {
    loop {
        loop {
            let response = tokio::select! {
                response = owning.revocations.next() => response,
                _ = owning.session.lost() => None,
            };
            let Some(this) = shared.upgrade() else { return };
            let Some(Ok(response)) = response else { break };
            this.heed(&owning.session, response.events).await;
        }
        owning = loop {
            let Some(this) = shared.upgrade() else { return };
            this.cache.disown();
            match this.begin().await {
                Ok(owning) => break owning,
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::info!(%error, "no session for leasing; reads ask the server")
                }
            }
            drop(this);
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        };
    }
}

impl Shared {
    fn owner_key(&self, key: &[u8]) -> Bytes {
        Bytes::from([&self.prefix[..], key].concat())
    }

    async fn begin(&self) -> Result<Owning> {
        let session = Session::new(&self.client).ttl(TTL).await?;
        let revocations = self.client.watch(&self.prefix).prefix().no_delete().await?;
        self.cache.own(session.clone());
        Ok(Owning { session, revocations })
    }

    /// Gives back what others want.
    async fn heed(&self, session: &Session, events: Vec<crate::Event>) {
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            let Some(kv) = event.kv.filter(|kv| is_put && kv.value == REVOKE) else { continue };
            if kv.lease != session.lease() {
                continue;
            }
            // Forgotten first: whoever sees the owner's key gone may write.
            self.cache.give_back(&kv.key.slice(self.prefix.len()..), kv.create_revision);
            let ours = Compare::create_revision(&kv.key).equal(kv.create_revision);
            let done = self.client.txn().when(ours).then(delete(&kv.key)).await;
            if let Err(error) = done {
                tracing::debug!(key = ?kv.key, %error, "an owner's key stays until its lease ends");
            }
        }
    }

    /// Reads a key and owns it from now on, if nobody else does.
    async fn acquire(
        &self,
        options: CallOptions,
        request: pb::RangeRequest,
        session: &Session,
    ) -> Result<pb::RangeResponse> {
        let owner_key = self.owner_key(&request.key);
        let client = self.client.with_options(options);
        let mut answer = client
            .txn()
            .when(Compare::version(&owner_key).equal(0))
            .then(get(&request.key))
            .then(put(&owner_key, "").lease(session.lease()))
            .otherwise(get(&request.key))
            .await?;
        let header = answer.header.unwrap_or_default();
        let response = answer.responses.drain(..).next().and_then(|op| op.response);
        let Some(Response::ResponseRange(mut range)) = response else {
            return Err(Error::Malformed("the answer to a leasing read".into()));
        };
        range.header = Some(header);
        if answer.succeeded {
            self.cache.insert(session, &request.key, header.revision, &range);
        }
        Ok(range)
    }

    /// Writes under the guard that nobody owns what is written.
    async fn write(
        &self,
        options: CallOptions,
        request: pb::TxnRequest,
    ) -> Result<pb::TxnResponse> {
        let footprint = Footprint::of(&request, &self.prefix);
        let client = self.client.with_options(options);
        loop {
            // What we own ourselves, we give back first.
            for (key, created) in self.cache.take(&footprint) {
                let owner_key = self.owner_key(&key);
                let ours = Compare::create_revision(&owner_key).equal(created);
                client.txn().when(ours).then(delete(owner_key)).await?;
            }
            let guarded: Txn<_> = client
                .txn()
                .when_all(footprint.guards())
                .then(request.clone())
                .otherwise_all(footprint.owners());
            let mut answer = guarded.await?;
            if answer.succeeded {
                let header = answer.header;
                let inner = answer.responses.drain(..).next().and_then(|op| op.response);
                let Some(Response::ResponseTxn(mut inner)) = inner else {
                    return Err(Error::Malformed("the answer to a leasing write".into()));
                };
                inner.header = header;
                return Ok(inner);
            }
            for op in &answer.responses {
                let Some(Response::ResponseRange(range)) = &op.response else { continue };
                for owner in &range.kvs {
                    self.revoke(&client, owner).await?;
                }
            }
        }
    }

    /// Asks an owner to give a key back, and waits until it has, or is gone.
    async fn revoke(&self, client: &Client, owner: &crate::KeyValue) -> Result<()> {
        let same = Compare::create_revision(&owner.key).equal(owner.create_revision);
        let ask = put(&owner.key, REVOKE).ignore_lease();
        let answer = client.txn().when(same).then(ask).await?;
        if !answer.succeeded {
            return Ok(());
        }
        let from = answer.revision() + 1;
        let mut watch = client.watch(&owner.key).rev(from).no_put().await?;
        match watch.next().await.unwrap_or(Err(Error::Closed)) {
            Err(error) if error.is(EtcdError::Compacted) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Whether a read can be answered from memory: one key, as it is now.
fn is_plain(request: &pb::RangeRequest) -> bool {
    let plain = pb::RangeRequest {
        key: request.key.clone(),
        limit: request.limit,
        sort_order: request.sort_order,
        sort_target: SortTarget::Key as i32,
        serializable: request.serializable,
        ..Default::default()
    };
    *request == plain && request.limit >= 0 && !request.key.is_empty()
}

impl Kv for Leasing {
    fn range(
        &self,
        options: CallOptions,
        request: pb::RangeRequest,
    ) -> BoxFuture<Result<pb::RangeResponse>> {
        let this = self.clone();
        Box::pin(async move {
            let shared = &this.0.shared;
            if !is_plain(&request) {
                return shared.client.kv().range(options, request).await;
            }
            if let Some(known) = shared.cache.get(&request.key) {
                return Ok(known);
            }
            match shared.cache.session() {
                Some(session) => shared.acquire(options, request, &session).await,
                None => shared.client.kv().range(options, request).await,
            }
        })
    }

    fn range_stream(&self, options: CallOptions, request: pb::RangeRequest) -> RangeStream {
        self.0.shared.client.kv().range_stream(options, request)
    }

    fn put(
        &self,
        options: CallOptions,
        request: pb::PutRequest,
    ) -> BoxFuture<Result<pb::PutResponse>> {
        let this = self.clone();
        Box::pin(async move {
            match this.one(options, crate::Op::from(request).into()).await? {
                (header, Response::ResponsePut(answer)) => Ok(pb::PutResponse { header, ..answer }),
                _ => Err(Error::Malformed("the answer to a leasing put".into())),
            }
        })
    }

    fn delete_range(
        &self,
        options: CallOptions,
        request: pb::DeleteRangeRequest,
    ) -> BoxFuture<Result<pb::DeleteRangeResponse>> {
        let this = self.clone();
        Box::pin(async move {
            match this.one(options, crate::Op::from(request).into()).await? {
                (header, Response::ResponseDeleteRange(answer)) => {
                    Ok(pb::DeleteRangeResponse { header, ..answer })
                }
                _ => Err(Error::Malformed("the answer to a leasing deletion".into())),
            }
        })
    }

    fn txn(
        &self,
        options: CallOptions,
        request: pb::TxnRequest,
    ) -> BoxFuture<Result<pb::TxnResponse>> {
        let this = self.clone();
        Box::pin(async move {
            let shared = &this.0.shared;
            if crate::kv::reads_only(&request) {
                return shared.client.kv().txn(options, request).await;
            }
            shared.write(options, request).await
        })
    }

    fn compact(
        &self,
        options: CallOptions,
        request: pb::CompactionRequest,
    ) -> BoxFuture<Result<pb::CompactionResponse>> {
        self.0.shared.client.kv().compact(options, request)
    }
}

impl Leasing {
    /// A write of one operation.
    async fn one(
        &self,
        options: CallOptions,
        op: pb::RequestOp,
    ) -> Result<(Option<pb::ResponseHeader>, Response)> {
        let request = pb::TxnRequest { success: vec![op], ..Default::default() };
        let mut answer = self.0.shared.write(options, request).await?;
        let response = answer.responses.drain(..).next().and_then(|op| op.response);
        let response = response.ok_or_else(|| Error::Malformed("an empty answer".into()))?;
        Ok((answer.header, response))
    }
}
