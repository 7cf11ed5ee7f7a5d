//! What goes wrong, step by step, while the clients go on. Each fault ends with a server that may be down: whoever
//! comes next starts it. Not here: what is drawn (`plan`), how a call fails (`shim`).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::plan::Kind;
use crate::process::{Expected, NotServing, Server};
use crate::rng::Rng;
use crate::shim::{Action, DiskFault, Loss, Moment, Shim, calls, files};

/// Errors of the disk, by number.
const EIO: u64 = 5;
const ENOSPC: u64 = 28;

/// Whoever makes the faults of one run.
pub struct Saboteur<'a> {
    /// The server.
    pub server: &'a mut Server,
    /// The draws.
    pub rng: Rng,
    /// What was done, for the report.
    pub notes: Vec<String>,
    /// The true file system's room is bounded: where the data directory is one of its own.
    pub small_disk: bool,
    /// By how much the process's steady clock has leapt, all told.
    pub leapt: Duration,
}

impl Saboteur<'_> {
    /// Makes one fault, from its beginning to its end.
    pub async fn make(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::Kill => self.kill().await,
            Kind::Pause => self.pause().await,
            Kind::Terminate => self.terminate().await,
            Kind::FullDisk => self.full_disk().await,
            Kind::SlowDisk => self.slow_disk().await,
            Kind::FailingDisk => self.failing_disk().await,
            Kind::ShortWrites => self.short_writes().await,
            Kind::Clock => self.clock().await,
            Kind::CrashPoint => self.crash_points(false).await,
            Kind::LostWrites => self.crash_points(true).await,
        }
    }

    /// Whatever was wrong is well again, and the server serves.
    pub async fn heal(&mut self) -> Result<(), String> {
        if let Some(shim) = &self.server.shim {
            shim.disarm().map_err(|e| e.to_string())?;
        }
        let ballast = self.ballast();
        if ballast.exists() {
            fs::remove_file(&ballast).map_err(|e| e.to_string())?;
        }
        self.restart().await
    }

    fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    async fn ms(&mut self, from: u64, to: u64) {
        sleep(Duration::from_millis(self.rng.between(from, to))).await;
    }

    fn shim(&self) -> Result<&Shim, String> {
        self.server.shim.as_ref().ok_or_else(|| "this fault needs the shim".into())
    }

    fn arm(&self, fault: &DiskFault) -> Result<(), String> {
        self.shim()?.arm(fault).map_err(|e| e.to_string())
    }

    fn disarm(&self) -> Result<(), String> {
        self.shim()?.disarm().map_err(|e| e.to_string())
    }

    fn fault(&mut self, action: Action) -> DiskFault {
        DiskFault {
            files: files::ANY,
            calls: calls::ANY,
            action,
            after: 0,
            times: u64::MAX,
            loss: Loss::None,
            seed: self.rng.next(),
        }
    }

    async fn restart(&mut self) -> Result<(), String> {
        if self.server.is_running() {
            return self
                .server
                .wait_serving()
                .await
                .map_err(|e| format!("it does not serve: {e:?}"));
        }
        self.server.start().await
    }

    async fn kill(&mut self) -> Result<(), String> {
        let times = self.rng.between(1, 4);
        for _ in 0..times {
            self.ms(20, 400).await;
            self.restart_if_down().await?;
            self.server.kill().await?;
            if self.rng.percent(30) {
                // Some die while they are still starting.
                self.server.launch()?;
                self.ms(0, 150).await;
                self.server.kill().await?;
            }
            self.ms(0, 200).await;
            self.server.start().await?;
        }
        self.note(format!("{times} kills"));
        Ok(())
    }

    async fn restart_if_down(&mut self) -> Result<(), String> {
        if self.server.is_running() { Ok(()) } else { self.server.start().await }
    }

    async fn pause(&mut self) -> Result<(), String> {
        self.restart_if_down().await?;
        let long = self.rng.percent(15);
        let ms = if long { self.rng.between(3000, 5000) } else { self.rng.between(1000, 2000) };
        self.server.signal(Signal::STOP)?;
        sleep(Duration::from_millis(ms)).await;
        self.server.signal(Signal::CONT)?;
        self.note(format!("stopped for {ms} ms"));
        self.ms(100, 400).await;
        Ok(())
    }

    async fn terminate(&mut self) -> Result<(), String> {
        let times = self.rng.between(1, 2);
        for _ in 0..times {
            self.restart_if_down().await?;
            self.ms(50, 300).await;
            self.server.terminate().await?;
            self.ms(0, 100).await;
            self.server.start().await?;
        }
        self.note(format!("{times} orderly restarts"));
        Ok(())
    }

    fn ballast(&self) -> PathBuf {
        self.server.data_dir.with_file_name("ballast")
    }

    /// Fills the disk: by a file beside the data where the file system is small, else by the shim's word.
    async fn full_disk(&mut self) -> Result<(), String> {
        self.restart_if_down().await?;
        if self.small_disk {
            let spare = if self.rng.percent(50) { 0 } else { self.rng.between(1, 6000) << 10 };
            let filled = fill(&self.ballast(), spare).map_err(|e| format!("ballast: {e}"))?;
            self.note(format!("a file of {} MiB left {} KiB", filled >> 20, spare >> 10));
        } else {
            let fault = self.fault(Action::Fail(ENOSPC));
            self.arm(&DiskFault { calls: calls::WRITE | calls::CREATE, ..fault })?;
            self.note("ENOSPC from the shim".into());
        }
        self.outlive(2500, Expected::Failed).await?;
        if !self.server.is_running() && self.rng.percent(50) {
            self.start_with_trouble(Expected::Failed).await?;
        }
        Ok(())
    }

    /// Lets the server go on with its trouble for a while; it may end, as expected.
    async fn outlive(&mut self, ms: u64, expected: Expected) -> Result<bool, String> {
        let ended = self.server.await_end(Duration::from_millis(ms), expected).await?;
        self.note(if ended { "it ended".into() } else { "it went on".into() });
        Ok(ended)
    }

    /// Starts while the trouble lasts: it serves, or says why not and ends.
    async fn start_with_trouble(&mut self, expected: Expected) -> Result<(), String> {
        self.server.launch()?;
        match self.server.wait_serving().await {
            Ok(()) => {
                self.note("served all the same".into());
                self.outlive(500, expected).await.map(drop)
            }
            Err(NotServing::Ended) => {
                self.note("did not start meanwhile".into());
                self.server.await_end(Duration::from_secs(1), expected).await.map(drop)
            }
            Err(NotServing::TooLong) => Err("it neither served nor ended with a bad disk".into()),
        }
    }

    async fn slow_disk(&mut self) -> Result<(), String> {
        self.restart_if_down().await?;
        let high = *self.rng.pick(&[10_000, 50_000, 200_000, 500_000]);
        let which = *self.rng.pick(&[files::ANY, files::WAL, files::DB | files::SNAP]);
        let fault = self.fault(Action::Delay(high / 10, high));
        let calls = *self.rng.pick(&[calls::FLUSH, calls::FLUSH | calls::WRITE]);
        self.arm(&DiskFault { files: which, calls, ..fault })?;
        sleep(Duration::from_millis(2000)).await;
        self.disarm()?;
        self.note(format!("delays up to {} ms on files {which}, calls {calls}", high / 1000));
        Ok(())
    }

    async fn failing_disk(&mut self) -> Result<(), String> {
        self.restart_if_down().await?;
        let which = *self.rng.pick(&[
            files::WAL,
            files::WAL,
            files::DB,
            files::SNAP | files::DIRECTORY,
            files::ANY,
        ]);
        let of = *self.rng.pick(&[
            calls::WRITE,
            calls::FLUSH,
            calls::FLUSH,
            calls::WRITE | calls::FLUSH,
            calls::ANY,
        ]);
        let lasting = self.rng.percent(50);
        // What a failed flush has not saved, the machine may lose when it ends.
        let loss = *self.rng.pick(&[Loss::None, Loss::All, Loss::Sectors, Loss::Suffix]);
        let fault = self.fault(Action::Fail(EIO));
        let after = self.rng.between(0, 60);
        let times = if lasting { u64::MAX } else { 1 };
        self.arm(&DiskFault { files: which, calls: of, after, times, loss, ..fault })?;
        let kind = if lasting { "from the" } else { "at the" };
        self.note(format!(
            "EIO {kind} {after}. call, files {which}, calls {of}, then {loss:?} lost"
        ));
        let expected = if loss == Loss::None { Expected::Failed } else { Expected::FailedOrKilled };
        let ended = self.outlive(2000, expected).await?;
        if ended && lasting {
            self.start_with_trouble(expected).await?;
        }
        self.disarm()
    }

    async fn short_writes(&mut self) -> Result<(), String> {
        self.restart_if_down().await?;
        let fault = self.fault(Action::Short);
        let times = self.rng.between(1, 400);
        self.arm(&DiskFault { calls: calls::WRITE, times, ..fault })?;
        sleep(Duration::from_millis(1500)).await;
        self.disarm()?;
        self.note(format!("up to {times} short writes"));
        Ok(())
    }

    async fn clock(&mut self) -> Result<(), String> {
        self.restart_if_down().await?;
        let (mut wall, mut steady) = (0, 0);
        // The wall clock alone must matter to nothing.
        let kinds = if self.rng.percent(50) { 1 } else { 3 };
        for _ in 0..self.rng.between(2, 5) {
            match self.rng.between(0, kinds) {
                0 => wall += self.rng.range(1, 86_400 * 365),
                1 => wall -= self.rng.range(1, 86_400),
                2 => steady += self.rng.range(1, 30),
                _ => {
                    let both = self.rng.range(1, 3600);
                    wall += both;
                    steady += both;
                }
            }
            self.leapt = Duration::from_secs(steady.unsigned_abs());
            let (wall_ns, steady_ns) = (wall * 1_000_000_000, steady * 1_000_000_000);
            self.shim()?.clocks(wall_ns, steady_ns).map_err(|e| e.to_string())?;
            self.note(format!("clocks at {wall:+} s and {steady:+} s"));
            self.ms(200, 600).await;
        }
        Ok(())
    }

    /// Ends the process at calls to its storage; with `lose`, as a power cut would.
    async fn crash_points(&mut self, lose: bool) -> Result<(), String> {
        for _ in 0..self.rng.between(1, 3) {
            self.restart_if_down().await?;
            let fault = self.crash(lose);
            self.arm(&fault)?;
            let patience = Duration::from_millis(1500);
            let mut ended = self.server.await_end(patience, Expected::Killed).await?;
            let by = if ended { "" } else { ", which did not come: at the next call of any kind" };
            if !ended {
                self.arm(&DiskFault { files: files::ANY, calls: calls::ANY, after: 0, ..fault })?;
                ended = self.server.await_end(patience, Expected::Killed).await?;
            }
            self.note(format!(
                "{:?} call {} (files {}, calls {}){by}; {:?} lost",
                fault.action, fault.after, fault.files, fault.calls, fault.loss,
            ));
            if ended && self.rng.percent(40) {
                self.crash_in_recovery(lose).await?;
            }
            self.disarm()?;
            if ended {
                self.sweep()?;
                self.server.start().await?;
                self.ms(100, 400).await;
            }
        }
        Ok(())
    }

    fn crash(&mut self, lose: bool) -> DiskFault {
        let moment = *self.rng.pick(&[Moment::Before, Moment::After, Moment::Within]);
        let (which, of, most) = *self.rng.pick(&[
            (files::ANY, calls::ANY, 400),
            (files::WAL, calls::WRITE, 300),
            (files::WAL, calls::FLUSH, 300),
            (files::DB, calls::WRITE, 60),
            (files::DB, calls::FLUSH, 20),
            (files::DB | files::SNAP, calls::ANY, 60),
            (files::SNAP | files::DIRECTORY, calls::ANY, 8),
            (files::ANY, calls::RENAME | calls::CREATE | calls::UNLINK | calls::CUT, 4),
        ]);
        let losses = [Loss::All, Loss::Sectors, Loss::Sectors, Loss::Suffix];
        let loss = if lose { *self.rng.pick(&losses) } else { Loss::None };
        let after = self.rng.between(0, most);
        let fault = self.fault(Action::Crash(moment));
        DiskFault { files: which, calls: of, after, times: 1, loss, ..fault }
    }

    /// Once more, a few calls into the start.
    async fn crash_in_recovery(&mut self, lose: bool) -> Result<(), String> {
        self.sweep()?;
        let after = self.rng.between(0, 12);
        let fault = self.crash(lose);
        self.arm(&DiskFault { files: files::ANY, calls: calls::ANY, after, ..fault })?;
        self.server.launch()?;
        let ended = self.server.await_end(Duration::from_millis(1500), Expected::Killed).await?;
        if !ended {
            self.server.kill().await?;
        }
        self.note(format!("and {} call {after} of its start", if ended { "at" } else { "not at" }));
        Ok(())
    }

    /// What the shim has kept to bring names back is of no use to another life.
    fn sweep(&self) -> Result<(), String> {
        self.shim()?.sweep().map_err(|e| e.to_string())
    }
}

/// Writes until there is no room, then gives back `spare` bytes. Says how much it holds.
fn fill(path: &std::path::Path, spare: u64) -> std::io::Result<u64> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut piece = 1 << 20;
    let zeros = vec![0; piece];
    while piece >= 512 {
        match file.write(&zeros[..piece]) {
            Ok(n) if n > 0 => {}
            _ => piece /= 2,
        }
    }
    let len = file.metadata()?.len().saturating_sub(spare);
    file.set_len(len)?;
    Ok(len)
}
