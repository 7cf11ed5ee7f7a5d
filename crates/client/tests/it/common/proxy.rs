//! A TCP proxy that can be told to break: cut connections, swallow replies, hang.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Passes on what the client sends; holds the server's answers back.
    HoldReplies,
    /// Passes on half of the next piece of an answer, and then holds answers back. A new connection gets none.
    Halve,
    /// Holds both back.
    Hang,
    /// Closes connections, those that are open and those to come.
    Cut,
}

/// A proxy before one server.
pub struct Proxy {
    pub endpoint: String,
    mode: watch::Sender<Mode>,
    open: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before this address.
    pub async fn start(to: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let (mode, seen) = watch::channel(Mode::Pass);
        let open = Arc::new(AtomicUsize::new(0));
        let to: SocketAddr = to.parse().expect("an address");
        let (counter, asked) = (open.clone(), Arc::new(AtomicUsize::new(0)));
        let bytes = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, counter, bytes) = (seen.clone(), counter.clone(), bytes.clone());
                tokio::spawn(async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    serve(client, to, seen, &bytes).await;
                    counter.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Proxy { endpoint: format!("http://{at}"), mode, open, asked, task }
    }

    /// Changes what it does from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Closes what is open now, then passes on.
    pub async fn cut_once(&self) {
        self.set(Mode::Cut);
        super::until("connections are cut", || async { self.open() == 0 }).await;
        self.set(Mode::Pass);
    }

    /// How many bytes clients have sent through it.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    client: TcpStream,
    to: SocketAddr,
    mode: watch::Receiver<Mode>,
    asked: &AtomicUsize,
) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = mode.clone();
    let passing = &[Mode::Pass, Mode::HoldReplies, Mode::Halve];
    let requests = copy(from_client, to_server, mode.clone(), passing, asked);
    let answered = AtomicUsize::new(0);
    let replies = copy(from_server, to_client, mode, &[Mode::Pass], &answered);
    tokio::select! {
        () = requests => {}
        () = replies => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Copies while the mode is one of `passing`, and waits while it is not; counts bytes.
async fn copy(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    passing: &[Mode],
    bytes: &AtomicUsize,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut greeted = false;
    loop {
        let Ok(n) = from.read(&mut buffer).await else { return };
        if n == 0 {
            return;
        }
        let half = greeted && *mode.borrow() == Mode::Halve && !passing.contains(&Mode::Halve);
        if half && to.write_all(&buffer[..n / 2]).await.is_err() {
            return;
        }
        if mode.wait_for(|mode| passing.contains(mode)).await.is_err() {
            return;
        }
        let rest = if half { n / 2 } else { 0 };
        if to.write_all(&buffer[rest..n]).await.is_err() {
            return;
        }
        bytes.fetch_add(n, Ordering::SeqCst);
        greeted = true;
    }
}
