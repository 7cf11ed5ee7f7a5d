//! Queues with many writers and many readers; each item is taken once.

use bytes::Bytes;
use etch_api::pb::mvccpb::KeyValue;

use super::unique_key;
use crate::bytes::IntoBytes;
use crate::client::Client;
use crate::error::{Error, EtcdError, Result};
use crate::header::HasHeader;
use crate::kv::{Compare, SortTarget, delete, put};

/// First in, first out.
///
/// ```
/// use etch_client::recipes::Queue;
///
/// # etch_doctest::run(async |client| {
/// let queue = Queue::new(&client, "jobs");
/// queue.enqueue("resize 7.png").await?;
/// println!("{:?}", queue.dequeue().await?);
/// # Ok(())
/// # });
/// ```
pub struct Queue {
    client: Client,
    prefix: Bytes,
}

impl Queue {
    /// The queue of this name.
    pub fn new(client: &Client, name: impl IntoBytes) -> Queue {
        Queue { client: client.clone(), prefix: name.into_bytes() }
    }

    /// Adds an item at the end.
    pub async fn enqueue(&self, item: impl IntoBytes) -> Result<()> {
        unique_key(&self.client, &self.prefix, item.into_bytes(), 0).await.map(|_| ())
    }

    /// Takes the item at the head; waits if there is none.
    ///
    /// If the answer is lost, the error [may hide](Error::may_have_happened) an item that was taken. Give work that must
    /// be done whoever dies a lease and a lock instead.
    pub async fn dequeue(&self) -> Result<Bytes> {
        let prefix = [&self.prefix[..], b"/"].concat();
        take_first(&self.client, &prefix, SortTarget::Mod).await
    }
}

/// The smallest priority first; within one, first in, first out.
///
/// ```
/// use etch_client::recipes::PriorityQueue;
///
/// # etch_doctest::run(async |client| {
/// let queue = PriorityQueue::new(&client, "jobs");
/// queue.enqueue("sometime", 10).await?;
/// queue.enqueue("now", 1).await?;
/// assert_eq!(queue.dequeue().await?, "now");
/// # Ok(())
/// # });
/// ```
pub struct PriorityQueue {
    client: Client,
    prefix: Bytes,
}

impl PriorityQueue {
    /// The queue of this name.
    pub fn new(client: &Client, name: impl IntoBytes) -> PriorityQueue {
        let prefix = [&name.into_bytes()[..], b"/"].concat().into();
        PriorityQueue { client: client.clone(), prefix }
    }

    /// Adds an item.
    pub async fn enqueue(&self, item: impl IntoBytes, priority: u16) -> Result<()> {
        let item = item.into_bytes();
        let prefix = [&self.prefix[..], format!("{priority:05}").as_bytes()].concat();
        // Two who add at once would take the same number: the second finds this key written since it looked.
        let base = [b"__", &prefix[..]].concat();
        loop {
            let last = self.client.get([&prefix[..], b"/"].concat()).last(SortTarget::Key).await?;
            let number = match last.kvs.first() {
                None => 0,
                Some(kv) => number_of(kv)? + 1,
            };
            let key = [&prefix[..], format!("/{number:016}").as_bytes()].concat();
            let unchanged = Compare::mod_revision(&base).less(last.revision() + 1);
            let txn = self.client.txn().when(unchanged).then(put(&base, "")).then(put(key, &item));
            if txn.await?.succeeded {
                return Ok(());
            }
        }
    }

    /// Takes the item at the head; waits if there is none.
    pub async fn dequeue(&self) -> Result<Bytes> {
        take_first(&self.client, &self.prefix, SortTarget::Key).await
    }
}

/// The number at the end of a key.
fn number_of(kv: &KeyValue) -> Result<u64> {
    let text = std::str::from_utf8(&kv.key).ok().and_then(|key| key.rsplit('/').next());
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::Malformed(format!("a queue's key {:?}", kv.key)))
}

/// Takes the first item by this order; waits if there is none.
async fn take_first(client: &Client, prefix: &[u8], order: SortTarget) -> Result<Bytes> {
    loop {
        let first = client.get(prefix).first(order).await?;
        let revision = first.revision();
        if let Some(kv) = first.kvs.into_iter().next() {
            let unchanged = Compare::mod_revision(&kv.key).equal(kv.mod_revision);
            if client.txn().when(unchanged).then(delete(&kv.key)).await?.succeeded {
                return Ok(kv.value);
            }
            continue;
        }
        let mut watch = client.watch(prefix).prefix().rev(revision + 1).no_delete().await?;
        match watch.next().await.unwrap_or(Err(Error::Closed)) {
            Err(error) if error.is(EtcdError::Compacted) => {}
            other => _ = other?,
        }
    }
}
