//! Real servers as child processes: etch, and etcd where there is one.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use etch_client::{Client, Config, Tls};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Etch,
    Etcd,
}

impl Kind {
    /// Those that can be started here.
    pub fn all() -> Vec<Kind> {
        let mut all = vec![Kind::Etch];
        if std::env::var_os("ETCD_BIN").is_some() {
            all.push(Kind::Etcd);
        }
        all
    }

    fn binary(self) -> PathBuf {
        match self {
            Kind::Etcd => std::env::var_os("ETCD_BIN").expect("ETCD_BIN").into(),
            Kind::Etch => etch(),
        }
    }
}

/// etch's binary: what `ETCH_BIN` names, or built now.
fn etch() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("ETCH_BIN") {
                return path.into();
            }
            let status = Command::new(env!("CARGO"))
                .args(["build", "-q", "-p", "etch"])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo runs");
            assert!(status.success(), "etch does not build");
            // The test's own binary lies in <target>/debug/deps.
            let here = std::env::current_exe().expect("a path");
            here.ancestors().nth(2).expect("a target directory").join("etch")
        })
        .clone()
}

/// A server of one member; it ends with this value.
pub struct Server {
    pub kind: Kind,
    pub endpoint: String,
    dir: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server on an empty directory and waits until it answers.
    pub async fn start(kind: Kind) -> Server {
        Server::start_with(kind, &[]).await
    }

    /// The same, with more flags.
    pub async fn start_with(kind: Kind, more: &[&str]) -> Server {
        let (client, peer) = (free_port(), free_port());
        let endpoint = format!("http://127.0.0.1:{client}");
        Server::start_at(kind, &endpoint, &format!("http://127.0.0.1:{peer}"), more).await
    }

    /// The same, on these URLs.
    pub async fn start_at(kind: Kind, endpoint: &str, peer: &str, more: &[&str]) -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("etch-client-test-{}-{number}", std::process::id()));
        let mut args = vec![
            "--name=m0".to_owned(),
            format!("--data-dir={}", dir.display()),
            format!("--listen-client-urls={endpoint}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=m0={peer}"),
            format!("--initial-cluster-token=t{}-{number}", std::process::id()),
        ];
        args.extend(more.iter().map(|&flag| flag.to_owned()));
        let mut server = Server { kind, endpoint: endpoint.to_owned(), dir, args, child: None };
        server.spawn();
        server.wait().await;
        server
    }

    /// A real etcd that makes itself a certificate.
    pub async fn start_secured(endpoint: &str, peer: &str) -> Server {
        Server::start_at(Kind::Etcd, endpoint, peer, &["--auto-tls"]).await
    }

    /// Starts the process again, on the same directory and ports.
    pub fn spawn(&mut self) {
        let child = Command::new(self.kind.binary())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("the server starts"));
    }

    /// Waits until it answers.
    pub async fn wait(&self) {
        let tls = Tls::new().dangerously_skip_verify();
        let config = Config::new([self.endpoint.as_str()]);
        let config = if self.endpoint.starts_with("https") { config.tls(tls) } else { config };
        let client = Client::connect(config).await.expect("a client");
        super::until("the server answers", || async { client.get("ready?").await.is_ok() }).await;
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        super::client(&self.endpoint).await
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://").trim_start_matches("https://")
    }

    /// Kills the process at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process without ending it (SIGSTOP), or lets it go on (SIGCONT).
    pub fn pause(&self, pause: bool) {
        let pid = self.child.as_ref().expect("runs").id().to_string();
        let signal = if pause { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
