//! The servers under test: each started in an empty directory, and what it uses. Not here: what is asked of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use etch_api::pb::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};

use crate::call;

const SERVE: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
/// The kernel counts a process's time in these, on every Linux that there is.
const TICK: Duration = Duration::from_millis(10);
/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// One of the two that are compared.
#[derive(Clone)]
pub struct Subject {
    /// `etcd` or `etch`.
    pub name: &'static str,
    /// Its program.
    pub program: PathBuf,
}

/// A running server. It is killed, and its directory removed, when it goes out of scope.
pub struct Server {
    program: PathBuf,
    dir: PathBuf,
    ports: [u16; 2],
    child: Option<Child>,
    memory: Option<Memory>,
    front: Option<Front>,
}

/// A proxy before a server: what is asked and measured then is the proxy.
struct Front {
    port: u16,
    child: Child,
    memory: Memory,
}

impl Drop for Front {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

fn kill(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let until = Instant::now() + STOP;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
}

impl Server {
    /// Starts a server on an empty directory and waits until it answers.
    pub fn start(subject: &Subject, under: &Path) -> Result<Server, String> {
        let dir = under.join(subject.name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let ports = free_ports()?;
        let mut server = Server {
            program: subject.program.clone(),
            dir,
            ports,
            child: None,
            memory: None,
            front: None,
        };
        server.launch()?;
        server.wait_serving()?;
        Ok(server)
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its clients find it.
    pub fn addr(&self) -> SocketAddr {
        let port = self.front.as_ref().map_or(self.ports[0], |front| front.port);
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Starts a proxy of the same make before it: `gateway` or `grpc-proxy`.
    pub fn put_behind(&mut self, proxy: &str) -> Result<(), String> {
        let [port, _] = free_ports()?;
        let log = File::create(self.dir.join("proxy-log")).map_err(|e| e.to_string())?;
        let copy = log.try_clone().map_err(|e| e.to_string())?;
        let child = Command::new(&self.program)
            .args([proxy, "start", "--listen-addr", &format!("127.0.0.1:{port}")])
            .args(["--endpoints", &format!("127.0.0.1:{}", self.ports[0])])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(|e| format!("{}: {e}", self.program.display()))?;
        let memory = Memory::watch(child.id());
        self.front = Some(Front { port, child, memory });
        self.wait_serving()
    }

    fn launch(&mut self) -> Result<(), String> {
        let [client, peer] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let log = File::create(self.dir.join("log")).map_err(|e| e.to_string())?;
        let copy = log.try_clone().map_err(|e| e.to_string())?;
        let child = Command::new(&self.program)
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(["--name", "bench", "--quota-backend-bytes", "8589934592"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(|e| format!("{}: {e}", self.program.display()))?;
        self.memory = Some(Memory::watch(child.id()));
        self.child = Some(child);
        Ok(())
    }

    fn wait_serving(&mut self) -> Result<(), String> {
        let until = Instant::now() + SERVE;
        let probe = pb::RangeRequest { key: b"probe".as_slice().into(), ..Default::default() };
        loop {
            let answer =
                call::unary::<pb::RangeResponse>(self.addr(), "/etcdserverpb.KV/Range", &probe);
            let Err(why) = answer else { return Ok(()) };
            if Instant::now() > until {
                return Err(format!("{} does not serve: {why}", self.program.display()));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// kill -9, and started again on what it left; returns how long it took until it answered.
    pub fn restart(&mut self) -> Result<Duration, String> {
        self.end();
        let start = Instant::now();
        self.launch()?;
        self.wait_serving()?;
        Ok(start.elapsed())
    }

    /// What it has used since it was started.
    pub fn usage(&self) -> Result<Usage, String> {
        if let Some(front) = &self.front {
            return Ok(Usage { cpu: cpu(front.child.id())?, ..Usage::default() });
        }
        let pid = self.child.as_ref().map(Child::id).ok_or("the server is not running")?;
        Usage::read(pid, self.addr())
    }

    /// The most memory that it had at once, since it was started or this was last called.
    pub fn peak(&self) -> Resident {
        let memory = self.front.as_ref().map(|front| &front.memory).or(self.memory.as_ref());
        memory.map(Memory::take_peak).unwrap_or_default()
    }

    /// The length of its `db` in bytes.
    pub fn db_len(&self) -> Result<u64, String> {
        let path = self.dir.join("data/member/snap/db");
        fs::metadata(&path).map(|db| db.len()).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn end(&mut self) {
        self.memory = None;
        if let Some(mut child) = self.child.take() {
            kill(&mut child);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Processor time, its own and the kernel's for it.
    pub cpu: Duration,
    /// Bytes that it made the kernel write to the disk.
    pub written: u64,
    /// Flushes of the log.
    pub log_flushes: u64,
    /// Commits of the file `db`.
    pub commits: u64,
}

impl Usage {
    fn read(pid: u32, addr: SocketAddr) -> Result<Usage, String> {
        let (log_flushes, commits) = flushes(addr)?;
        let written = proc_line(pid, "io", "write_bytes:")?;
        Ok(Usage { cpu: cpu(pid)?, written, log_flushes, commits })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written: self.written.saturating_sub(earlier.written),
            log_flushes: self.log_flushes.saturating_sub(earlier.log_flushes),
            commits: self.commits.saturating_sub(earlier.commits),
        }
    }
}

fn cpu(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // The name in parentheses may hold anything; user and system time are the 14th and 15th of all fields.
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// What this process has used so far.
pub fn own_cpu() -> Result<Duration, String> {
    cpu(std::process::id())
}

fn proc_line(pid: u32, file: &str, name: &str) -> Result<u64, String> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default())
}

/// Flushes of the log and commits of the file, by the server's own count.
fn flushes(addr: SocketAddr) -> Result<(u64, u64), String> {
    let text = |e: std::io::Error| format!("{addr}/metrics: {e}");
    let mut socket = TcpStream::connect(addr).map_err(text)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(text)?;
    let mut page = String::new();
    socket.read_to_string(&mut page).map_err(text)?;
    let count = |name: &str| {
        let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|n| n.trim().parse::<f64>().ok()).map(|n| n as u64)
    };
    let log = count("etcd_disk_wal_fsync_duration_seconds_count");
    let commits = count("etcd_disk_backend_commit_duration_seconds_count");
    log.zip(commits).ok_or_else(|| format!("{addr}/metrics counts no flushes"))
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Default)]
pub struct Resident {
    /// Of its own.
    pub anonymous: u64,
    /// Of files, which the kernel takes back when it needs the room.
    pub file: u64,
}

/// Looks at a process's memory again and again, and keeps the highest figures.
struct Memory {
    peaks: Arc<[AtomicU64; 2]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Memory {
    fn watch(pid: u32) -> Memory {
        let peaks: Arc<[AtomicU64; 2]> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (seen, ended) = (Arc::clone(&peaks), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for (peak, name) in seen.iter().zip(["RssAnon:", "RssFile:"]) {
                    let kib = proc_line(pid, "status", name).unwrap_or_default();
                    peak.fetch_max(kib << 10, Ordering::Relaxed);
                }
                thread::sleep(LOOK);
            }
        });
        Memory { peaks, stop, thread: Some(thread) }
    }

    fn take_peak(&self) -> Resident {
        // What it has now is looked at once more before the answer.
        thread::sleep(LOOK * 2);
        let [anonymous, file] = std::array::from_fn(|at| self.peaks[at].swap(0, Ordering::Relaxed));
        Resident { anonymous, file }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Two ports that nobody listens on.
fn free_ports() -> Result<[u16; 2], String> {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).map_err(|e| e.to_string());
    let (one, two) = (bind()?, bind()?);
    let port = |l: &TcpListener| l.local_addr().map(|a| a.port()).map_err(|e| e.to_string());
    Ok([port(&one)?, port(&two)?])
}
