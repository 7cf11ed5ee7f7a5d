//! Files that bbolt wrote, and bbolt's own judgement on ours. Skipped where the variables are not set:
//! `BBOLT` is the path of the bbolt program, `ETCD_DB` of a database that an etcd wrote.

use std::process::Command;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("etch-backend-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn check(bbolt: &str, path: &Path) {
    let out = Command::new(bbolt).arg("check").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("OK"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn real(path: &Path, page_size: usize) -> Arc<Bolt> {
    let disk = Arc::new(RealDisk::without_flush());
    Bolt::open(disk, path, Options { page_size, grow: 1 << 20 }).unwrap()
}

#[test]
fn bbolt_accepts_what_we_write() {
    let Ok(bbolt) = std::env::var("BBOLT") else { return };
    let dir = Scratch::new("write");
    for (seed, page_size) in [(31, 4096), (32, 4096), (33, 8192), (34, 65536)] {
        let path = dir.0.join(format!("db{seed}"));
        let (mut dice, mut model) = (Dice(seed), Model::new());
        drop(real(&path, page_size));
        check(&bbolt, &path);
        for round in 0..120 {
            let bolt = real(&path, page_size);
            for _ in 0..=dice.roll(5) {
                bolt.commit(&mut random_batch(&mut dice, &mut model, 4_000)).unwrap();
                if round % 3 == 0 {
                    bolt.shrink(50).unwrap();
                }
            }
            assert_same(&bolt.snapshot(), &model);
            drop(bolt);
            if round % 8 == 0 {
                check(&bbolt, &path);
            }
        }
        check(&bbolt, &path);
    }
}

#[test]
fn a_database_that_etcd_wrote_is_read_and_written() {
    let (Ok(from), Ok(bbolt)) = (std::env::var("ETCD_DB"), std::env::var("BBOLT")) else { return };
    let dir = Scratch::new("etcd");
    let path = dir.0.join("db");
    std::fs::copy(from, &path).unwrap();
    let bolt = real(&path, 4096);
    let mut model = content(&bolt.snapshot());
    assert!(!model.is_empty());
    for seed in 0..20 {
        bolt.commit(&mut random_batch(&mut Dice(seed + 50), &mut model, 500)).unwrap();
    }
    assert!(content(&bolt.snapshot()) == model);
    drop(bolt);
    check(&bbolt, &path);
}
