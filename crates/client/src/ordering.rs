//! Reads that never go back: an answer older than one before it is asked for again, of another member.
//!
//! This matters for serializable reads alone, which any member answers from its own state; linearizable ones are in
//! order by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering as Atomic};
use std::time::Duration;

use crate::call::CallOptions;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::header::HasHeader;
use crate::kv::{BoxFuture, Kv, RangeStream};
use crate::pb;

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(20);

impl Client {
    /// The same client, whose answers never go back in time. If no member has caught up after `attempts` of them, the
    /// call fails with [`Error::OutOfOrder`].
    ///
    /// ```
    /// # etch_doctest::run(async |client| {
    /// let ordered = client.ordered(20);
    /// let first = ordered.get("a").serializable().await?;
    /// let second = ordered.get("a").serializable().await?; // of the same time, or later
    /// # let _ = (first, second);
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn ordered(&self, attempts: u32) -> Client {
        let seen = Arc::new(AtomicI64::new(0));
        self.with_kv(Arc::new(Ordered { inner: self.kv(), seen, attempts: attempts.max(1) }))
    }
}

#[derive(Clone)]
struct Ordered {
    inner: Arc<dyn Kv>,
    /// The newest revision that an answer bore.
    seen: Arc<AtomicI64>,
    attempts: u32,
}

impl Ordered {
    /// Asks until the answer is not older than what was seen before the question.
    async fn read<A: HasHeader>(&self, ask: impl Fn() -> BoxFuture<Result<A>>) -> Result<A> {
        for attempt in 1.. {
            let before = self.seen.load(Atomic::Acquire);
            let answer = ask().await?;
            let revision = answer.revision();
            if revision >= before {
                self.seen.fetch_max(revision, Atomic::AcqRel);
                return Ok(answer);
            }
            tracing::debug!(revision, before, "an answer from the past");
            if attempt >= self.attempts {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::OutOfOrder)
    }

    /// Writes are in order by themselves, and never repeated.
    fn note<A: HasHeader + 'static>(&self, answer: BoxFuture<Result<A>>) -> BoxFuture<Result<A>> {
        let seen = self.seen.clone();
        Box::pin(async move {
            let answer = answer.await?;
            seen.fetch_max(answer.revision(), Atomic::AcqRel);
            Ok(answer)
        })
    }
}

impl Kv for Ordered {
    fn range(
        &self,
        options: CallOptions,
        request: pb::RangeRequest,
    ) -> BoxFuture<Result<pb::RangeResponse>> {
        let this = self.clone();
        Box::pin(
            async move { this.read(|| this.inner.range(options.clone(), request.clone())).await },
        )
    }

    fn range_stream(&self, options: CallOptions, request: pb::RangeRequest) -> RangeStream {
        RangeStream::by_pages(Arc::new(self.clone()), options, request)
    }

    fn put(
        &self,
        options: CallOptions,
        request: pb::PutRequest,
    ) -> BoxFuture<Result<pb::PutResponse>> {
        self.note(self.inner.put(options, request))
    }

    fn delete_range(
        &self,
        options: CallOptions,
        request: pb::DeleteRangeRequest,
    ) -> BoxFuture<Result<pb::DeleteRangeResponse>> {
        self.note(self.inner.delete_range(options, request))
    }

    fn txn(
        &self,
        options: CallOptions,
        request: pb::TxnRequest,
    ) -> BoxFuture<Result<pb::TxnResponse>> {
        if !crate::kv::reads_only(&request) {
            return self.note(self.inner.txn(options, request));
        }
        let this = self.clone();
        Box::pin(
            async move { this.read(|| this.inner.txn(options.clone(), request.clone())).await },
        )
    }

    fn compact(
        &self,
        options: CallOptions,
        request: pb::CompactionRequest,
    ) -> BoxFuture<Result<pb::CompactionResponse>> {
        self.inner.compact(options, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn ordered(attempts: u32) -> Ordered {
        struct Nobody;
        fn never<T: Send + 'static>() -> BoxFuture<Result<T>> {
            Box::pin(std::future::pending())
        }
        impl Kv for Nobody {
            fn range(
                &self,
                _: CallOptions,
                _: pb::RangeRequest,
            ) -> BoxFuture<Result<pb::RangeResponse>> {
                never()
            }
            fn range_stream(&self, o: CallOptions, r: pb::RangeRequest) -> RangeStream {
                RangeStream::by_pages(Arc::new(Nobody), o, r)
            }
            fn put(&self, _: CallOptions, _: pb::PutRequest) -> BoxFuture<Result<pb::PutResponse>> {
                never()
            }
            fn delete_range(
                &self,
                _: CallOptions,
                _: pb::DeleteRangeRequest,
            ) -> BoxFuture<Result<pb::DeleteRangeResponse>> {
                never()
            }
            fn txn(&self, _: CallOptions, _: pb::TxnRequest) -> BoxFuture<Result<pb::TxnResponse>> {
                never()
            }
            fn compact(
                &self,
                _: CallOptions,
                _: pb::CompactionRequest,
            ) -> BoxFuture<Result<pb::CompactionResponse>> {
                never()
            }
        }
        Ordered { inner: Arc::new(Nobody), seen: Arc::default(), attempts }
    }

    async fn read(ordered: &Ordered, revisions: Vec<i64>) -> Result<i64> {
        let revisions = Mutex::new(revisions);
        let answer = ordered.read(|| {
            let revision = revisions.lock().expect("no panic").remove(0);
            let header = Some(pb::ResponseHeader { revision, ..Default::default() });
            Box::pin(async move { Ok(pb::RangeResponse { header, ..Default::default() }) })
        });
        answer.await.map(|answer| answer.revision())
    }

    #[tokio::test(start_paused = true)]
    async fn older_answers_are_asked_for_again_and_then_given_up() {
        let ordered = ordered(3);
        assert_eq!(read(&ordered, vec![5]).await, Ok(5));
        assert_eq!(read(&ordered, vec![3, 4, 5]).await, Ok(5));
        assert_eq!(read(&ordered, vec![3, 3, 3]).await, Err(Error::OutOfOrder));
        assert_eq!(read(&ordered, vec![9]).await, Ok(9));
        assert_eq!(read(&ordered, vec![8, 9]).await, Ok(9));
    }
}
