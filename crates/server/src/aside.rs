//! Work beside the store: on threads of its own, one for each core at a time, which stand back where the store wants to
//! go on. Not here: how much may wait for its turn.

use std::io;
use std::sync::Arc;
use std::thread;

use rustix::process::nice;
use tokio::sync::{Semaphore, oneshot};

/// How much nicer the threads are than the process: beside a thread of the store that has as much to do they get a quarter of the core.
const NICE: i32 = 5;

/// One kind of such work.
pub struct Aside {
    name: &'static str,
    turns: Arc<Semaphore>,
}

impl Aside {
    /// Work whose threads bear this name.
    pub fn new(name: &'static str) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { name, turns: Arc::new(Semaphore::new(cores)) }
    }

    /// Does a piece of work once it is its turn. It is ended also where nobody waits for it any more.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)?;
        let (tell, done) = oneshot::channel();
        // A thread's niceness is for life, so it serves for nothing else. Beside the work it costs little to make.
        thread::Builder::new().name(self.name.into()).spawn(move || {
            // Kept until the work is done.
            let _turn = turn;
            // On Linux a thread's own. Where it is refused, it is as fair as others.
            let _ = nice(NICE);
            let _ = tell.send(work());
        })?;
        done.await.map_err(io::Error::other)
    }

    /// Takes all turns, so that work waits.
    #[cfg(test)]
    pub async fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turns.acquire_many(self.turns.available_permits() as u32).await.expect("never closed")
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn work_stands_back_and_its_caller_does_not() {
        let before = getpriority_process(None).unwrap();
        let nice = Aside::new("test").run(|| getpriority_process(None).unwrap()).await.unwrap();
        assert_eq!(nice, (before + NICE).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn work_that_panics_fails_alone() {
        let aside = Aside::new("test");
        let failed = aside.run(|| panic!("as a broken invariant does")).await;
        assert!(failed.is_err());
        assert_eq!(aside.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_waits_for_its_turn() {
        let aside = Aside::new("test");
        let held = aside.hold().await;
        let mut work = std::pin::pin!(aside.run(|| 7));
        let pending =
            std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx).is_pending()));
        assert!(pending.await, "all turns are taken");
        drop(held);
        assert_eq!(work.await.unwrap(), 7);
    }
}
