//! What the disk itself takes to make a small write durable, so that a server's latency can be told from it. Not
//! here: the servers.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// About as long as a put of 256 B is in a log.
const WRITE: usize = 400;
const FLUSHES: usize = 400;
/// A slow disk has fewer of them.
const AT_MOST: Duration = Duration::from_millis(500);
const BLOCK: usize = 1 << 20;

/// Times of flushes, in microseconds.
pub struct Flushes(Vec<f64>);

impl Flushes {
    /// Appends to a file in `dir`, whose blocks were written before, and flushes each time.
    pub fn measure(dir: &Path) -> Result<Flushes, String> {
        let path = dir.join("flushes");
        let times = measure(&path).map_err(|e| format!("{}: {e}", path.display()));
        let _ = fs::remove_file(&path);
        times.map(Flushes)
    }

    /// The median of these and of `others`.
    pub fn median_with(self, others: Flushes) -> f64 {
        let mut all = [self.0, others.0].concat();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

fn measure(path: &Path) -> io::Result<Vec<f64>> {
    let file = File::create(path)?;
    file.write_all_at(&[0; BLOCK], 0)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(FLUSHES);
    let start = Instant::now();
    for at in 0..FLUSHES {
        if at > 0 && start.elapsed() > AT_MOST {
            break;
        }
        let began = Instant::now();
        file.write_all_at(&[1; WRITE], (at * WRITE) as u64)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}
