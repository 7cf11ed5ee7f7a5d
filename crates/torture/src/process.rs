//! The server as a process: started, probed, signalled, and how it ended compared with how it should have. Not
//! here: when any of that happens (`faults`, `run`).

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::ask;
use crate::client::Link;
use crate::shim::Shim;
use crate::world::World;

/// A start that takes longer has failed. Generous: the machine may be busy, and the disk as well.
const SERVE: Duration = Duration::from_secs(30);
/// An orderly stop that takes longer has failed.
const STOP: Duration = Duration::from_secs(15);

/// Ports below those that the kernel gives to clients: one of those could take ours between two starts.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// How a process was expected to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// By SIGKILL, ours or the shim's.
    Killed,
    /// In order, after SIGTERM.
    Orderly,
    /// By itself with code 1 and a message, since its disk does not do what it should.
    Failed,
    /// Either of the last two: a power cut where the disk had failed already.
    FailedOrKilled,
}

/// Why a start did not end in serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServing {
    /// It has ended instead.
    Ended,
    /// It takes too long.
    TooLong,
}

/// The server of one run, over all its lives.
pub struct Server {
    program: PathBuf,
    flags: Vec<String>,
    dir: PathBuf,
    /// Where its data is.
    pub data_dir: PathBuf,
    client_port: u16,
    peer_port: u16,
    /// What is between it and its disk.
    pub shim: Option<Shim>,
    world: Option<Arc<World>>,
    child: Option<Child>,
    starts: u32,
    /// What was wrong with how it ended, or did not.
    pub complaints: Vec<String>,
}

impl Server {
    /// A server that is not started yet.
    pub fn new(
        program: &Path,
        flags: &[String],
        dir: &Path,
        data_dir: &Path,
        shim: Option<Shim>,
    ) -> Result<Self, String> {
        let (client_port, peer_port) = (free_port()?, free_port()?);
        Ok(Self {
            program: program.into(),
            flags: flags.into(),
            dir: dir.into(),
            data_dir: data_dir.into(),
            client_port,
            peer_port,
            shim,
            world: None,
            child: None,
            starts: 0,
            complaints: Vec::new(),
        })
    }

    /// Where clients find it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Whose clients it serves.
    pub fn serve(&mut self, world: &Arc<World>) {
        self.world = Some(Arc::clone(world));
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Starts the process, without waiting for anything.
    pub fn launch(&mut self) -> Result<(), String> {
        self.starts += 1;
        let log = File::create(self.log_path(self.starts)).map_err(|e| e.to_string())?;
        let copy = log.try_clone().map_err(|e| e.to_string())?;
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let mut command = Command::new(&self.program);
        command
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--name", "tortured", "--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("tortured={peer}")])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .kill_on_drop(true);
        if let Some(shim) = &self.shim {
            shim.prepare(&mut command, &self.data_dir);
        }
        if let Some(world) = &self.world {
            world.started();
        }
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it and waits until it serves.
    pub async fn start(&mut self) -> Result<(), String> {
        self.launch()?;
        match self.wait_serving().await {
            Ok(()) => Ok(()),
            Err(why) => Err(format!("start {}: {why:?}\n{}", self.starts, self.log_tail())),
        }
    }

    /// Waits until it answers a linearizable read.
    pub async fn wait_serving(&mut self) -> Result<(), NotServing> {
        let until = Instant::now() + SERVE;
        loop {
            if self.ended().is_some() {
                return Err(NotServing::Ended);
            }
            if Instant::now() > until {
                return Err(NotServing::TooLong);
            }
            if self.answers().await {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn answers(&self) -> bool {
        let limit = Duration::from_secs(2);
        let Ok(mut link) = Link::connect(&self.endpoint(), limit).await else { return false };
        let probe = pb::RangeRequest { count_only: true, ..ask::get("probe", 0) };
        let answer: Result<pb::RangeResponse, _> =
            link.unary("/etcdserverpb.KV/Range", probe, limit).await;
        let Ok(answer) = answer else { return false };
        if let (Some(world), Some(header)) = (&self.world, &answer.header) {
            world.set_member(header.member_id);
        }
        true
    }

    /// True if there is a process, whether or not it serves.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// How it has ended, if it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|c| c.try_wait().ok().flatten())
    }

    /// Sends a signal to the process, by its id.
    pub fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let id = self.child.as_ref().and_then(Child::id).ok_or("the server is not running")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or("not a process id")?;
        kill_process(pid, signal).map_err(|e| format!("signal: {e}"))
    }

    /// kill -9, and its end.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::KILL)?;
        self.await_end(STOP, Expected::Killed).await.map(drop)
    }

    /// SIGTERM, and its end in order.
    pub async fn terminate(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM)?;
        if self.await_end(STOP, Expected::Orderly).await? {
            return Ok(());
        }
        self.complaints.push(format!("SIGTERM did not end it within {STOP:?}"));
        self.kill().await
    }

    /// Waits for its end and compares it with what was expected. False if it goes on.
    pub async fn await_end(&mut self, limit: Duration, expected: Expected) -> Result<bool, String> {
        let Some(child) = self.child.as_mut() else { return Ok(true) };
        let status = match timeout(limit, child.wait()).await {
            Err(_) => return Ok(false),
            Ok(status) => status.map_err(|e| format!("wait: {e}"))?,
        };
        self.child = None;
        self.judge_end(status, expected);
        Ok(true)
    }

    fn judge_end(&mut self, status: ExitStatus, expected: Expected) {
        let killed = status.signal() == Some(9);
        let log = fs::read_to_string(self.log_path(self.starts)).unwrap_or_default();
        let said_why = log.contains("\"level\":\"error\"") || log.contains("\"level\":\"fatal\"");
        let failed = status.code() == Some(1) && said_why;
        let fits = match expected {
            Expected::Killed => killed,
            // etcd raises the signal again once it has stopped in order.
            Expected::Orderly => {
                log.contains("closed etcd server")
                    && (status.code() == Some(0) || status.signal() == Some(15))
            }
            Expected::Failed => failed,
            Expected::FailedOrKilled => failed || killed,
        };
        if !fits {
            self.complaints.push(format!(
                "life {} was expected to end as {expected:?}: {status}{}\n{}",
                self.starts,
                if said_why { "" } else { ", without an error in its log" },
                self.log_tail()
            ));
        }
    }

    fn log_path(&self, start: u32) -> PathBuf {
        self.dir.join(format!("server-{start}.log"))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path(self.starts)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        // The line with all of the configuration is long.
        let short = |line: &&str| line.chars().take(400).collect::<String>();
        let last = &lines[lines.len().saturating_sub(6)..];
        last.iter().map(short).collect::<Vec<_>>().join("\n")
    }

    /// Lines of any life's log that tell of a panic.
    pub fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for start in 1..=self.starts {
            let log = fs::read_to_string(self.log_path(start)).unwrap_or_default();
            let tells = |line: &&str| {
                line.contains("panicked")
                    || line.contains("\"level\":\"panic\"")
                    || line.contains("torture shim:")
            };
            found.extend(log.lines().filter(tells).map(|line| format!("life {start}: {line}")));
        }
        found
    }
}

/// A port that nobody listens on, not given before.
fn free_port() -> Result<u16, String> {
    let base = 20_000 + (std::process::id() % 100) as u16 * 100;
    for _ in 0..10_000 {
        let port = 20_000 + (base - 20_000 + NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port on 127.0.0.1".into())
}
