//! Waiting in line: the keys under a prefix are the line, in the order in which they were created.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::Session;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::header::HasHeader;
use crate::kv::{Compare, SortTarget, delete};
use crate::{EtcdError, EventType};

/// How long what is left behind may take to be tidied up.
const LIMIT: Duration = Duration::from_secs(10);

/// Waits until no key with this prefix was created at this revision or before. Only the key just before ours is
/// watched: a lock that is let go wakes one that waits, not all.
pub(crate) async fn wait_for_older(session: &Session, prefix: &Bytes, created: i64) -> Result<()> {
    let client = session.client();
    let waiting = async {
        loop {
            let read = client.get(prefix).last(SortTarget::Create).max_create_rev(created).await?;
            let Some(before) = read.kvs.first() else { return Ok(()) };
            match wait_for_delete(client, &before.key, read.revision() + 1).await {
                Err(error) if error.is(EtcdError::Compacted) => {}
                other => other?,
            }
        }
    };
    tokio::select! {
        done = waiting => done,
        why = session.lost() => Err(why),
    }
}

/// Waits until the key is deleted, at this revision or later.
pub(crate) async fn wait_for_delete(client: &Client, key: &Bytes, from: i64) -> Result<()> {
    let mut watch = client.watch(key).rev(from).no_put().await?;
    while let Some(response) = watch.next().await {
        if response?.events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
    }
    Err(Error::Closed)
}

/// A key of ours that goes with this value, unless it is let be: what a dropped future must not leave behind.
pub(crate) struct Cleanup {
    client: Client,
    key: Bytes,
    /// The revision at which the key was created; nothing is done to a later one of that name.
    created: i64,
    armed: bool,
}

impl Cleanup {
    pub fn new(client: &Client, key: Bytes, created: i64) -> Cleanup {
        Cleanup { client: client.clone(), key, created, armed: true }
    }

    /// Lets the key be.
    pub fn disarm(&mut self) {
        self.armed = false;
    }

    /// Deletes the key now.
    pub async fn now(mut self) -> Result<()> {
        // Disarmed only when done: if this future is dropped, the rest happens in the background.
        let done = Cleanup::delete(&self.client, &self.key, self.created).await;
        self.armed = done.is_err() && self.armed;
        done
    }

    async fn delete(client: &Client, key: &Bytes, created: i64) -> Result<()> {
        let ours = Compare::create_revision(key).equal(created);
        client.txn().when(ours).then(delete(key)).await.map(|_| ())
    }

    /// Runs something to its end though nobody waits for it.
    pub fn run(work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work);
        }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if !self.armed || self.client.is_closed() {
            return;
        }
        let (client, key, created) = (self.client.clone(), self.key.clone(), self.created);
        Cleanup::run(async move {
            let client = client.with_timeout(LIMIT);
            if let Err(error) = Cleanup::delete(&client, &key, created).await {
                tracing::warn!(?key, %error, "a key was left behind; it goes with its lease");
            }
        });
    }
}
