//! A server with a constant reply and, on another thread, a client that keeps
//! it busy: what a unary call costs the server in CPU, kernel included.
//!
//! `cargo run --release -p etch-rpc --example echo -- [connections] [in flight] [seconds]`

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use etch_rpc::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Echo {
    stats: Stats,
    answer: Bytes,
}

impl Handler for Echo {
    fn route(&self, path: &str) -> Route {
        match path {
            "/etcdserverpb.KV/Put" => Route::Unary(0),
            _ => Route::UnknownService,
        }
    }

    fn unary(&self, _method: u16, _call: CallInfo, _message: Bytes, reply: Reply) {
        reply.ok(self.answer.clone());
    }

    fn stream(
        self: Rc<Self>,
        _method: u16,
        _call: CallInfo,
        _messages: MessageStream,
        _sender: StreamSender,
    ) -> LocalFuture<Status> {
        Box::pin(async { Status::OK })
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// CPU time of this thread so far: user and system, in clock ticks of 10 ms.
fn thread_cpu() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let tick = |i: usize| fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0);
    (tick(11), tick(12))
}

fn on_one_thread<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    LocalSet::new().block_on(&runtime, future)
}

async fn serve(listener: std::net::TcpListener, stop: Arc<AtomicBool>) {
    let listener = TcpListener::from_std(listener).expect("listener");
    let echo = Rc::new(Echo { stats: Stats::default(), answer: Bytes::from(vec![7; 28]) });
    let limits = Rc::new(Limits::default());
    let accept = async {
        loop {
            let (socket, _) = listener.accept().await.expect("accept");
            socket.set_nodelay(true).expect("nodelay");
            let never = std::future::pending();
            let serving =
                serve_connection(socket, echo.clone(), Peer::default(), limits.clone(), never);
            spawn_local(async move { drop(serving.await) });
        }
    };
    let (user, system) = thread_cpu();
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! { () = accept => {}, () = stopped => {} }
    let calls = echo.stats.calls.get() as f64;
    let (user2, system2) = thread_cpu();
    println!(
        "server: {calls} calls, {:.2} us a call in user space, {:.2} us in the kernel",
        (user2 - user) as f64 * 10_000.0 / calls,
        (system2 - system) as f64 * 10_000.0 / calls,
    );
}

async fn call(client: &mut h2::client::SendRequest<Bytes>, body: Bytes) {
    std::future::poll_fn(|cx| client.poll_ready(cx)).await.expect("ready");
    let request = http::Request::post("http://localhost/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "grpc-go/1.82.1")
        .body(())
        .expect("request");
    let (response, mut send) = client.send_request(request, false).expect("send");
    send.send_data(body, true).expect("body");
    let mut body = response.await.expect("response").into_body();
    while let Some(data) = body.data().await {
        let n = data.expect("data").len();
        body.flow_control().release_capacity(n).expect("release");
    }
    body.trailers().await.expect("trailers").expect("some");
}

async fn load(
    address: std::net::SocketAddr,
    connections: usize,
    in_flight: usize,
    until: Instant,
    done: Arc<AtomicU64>,
) {
    let mut body = BytesMut::new();
    body.put_slice(&[0, 0, 0, 1, 24]);
    body.put_bytes(1, 280);
    let body = body.freeze();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let socket = TcpStream::connect(address).await.expect("connect");
        socket.set_nodelay(true).expect("nodelay");
        let (client, connection) = h2::client::handshake(socket).await.expect("handshake");
        spawn_local(async move { drop(connection.await) });
        for _ in 0..in_flight {
            let (mut client, body, done) = (client.clone(), body.clone(), done.clone());
            tasks.push(spawn_local(async move {
                while Instant::now() < until {
                    call(&mut client, body.clone()).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    }
    for task in tasks {
        task.await.expect("task");
    }
}

fn main() {
    let arg =
        |n: usize, or: usize| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(or);
    let (connections, in_flight, seconds) = (arg(1, 50), arg(2, 20), arg(3, 5));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    let address = listener.local_addr().expect("address");
    let stop = Arc::new(AtomicBool::new(false));
    let server = {
        let stop = stop.clone();
        std::thread::spawn(move || on_one_thread(serve(listener, stop)))
    };
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    on_one_thread(load(address, connections, in_flight, until, done.clone()));
    println!("client: {} calls/s", done.load(Ordering::Relaxed) / seconds as u64);
    stop.store(true, Ordering::Relaxed);
    server.join().expect("server");
}
