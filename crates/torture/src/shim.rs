//! The shim's other side: builds it, and writes into its page what is to happen. Not here: the shim
//! (`shim.c`), nor when anything happens (`faults`).
//!
//! Why LD_PRELOAD: it needs no privilege and no kernel module (FUSE needs both), it sees every single call
//! that the server makes through libc, so that a run can end exactly before, in or after the n-th of them,
//! and the same library moves the clock. What it does not see: `fallocate` and mappings, of which the server's
//! are for reading alone.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

const SOURCE: &str = include_str!("shim.c");

/// Files that a fault is about; bits.
pub mod files {
    /// Segments of the log.
    pub const WAL: u64 = 1;
    /// The B+tree.
    pub const DB: u64 = 2;
    /// Raft snapshots.
    pub const SNAP: u64 = 4;
    /// Flushes of directories.
    pub const DIRECTORY: u64 = 8;
    /// All of them, and whatever else lies in the data directory.
    pub const ANY: u64 = 31;
}

/// Calls that a fault is about; bits.
pub mod calls {
    /// `pwrite` and `write`.
    pub const WRITE: u64 = 1;
    /// `fsync` and `fdatasync`.
    pub const FLUSH: u64 = 2;
    /// `ftruncate`.
    pub const CUT: u64 = 4;
    /// `rename`.
    pub const RENAME: u64 = 8;
    /// `unlink`.
    pub const UNLINK: u64 = 16;
    /// `open` of a new file.
    pub const CREATE: u64 = 32;
    /// All of them.
    pub const ANY: u64 = 63;
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It takes so many microseconds longer, from to.
    Delay(u64, u64),
    /// It fails with this error number.
    Fail(u64),
    /// A write comes up short.
    Short,
    /// The process ends, and with it the machine's memory of what was not flushed.
    Crash(Moment),
}

/// When a crash comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call has done anything.
    Before,
    /// After it.
    After,
    /// After part of it, where it is a write.
    Within,
}

/// What becomes of what was not flushed when the process is ended by the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It survives, as it does any kill of a process.
    None = 0,
    /// All is lost.
    All = 1,
    /// Each sector is lost or not on its own.
    Sectors = 2,
    /// Of each file a beginning of the writes survives.
    Suffix = 3,
}

/// One fault of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// Which files, as bits of [`files`].
    pub files: u64,
    /// Which calls, as bits of [`calls`].
    pub calls: u64,
    /// What happens.
    pub action: Action,
    /// How many such calls go well before.
    pub after: u64,
    /// How many are hit then.
    pub times: u64,
    /// What is lost if it ends the process.
    pub loss: Loss,
    /// The seed of what is lost.
    pub seed: u64,
}

/// Places in the page, in words of 64 bits; `shim.c` has the same.
mod word {
    pub const GENERATION: u64 = 0;
    pub const FILES: u64 = 1;
    pub const REALTIME: u64 = 10;
    pub const MONOTONIC: u64 = 11;
    pub const SEEN: u64 = 32;
    pub const COUNTERS: usize = 6;
    pub const ALL: u64 = 64;
}

/// What the shim has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Calls that a fault was about.
    pub seen: u64,
    /// Calls that it hit.
    pub hits: u64,
    /// Sectors that were taken back.
    pub undone: u64,
    /// Sectors that were not flushed and survived.
    pub kept: u64,
    /// Names that were taken back.
    pub names: u64,
    /// Writes that were remembered until flushed.
    pub tracked: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { seen, hits, undone, kept, names, tracked } = self;
        write!(
            f,
            "{hits} of {seen} calls hit, {tracked} writes remembered, {undone} sectors and {names} names taken back, {kept} sectors kept"
        )
    }
}

/// A shim and its page.
pub struct Shim {
    library: PathBuf,
    page: File,
    page_path: PathBuf,
    trash: Option<PathBuf>,
    generation: AtomicU64,
}

/// Builds the shim once for all runs.
pub fn build(dir: &Path) -> Result<PathBuf, String> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    fs::write(&source, SOURCE).map_err(|e| format!("{}: {e}", source.display()))?;
    let built = Command::new("cc")
        .args(["-O2", "-Wall", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .output()
        .map_err(|e| format!("a C compiler is needed for the shim, and cc did not start: {e}"))?;
    if built.status.success() {
        return Ok(library);
    }
    Err(format!("cc failed:\n{}", String::from_utf8_lossy(&built.stderr)))
}

impl Shim {
    /// A page in `dir` for the library; with `tracking`, what is not flushed is remembered, beside the data in `base`.
    pub fn new(library: &Path, dir: &Path, base: &Path, tracking: bool) -> io::Result<Self> {
        let page_path = dir.join("page");
        let page = OpenOptions::new()
            .create(true)
            .write(true)
            .read(true)
            .truncate(true)
            .open(&page_path)?;
        page.set_len(word::ALL * 8)?;
        let trash = tracking.then(|| base.join("trash"));
        if let Some(trash) = &trash {
            fs::create_dir_all(trash)?;
        }
        Ok(Self { library: library.into(), page, page_path, trash, generation: AtomicU64::new(0) })
    }

    /// Has the command's process load the shim.
    pub fn prepare(&self, command: &mut tokio::process::Command, data_dir: &Path) {
        command.env("LD_PRELOAD", &self.library);
        command.env("TORTURE_PAGE", &self.page_path);
        command.env("TORTURE_ROOT", data_dir);
        if let Some(trash) = &self.trash {
            command.env("TORTURE_TRASH", trash);
        }
    }

    /// From now on, this happens.
    pub fn arm(&self, fault: &DiskFault) -> io::Result<()> {
        let (action, min, max) = match fault.action {
            Action::Delay(min, max) => (1, min, max),
            Action::Fail(errno) => (2, errno, 0),
            Action::Short => (3, 0, 0),
            Action::Crash(moment) => (4, moment as u64, 0),
        };
        self.put(word::GENERATION, &[0])?;
        self.put(
            word::FILES,
            &[
                fault.files,
                fault.calls,
                action,
                fault.after,
                fault.times,
                min,
                max,
                fault.loss as u64,
                fault.seed,
            ],
        )?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        self.put(word::GENERATION, &[generation])
    }

    /// From now on the disk is whole again.
    pub fn disarm(&self) -> io::Result<()> {
        self.put(word::GENERATION, &[0])
    }

    /// Removes what was kept to bring names back: of no use once the process has ended.
    pub fn sweep(&self) -> io::Result<()> {
        let Some(trash) = &self.trash else { return Ok(()) };
        for entry in fs::read_dir(trash)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// The process's clocks stand so far from the true ones, in nanoseconds: the wall clock, the other one.
    pub fn clocks(&self, realtime: i64, monotonic: i64) -> io::Result<()> {
        self.put(word::REALTIME, &[realtime as u64])?;
        self.put(word::MONOTONIC, &[monotonic as u64])
    }

    /// What was counted, over all processes.
    pub fn counters(&self) -> io::Result<Counters> {
        let mut bytes = [0; word::COUNTERS * 8];
        self.page.read_exact_at(&mut bytes, word::SEEN * 8)?;
        let mut words = [0; word::COUNTERS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let [seen, hits, undone, kept, names, tracked] = words;
        Ok(Counters { seen, hits, undone, kept, names, tracked })
    }

    fn put(&self, at: u64, words: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.page.write_all_at(&bytes, at * 8)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Output;

    use super::*;

    /// A directory with a shim for one test, gone at the end.
    struct Bench {
        dir: PathBuf,
        shim: Shim,
    }

    impl Bench {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("etch-shim-{}-{name}", std::process::id()));
            fs::create_dir_all(dir.join("data")).expect("is made");
            let library = build(&dir).expect("is built");
            let shim = Shim::new(&library, &dir, &dir, true).expect("has a page");
            fs::write(dir.join("data/file"), [b'x'; 1000]).expect("is written");
            Self { dir, shim }
        }

        /// Runs one of the system's small programs behind the shim, on the file.
        fn run(&self, line: &str) -> Output {
            let mut words = line.split(' ');
            let mut command = tokio::process::Command::new(words.next().unwrap_or_default());
            command.args(words).current_dir(self.dir.join("data"));
            command.arg(self.dir.join("data/file"));
            self.shim.prepare(&mut command, &self.dir.join("data"));
            command.as_std_mut().output().expect("runs")
        }

        fn arm(&self, calls: u64, action: Action, loss: Loss) {
            let fault =
                DiskFault { files: files::ANY, calls, action, after: 0, times: 1, loss, seed: 1 };
            self.shim.arm(&fault).expect("is armed");
        }

        fn file(&self) -> Vec<u8> {
            fs::read(self.dir.join("data/file")).expect("is there")
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn a_call_fails_once_and_only_the_one_that_is_meant() {
        let bench = Bench::new("fail");
        bench.arm(calls::CUT, Action::Fail(5), Loss::None);
        assert!(bench.run("sync -d").status.success(), "flushes are not meant");
        let failed = bench.run("truncate -s 10");
        assert_eq!((failed.status.code(), bench.file().len()), (Some(1), 1000));
        assert!(String::from_utf8_lossy(&failed.stderr).contains("Input/output error"));
        bench.shim.disarm().expect("is disarmed");
        assert!(bench.run("truncate -s 10").status.success());
        assert_eq!((bench.file().len(), bench.shim.counters().expect("counts").hits), (10, 1));
    }

    #[test]
    fn a_power_cut_takes_back_what_was_not_flushed() {
        let bench = Bench::new("loss");
        for (moment, loss, left) in [
            (Moment::Before, Loss::All, 1000),
            (Moment::After, Loss::All, 1000),
            (Moment::After, Loss::None, 10),
        ] {
            bench.arm(calls::CUT, Action::Crash(moment), loss);
            assert_eq!(bench.run("truncate -s 10").status.signal(), Some(9), "{moment:?} {loss:?}");
            assert_eq!(bench.file(), vec![b'x'; left], "{moment:?} {loss:?}");
        }
        assert!(bench.shim.counters().expect("counts").undone > 0);
    }

    #[test]
    fn clocks_leap() {
        let bench = Bench::new("clock");
        bench.shim.clocks(-1_000_000_000 * 86_400 * 365, 0).expect("is set");
        let year = |output: Output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.trim().parse::<i64>().expect("is a year")
        };
        let mut command = tokio::process::Command::new("date");
        command.arg("+%Y");
        bench.shim.prepare(&mut command, &bench.dir);
        let there = year(command.as_std_mut().output().expect("runs"));
        let here = year(Command::new("date").arg("+%Y").output().expect("runs"));
        assert!(there < here, "{there} and {here}");
    }
}
