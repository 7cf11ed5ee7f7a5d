//! What the tests share: real servers to talk to, and a proxy that breaks connections in a chosen way.

#![allow(dead_code)] // Each test file uses its part.

pub mod proxy;
pub mod server;

use std::future::Future;
use std::time::Duration;

use etch_client::{Client, Config};

pub use proxy::{Mode, Proxy};
pub use server::{Kind, Server};

/// Longer than anything here should take; a test that gets there hangs.
pub const LIMIT: Duration = Duration::from_secs(240);

/// Threads of a test's runtime.
pub const THREADS: usize = 2;

/// Runs a test against etch, and against a real etcd where `ETCD_BIN` names one.
pub fn each<F: Future<Output = ()>>(test: impl Fn(Server) -> F) {
    for kind in Kind::all() {
        run(async {
            let server = Server::start(kind).await;
            test(server).await;
        });
    }
}

/// Runs a test in a runtime of its own, with a time limit.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// A client of this endpoint.
pub async fn client(endpoint: &str) -> Client {
    Client::connect(Config::new([endpoint])).await.expect("a client")
}

/// Asks again and again until the answer is yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut question: impl FnMut() -> F) {
    for _ in 0..2000 {
        if question().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: never");
}
