//! Recipes: queues, barriers, a read-write lock, laid out in keys as Go's recipes do, so that both can take part.

mod barrier;
mod queue;
mod rwlock;

pub use barrier::{Barrier, DoubleBarrier};
pub use queue::{PriorityQueue, Queue};
pub use rwlock::{RwGuard, RwLock};

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::client::Client;
use crate::error::Result;
use crate::header::HasHeader;
use crate::kv::{Compare, put};

/// Makes a key under the prefix that nobody else has, named after the time; the key and its revision.
async fn unique_key(
    client: &Client,
    prefix: &[u8],
    value: Bytes,
    lease: i64,
) -> Result<(Bytes, i64)> {
    let mut at = 0;
    loop {
        // A clock that stands still, or was set back, must not find the same name for ever.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        at = now.max(at + 1);
        let key = Bytes::from([prefix, b"/", at.to_string().as_bytes()].concat());
        let free = Compare::version(&key).equal(0);
        let write = put(&key, &value).lease(lease);
        let answer = client.txn().when(free).then(write).await?;
        if answer.succeeded {
            return Ok((key, answer.revision()));
        }
    }
}
