//! What runs the examples in the documentation of `etch-client`: each gets a server and a directory of its own, and a
//! client. Not here: any example.
//!
//! `ETCH_BIN` names the server, as it does for the tests that need one; `cargo xtask gate` sets it. Without it an
//! example is compiled, and says that it was not run.

#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etch_client::Client;

/// How an example ends.
pub type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// Longer than an example takes on the slowest of machines.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs an example with a client of an empty server.
///
/// ```
/// etch_doctest::run(async |client| {
///     client.put("color", "blue").await?;
///     Ok(())
/// });
/// ```
///
/// # Panics
///
/// Where the example fails or hangs.
pub fn run(example: impl AsyncFnOnce(Client) -> Ended) {
    let Some(binary) = std::env::var_os("ETCH_BIN") else {
        println!("not run: ETCH_BIN names no server");
        return;
    };
    let server = Server::start(binary);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ended = runtime.block_on(async {
        let client = Client::connect([server.endpoint().as_str()]).await?;
        let limited = tokio::time::timeout(LIMIT, async {
            while client.member_list().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            example(client).await
        });
        limited.await?
    });
    drop(server);
    if let Err(why) = ended {
        panic!("the example failed: {why}");
    }
}

/// A server as a child process. It listens to clients on a socket within its directory, and to peers on any port that
/// is free: as many as there are examples can start at once.
struct Server {
    dir: PathBuf,
    child: Child,
}

impl Server {
    fn start(binary: OsString) -> Server {
        let dir = std::env::temp_dir().join(format!("etch-doctest-{}", std::process::id()));
        fs::create_dir(&dir).expect("a directory");
        let endpoint = endpoint(&dir);
        let child = Command::new(binary)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", "http://127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server that ETCH_BIN names starts");
        Server { dir, child }
    }

    fn endpoint(&self) -> String {
        endpoint(&self.dir)
    }
}

fn endpoint(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
