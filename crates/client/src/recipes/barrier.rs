//! Barriers: a door that somebody opens, and one that opens when enough have come.

use bytes::Bytes;

use super::unique_key;
use crate::bytes::IntoBytes;
use crate::client::Client;
use crate::concurrency::{Cleanup, Session};
use crate::error::{Error, EtcdError, Result};
use crate::header::HasHeader;
use crate::kv::{Compare, SortOrder, SortTarget, put};
use crate::{EventType, GetResponse};

/// A door: closed while held, open once released.
///
/// ```
/// use etch_client::recipes::Barrier;
///
/// # etch_doctest::run(async |client| {
/// let door = Barrier::new(&client, "migration");
/// door.hold().await?;
/// // Elsewhere: door.wait().await?
/// door.release().await?;
/// # Ok(())
/// # });
/// ```
pub struct Barrier {
    client: Client,
    key: Bytes,
}

impl Barrier {
    /// The barrier of this name.
    pub fn new(client: &Client, name: impl IntoBytes) -> Barrier {
        Barrier { client: client.clone(), key: name.into_bytes() }
    }

    /// Closes the door; [`Error::Locked`] if it is closed already.
    pub async fn hold(&self) -> Result<()> {
        let free = Compare::version(&self.key).equal(0);
        let answer = self.client.txn().when(free).then(put(&self.key, "")).await?;
        if answer.succeeded { Ok(()) } else { Err(Error::Locked) }
    }

    /// Opens the door.
    pub async fn release(&self) -> Result<()> {
        self.client.delete(&self.key).await.map(|_| ())
    }

    /// Waits until the door is open.
    pub async fn wait(&self) -> Result<()> {
        loop {
            let there = self.client.get(&self.key).await?;
            if there.kvs.is_empty() {
                return Ok(());
            }
            wait_for(&self.client, &self.key, there.revision() + 1, EventType::Delete).await?;
        }
    }
}

/// Waits for an event of this type, at this revision or later; returns early if the history before is gone.
async fn wait_for(client: &Client, key: &Bytes, from: i64, wanted: EventType) -> Result<()> {
    let mut watch = client.watch(key).rev(from).await?;
    loop {
        match watch.next().await.unwrap_or(Err(Error::Closed)) {
            Err(error) if error.is(EtcdError::Compacted) => return Ok(()),
            Err(error) => return Err(error),
            Ok(response) if response.events.iter().any(|e| e.r#type() == wanted) => return Ok(()),
            Ok(_) => {}
        }
    }
}

/// Lets a number of sessions in together, and out together. One that dies within counts as gone.
///
/// ```
/// use etch_client::concurrency::Session;
/// use etch_client::recipes::DoubleBarrier;
///
/// # etch_doctest::run(async |client| {
/// # for _ in 0..2 {
/// #     let client = client.clone();
/// #     tokio::spawn(async move {
/// #         let session = Session::new(&client).ttl(10).await?;
/// #         let mut stage = DoubleBarrier::new(&session, "stage-2", 3);
/// #         stage.enter().await?;
/// #         stage.leave().await
/// #     });
/// # }
/// let session = Session::new(&client).ttl(10).await?;
/// let mut stage = DoubleBarrier::new(&session, "stage-2", 3);
/// stage.enter().await?;
/// // What all three do at the same time.
/// stage.leave().await?;
/// # Ok(())
/// # });
/// ```
pub struct DoubleBarrier {
    session: Session,
    key: Bytes,
    count: usize,
    mine: Option<(Bytes, Cleanup)>,
}

impl DoubleBarrier {
    /// The barrier of this name, for this many.
    pub fn new(session: &Session, name: impl IntoBytes, count: usize) -> DoubleBarrier {
        DoubleBarrier { session: session.clone(), key: name.into_bytes(), count, mine: None }
    }

    fn key(&self, rest: &str) -> Bytes {
        Bytes::from([&self.key[..], rest.as_bytes()].concat())
    }

    async fn waiters(&self) -> Result<GetResponse> {
        let all = self.session.client().get(self.key("/waiters")).prefix();
        all.sort(SortTarget::Create, SortOrder::Ascend).await
    }

    /// Waits until all are here; [`Error::Locked`] if they are, without us.
    pub async fn enter(&mut self) -> Result<()> {
        let client = self.session.client().clone();
        if self.waiters().await?.kvs.len() >= self.count {
            return Err(Error::Locked);
        }
        let prefix = self.key("/waiters");
        let (key, created) =
            unique_key(&client, &prefix, Bytes::new(), self.session.lease()).await?;
        let cleanup = Cleanup::new(&client, key.clone(), created);
        let waiters = self.waiters().await?;
        if let Some(last) = waiters.kvs.get(self.count.saturating_sub(1)) {
            if created > last.create_revision {
                cleanup.now().await?;
                return Err(Error::Locked);
            }
            if created == last.create_revision {
                self.mine = Some((key, cleanup));
                return client.put(self.key("/ready"), "").await.map(|_| ());
            }
        }
        tokio::select! {
            waited = self.until_ready(&client, created) => waited?,
            why = self.session.lost() => return Err(why),
        }
        self.mine = Some((key, cleanup));
        Ok(())
    }

    async fn until_ready(&self, client: &Client, since: i64) -> Result<()> {
        let ready = self.key("/ready");
        loop {
            let there = client.get(&ready).await?;
            if there.kvs.first().is_some_and(|kv| kv.mod_revision >= since) {
                return Ok(());
            }
            wait_for(client, &ready, there.revision() + 1, EventType::Put).await?;
        }
    }

    /// Waits until all have left.
    pub async fn leave(&mut self) -> Result<()> {
        let client = self.session.client().clone();
        let mut mine = self.mine.take();
        loop {
            let waiters = self.waiters().await?;
            let (Some(first), Some(last)) = (waiters.kvs.first(), waiters.kvs.last()) else {
                return Ok(());
            };
            let is_first = mine.as_ref().is_some_and(|(key, _)| *key == first.key);
            if is_first && waiters.kvs.len() == 1 {
                client.delete(self.key("/ready")).await?;
            }
            // The first waits for the last; the others leave and wait for the first, which is thus the last to go.
            if !is_first || waiters.kvs.len() == 1 {
                if let Some((_, cleanup)) = mine.take() {
                    cleanup.now().await?;
                }
                if is_first {
                    return Ok(());
                }
            }
            let awaited = if is_first { &last.key } else { &first.key };
            let from = waiters.revision() + 1;
            wait_for(&client, awaited, from, EventType::Delete).await?;
        }
    }
}
