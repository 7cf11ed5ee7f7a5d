//! Copying a prefix: first everything as it is at one revision, then every change after it.

use bytes::Bytes;

use crate::bytes::IntoBytes;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::header::HasHeader;
use crate::kv::RangeStream;
use crate::watch::WatchStream;

/// Reads a prefix in a way that lets a copy of it be kept: nothing between [`Syncer::base`] and [`Syncer::updates`] is
/// missed or seen twice.
///
/// ```
/// use etch_client::mirror::Syncer;
///
/// # etch_doctest::run(async |client| {
/// # let copy = client.namespaced("copy/");
/// # client.put("config/color", "blue").await?;
/// let mut syncer = Syncer::new(&client, "config/");
/// let mut base = syncer.base().await?;
/// while let Some(piece) = base.next().await {
///     for kv in piece?.kvs {
///         copy.put(kv.key, kv.value).await?;
///     }
/// }
/// let mut updates = syncer.updates().await?;
/// # client.put("config/color", "green").await?;
/// while let Some(response) = updates.next().await {
///     println!("{} changes", response?.events.len());
///     # break;
/// }
/// # Ok(())
/// # });
/// ```
pub struct Syncer {
    client: Client,
    prefix: Bytes,
    revision: i64,
}

impl Syncer {
    /// Will read all keys with this prefix; with the empty one, all keys.
    pub fn new(client: &Client, prefix: impl IntoBytes) -> Syncer {
        Syncer { client: client.clone(), prefix: prefix.into_bytes(), revision: 0 }
    }

    /// Will begin with this revision, where a copy was left off before.
    #[must_use]
    pub fn rev(mut self, revision: i64) -> Syncer {
        self.revision = revision;
        self
    }

    /// The revision that [`Syncer::base`] reads; zero before it is known.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Everything as it is at one revision.
    pub async fn base(&mut self) -> Result<RangeStream> {
        if self.revision == 0 {
            let now = self.client.get(&self.prefix).prefix().count_only().await?;
            self.revision = now.revision();
        }
        Ok(self.client.get(&self.prefix).prefix().rev(self.revision).stream())
    }

    /// Every change after that revision.
    pub async fn updates(&self) -> Result<WatchStream> {
        if self.revision == 0 {
            return Err(Error::Invalid("read the base first, or say from which revision".into()));
        }
        self.client.watch(&self.prefix).prefix().rev(self.revision + 1).await
    }
}
