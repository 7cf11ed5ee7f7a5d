//! A log file that is set aside when it is full (`--enable-log-rotation`). Not here: other outputs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// `--log-rotation-config-json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// A file is set aside before it outgrows this many MiB.
    pub maxsize: u64,
    /// Files set aside are removed after this many days; 0 is never.
    pub maxage: u64,
    /// So many files set aside are kept; 0 is all.
    pub maxbackups: usize,
    /// Accepted; names are in UTC.
    pub localtime: bool,
    /// Accepted; files are not compressed.
    pub compress: bool,
}

impl Default for Rotation {
    fn default() -> Rotation {
        Rotation { maxsize: 100, maxage: 0, maxbackups: 0, localtime: false, compress: false }
    }
}

/// An open file that knows its size.
pub(super) struct RotatedFile {
    path: PathBuf,
    file: File,
    size: u64,
    rules: Rotation,
}

impl RotatedFile {
    pub(super) fn open(path: &str, rules: &Rotation) -> io::Result<RotatedFile> {
        let file = append(Path::new(path))?;
        let size = file.metadata()?.len();
        Ok(RotatedFile { path: path.into(), file, size, rules: rules.clone() })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let limit = if self.rules.maxsize == 0 { 100 } else { self.rules.maxsize } << 20;
        if self.size > 0 && self.size + line.len() as u64 > limit {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        fs::rename(&self.path, self.aside(now))?;
        self.file = append(&self.path)?;
        self.size = 0;
        self.remove_old(now)
    }

    /// `etcd.log` is set aside as `etcd-<milliseconds>.log`: names sort by age.
    fn aside(&self, now: Duration) -> PathBuf {
        let (stem, extension) = self.name_parts();
        self.path.with_file_name(format!("{stem}-{:013}{extension}", now.as_millis()))
    }

    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = self
            .path
            .extension()
            .map_or(String::new(), |_| format!(".{}", text(self.path.extension())));
        (text(self.path.file_stem()), extension)
    }

    fn remove_old(&self, now: Duration) -> io::Result<()> {
        let (stem, extension) = self.name_parts();
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut aside: Vec<(u64, PathBuf)> = fs::read_dir(folder)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path.file_name()?.to_str()?;
                let stamp =
                    name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
                Some((stamp.parse().ok()?, path))
            })
            .collect();
        aside.sort();
        let keep = if self.rules.maxbackups == 0 { aside.len() } else { self.rules.maxbackups };
        let too_many = aside.len().saturating_sub(keep);
        let age = Duration::from_secs(self.rules.maxage.saturating_mul(86_400));
        for (at, (stamp, path)) in aside.iter().enumerate() {
            let too_old = self.rules.maxage > 0 && Duration::from_millis(*stamp) + age < now;
            if at < too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_goes() {
        let folder = std::env::temp_dir().join(format!("etch-rotate-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for stamp in [1_000, 2_000] {
            fs::write(folder.join(format!("x-{stamp:013}.log")), "old").expect("an old file");
        }
        fs::write(folder.join("x-notes.log"), "not ours").expect("a file");
        let path = folder.join("x.log");
        let rules = Rotation { maxsize: 1, maxbackups: 2, ..Rotation::default() };
        let mut file = RotatedFile::open(path.to_str().expect("UTF-8"), &rules).expect("opened");
        let half = vec![b'x'; 600 << 10];
        file.write(&half).expect("written");
        file.write(&half).expect("written");
        let mut names: Vec<String> = fs::read_dir(&folder)
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[0], "x-0000000002000.log", "the oldest is gone");
        assert!(names.contains(&"x-notes.log".to_owned()));
        assert_eq!(fs::metadata(&path).expect("there").len(), half.len() as u64);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
