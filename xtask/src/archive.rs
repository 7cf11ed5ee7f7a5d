//! The two archives that packages are made of: tar, as every tar reads it, and ar, as dpkg does. Not here: what is
//! put into them (`dist`).

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes of a tar archive's block.
const BLOCK: usize = 512;

/// A tar archive that is being written, packed with gzip. Owner and time are the same for all: the same files give
/// the same archive.
pub struct Tar {
    out: GzEncoder<Vec<u8>>,
    time: u64,
    dirs: Vec<String>,
}

impl Tar {
    /// An empty one; everything in it is of this time, in seconds since 1970.
    pub fn new(time: u64) -> Self {
        Self { out: GzEncoder::new(Vec::new(), Compression::best()), time, dirs: Vec::new() }
    }

    /// Adds a file, and the directories that it lies in.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.header(path, mode, b'0', content.len(), "")?;
        self.out.write_all(content)?;
        let pad = content.len().wrapping_neg() % BLOCK;
        self.out.write_all(&[0; BLOCK][..pad])
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.header(path, 0o777, b'2', 0, target)
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at + 1).collect();
        for end in ends {
            let dir = &path[..end];
            if !self.dirs.iter().any(|known| known == dir) {
                self.header(dir, 0o755, b'5', 0, "")?;
                self.dirs.push(dir.to_owned());
            }
        }
        Ok(())
    }

    fn header(
        &mut self,
        path: &str,
        mode: u32,
        kind: u8,
        size: usize,
        target: &str,
    ) -> io::Result<()> {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, room: usize, bytes: &[u8]| {
            if bytes.len() > room {
                let why = format!("{path}: too long for a tar archive");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            block[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        put(0, 100, path.as_bytes())?;
        put(100, 8, format!("{mode:07o}").as_bytes())?;
        put(108, 8, b"0000000")?;
        put(116, 8, b"0000000")?;
        put(124, 12, format!("{size:011o}").as_bytes())?;
        put(136, 12, format!("{:011o}", self.time).as_bytes())?;
        // The sum is taken over blanks where it will stand.
        put(148, 8, b"        ")?;
        put(156, 1, &[kind])?;
        put(157, 100, target.as_bytes())?;
        put(257, 8, b"ustar\x0000")?;
        put(265, 32, b"root")?;
        put(297, 32, b"root")?;
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&block)
    }
}

/// An ar archive of these files.
pub fn ar(files: &[(&str, &[u8])], time: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in files {
        let size = content.len();
        out.extend_from_slice(
            format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, "100644").as_bytes(),
        );
        out.extend_from_slice(content);
        if size % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let mut tar = Tar::new(1_000_000_000);
        tar.file("a/b/c.txt", 0o644, &[b'x'; 700]).expect("room");
        tar.file("a/d", 0o755, b"").expect("room");
        tar.link("a/l", "d").expect("room");
        assert!(tar.file(&"x".repeat(101), 0o644, b"").is_err());
        let dir = std::env::temp_dir().join(format!("etch-dist-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("t.tar.gz");
        std::fs::write(&path, tar.finish().expect("whole")).expect("written");
        let out = Command::new("tar").args(["--utc", "-tvzf"]).arg(&path).output().expect("tar");
        let listing = String::from_utf8(out.stdout).expect("text");
        std::fs::remove_dir_all(&dir).expect("ours");
        assert!(out.status.success(), "{listing}");
        let lines: Vec<Vec<&str>> =
            listing.lines().map(|line| line.split_whitespace().collect()).collect();
        let names: Vec<String> = lines.iter().map(|words| words[5..].join(" ")).collect();
        assert_eq!(names, ["a/", "a/b/", "a/b/c.txt", "a/d", "a/l -> d"]);
        assert_eq!(lines[2][..4], ["-rw-r--r--", "root/root", "700", "2001-09-09"]);
    }

    #[test]
    fn ar_has_files_at_even_places() {
        let bytes = ar(&[("odd", b"xyz"), ("even", b"12")], 7);
        let text = String::from_utf8(bytes).expect("text");
        let head = |name: &str, size: u32| {
            format!("{name:<16}7           0     0     100644  {size:<10}`\n")
        };
        assert_eq!(text, format!("!<arch>\n{}xyz\n{}12", head("odd", 3), head("even", 2)));
    }
}
