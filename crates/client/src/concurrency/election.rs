//! Elections: whoever's key under the prefix is the oldest leads.

use std::collections::VecDeque;

use bytes::Bytes;
use etch_api::line;
use etch_api::pb::mvccpb::KeyValue;

use super::{Cleanup, Session, wait_for_older};
use crate::bytes::IntoBytes;
use crate::error::{Error, Result};
use crate::header::HasHeader;
use crate::kv::{BoxStream, Compare, Comparison, SortTarget, get, put};
use crate::pb::{self, response_op::Response};
use crate::watch::WatchStream;
use crate::{EtcdError, EventType};

/// An election.
///
/// ```
/// use etch_client::concurrency::{Election, Session};
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// let election = Election::new(&session, "elections/scheduler");
/// let mut leadership = election.campaign("host-1").await?;
/// leadership.proclaim("host-1, busy").await?;
/// leadership.resign().await?;
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct Election {
    session: Session,
    prefix: Bytes,
}

/// Being the leader. Dropping it resigns in the background; [`Leadership::resign`] waits for that.
///
/// It is over when the session's lease is: watch [`Session::lost`], and write under [`Leadership::is_leader`].
///
/// ```
/// use etch_client::concurrency::{Election, Session};
/// use etch_client::put;
///
/// # etch_doctest::run(async |client| {
/// let session = Session::new(&client).ttl(10).await?;
/// let mut leadership = Election::new(&session, "scheduler").campaign("host-1").await?;
/// leadership.proclaim("host-1, busy").await?;
/// // Done only as long as we lead.
/// client.txn().when(leadership.is_leader()).then(put("plan", "7")).await?;
/// leadership.resign().await?;
/// # Ok(())
/// # });
/// ```
#[must_use = "dropping it resigns"]
pub struct Leadership {
    session: Session,
    key: Bytes,
    created: i64,
    header: pb::ResponseHeader,
    cleanup: Cleanup,
}

impl Election {
    /// An election of this name.
    pub fn new(session: &Session, name: impl IntoBytes) -> Election {
        let prefix = line::prefix(&name.into_bytes());
        Election { session: session.clone(), prefix }
    }

    /// Stands for election with a value, and waits until elected. Dropping the future withdraws.
    pub async fn campaign(&self, value: impl IntoBytes) -> Result<Leadership> {
        let value = value.into_bytes();
        if self.session.is_lost() {
            return Err(Error::LeaseLost(self.session.lease()));
        }
        let (client, lease) = (self.session.client(), self.session.lease());
        let key = line::key(&self.prefix, lease);
        let answer = client
            .txn()
            .when(Compare::create_revision(&key).equal(0))
            .then(put(&key, &value).lease(lease))
            .otherwise(get(&key))
            .await?;
        let mut created = answer.revision();
        let mut before = None;
        if !answer.succeeded {
            let kv = only(&answer)?;
            created = kv.create_revision;
            before = Some(kv.value.clone());
        }
        let mut leadership = self.resume(key, created);
        leadership.header = answer.header.unwrap_or_default();
        if before.is_some_and(|before| before != value) {
            leadership.proclaim(value).await?;
        }
        wait_for_older(&self.session, &self.prefix, created - 1).await?;
        // Elected is only who still stands.
        let mine = client.get(&leadership.key).await?;
        match mine.kvs.first() {
            Some(kv) if kv.create_revision == created => Ok(leadership),
            _ => Err(Error::LeaseLost(lease)),
        }
    }

    /// Takes up a leadership that was [kept](Leadership::keep), with the session's lease.
    pub fn resume(&self, key: impl IntoBytes, created: i64) -> Leadership {
        let key = key.into_bytes();
        let cleanup = Cleanup::new(self.session.client(), key.clone(), created);
        let header = pb::ResponseHeader::default();
        Leadership { session: self.session.clone(), key, created, header, cleanup }
    }

    /// The leader's key and value; [`Error::NotLeading`] if there is none.
    pub async fn leader(&self) -> Result<KeyValue> {
        let read = self.session.client().get(&self.prefix).first(SortTarget::Create).await?;
        read.kvs.into_iter().next().ok_or(Error::NotLeading)
    }

    /// Every leader from now on, and what it proclaims: the newest always, those before it not necessarily.
    ///
    /// ```
    /// use etch_client::concurrency::{Election, Session};
    /// use futures_util::StreamExt;
    ///
    /// # etch_doctest::run(async |client| {
    /// let session = Session::new(&client).ttl(10).await?;
    /// let election = Election::new(&session, "scheduler");
    /// # let _leadership = election.campaign("host-1").await?;
    /// let mut leaders = election.observe();
    /// while let Some(leader) = leaders.next().await {
    ///     println!("{:?} leads", leader?.value);
    ///     # break;
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub fn observe(&self) -> BoxStream<Result<KeyValue>> {
        let observer =
            Observer { election: self.clone(), state: Observing::Look, ready: VecDeque::new() };
        Box::pin(futures_util::stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

/// The only key of the transaction's only read.
fn only(answer: &pb::TxnResponse) -> Result<&KeyValue> {
    match answer.responses.first().and_then(|r| r.response.as_ref()) {
        Some(Response::ResponseRange(range)) if !range.kvs.is_empty() => Ok(&range.kvs[0]),
        _ => Err(Error::Malformed("the answer to a campaign's transaction".into())),
    }
}

impl Leadership {
    /// The leader's key.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The revision at which the key was created: it grows with each leader.
    pub fn revision(&self) -> i64 {
        self.created
    }

    /// The header of the last answer.
    pub fn header(&self) -> &pb::ResponseHeader {
        &self.header
    }

    /// Holds in a transaction as long as this leadership does.
    pub fn is_leader(&self) -> Comparison {
        Compare::create_revision(&self.key).equal(self.created)
    }

    /// Announces another value, without another election.
    pub async fn proclaim(&mut self, value: impl IntoBytes) -> Result<()> {
        let announce = put(&self.key, value).lease(self.session.lease());
        let client = self.session.client();
        let answer = client.txn().when(self.is_leader()).then(announce).await?;
        if !answer.succeeded {
            self.cleanup.disarm();
            return Err(Error::NotLeading);
        }
        self.header = answer.header.unwrap_or_default();
        Ok(())
    }

    /// Steps down, and waits until the next one may lead.
    pub async fn resign(self) -> Result<()> {
        self.cleanup.now().await
    }

    /// Keeps leading until the session ends: its key and revision, for [`Election::resume`].
    pub fn keep(mut self) -> (Bytes, i64) {
        self.cleanup.disarm();
        (self.key.clone(), self.created)
    }
}

struct Observer {
    election: Election,
    state: Observing,
    ready: VecDeque<KeyValue>,
}

enum Observing {
    /// Who leads?
    Look,
    /// Nobody: the first to stand does.
    Empty(WatchStream),
    /// Somebody: what it proclaims, until its key goes.
    Leader(WatchStream),
}

impl Observer {
    async fn next(&mut self) -> Result<KeyValue> {
        loop {
            if let Some(leader) = self.ready.pop_front() {
                return Ok(leader);
            }
            let step = match &mut self.state {
                Observing::Look => self.look().await,
                Observing::Empty(watch) | Observing::Leader(watch) => {
                    let response = watch.next().await.unwrap_or(Err(Error::Closed));
                    response.map(|response| self.take(response.events))
                }
            };
            match step {
                // What was to be seen is gone: whoever leads now is seen by looking.
                Err(error) if error.is(EtcdError::Compacted) => self.state = Observing::Look,
                other => other?,
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        let client = self.election.session.client();
        let read = client.get(&self.election.prefix).first(SortTarget::Create).await?;
        let from = read.revision() + 1;
        self.state = match read.kvs.into_iter().next() {
            None => Observing::Empty(client.watch(&self.election.prefix).prefix().rev(from).await?),
            Some(leader) => {
                let watch = client.watch(&leader.key).rev(from).await?;
                self.ready.push_back(leader);
                Observing::Leader(watch)
            }
        };
        Ok(())
    }

    fn take(&mut self, events: Vec<crate::Event>) {
        let was_empty = matches!(self.state, Observing::Empty(_));
        for event in events {
            if event.r#type() == EventType::Delete {
                if !was_empty {
                    self.state = Observing::Look;
                    return;
                }
            } else if was_empty {
                // Looking again finds it, or whoever leads by then.
                self.state = Observing::Look;
                return;
            } else {
                self.ready.extend(event.kv);
            }
        }
    }
}
