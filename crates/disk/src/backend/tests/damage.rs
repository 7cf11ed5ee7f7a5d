//! Files from anywhere: whatever bytes they hold, they are read or refused, in bounded time.

use super::*;

/// Opens what is there and looks at all of it; panics and endless walks are what it is after.
fn look(bytes: &[u8]) -> bool {
    let disk = MemDisk::new();
    disk.open(db(), Open::Create).unwrap().write_at(bytes, 0).unwrap();
    if let Ok(snapshot) = open_read_only(&disk, db()) {
        for bucket in Bucket::ALL {
            let _ = snapshot.get(bucket, b"k000100");
            let Ok(mut rows) = snapshot.cursor(bucket) else { continue };
            while let Ok(Some(_)) = rows.next() {}
            let Ok(mut rows) = snapshot.cursor(bucket) else { continue };
            let mut row = rows.last();
            while let Ok(Some(_)) = row {
                row = rows.prev();
            }
            let _ = rows.seek(b"k001");
        }
    }
    match Bolt::open(Arc::new(disk), db(), OPTIONS) {
        Err(e) => {
            assert_ne!(e.kind(), std::io::ErrorKind::ResourceBusy);
            false
        }
        Ok(bolt) => {
            let mut batch = random_batch(&mut Dice(1), &mut Model::new(), 3_000);
            let _ = bolt.commit(&mut batch);
            let _ = bolt.shrink(100);
            true
        }
    }
}

fn sample(seed: u64) -> Vec<u8> {
    let (disk, mut dice, mut model) = (MemDisk::new(), Dice(seed), Model::new());
    let bolt = Bolt::open(Arc::new(disk), db(), Options { grow: 0, ..OPTIONS }).unwrap();
    for _ in 0..8 {
        bolt.commit(&mut random_batch(&mut dice, &mut model, 1_000)).unwrap();
    }
    let snapshot = bolt.snapshot();
    let mut bytes = vec![0; snapshot.size() as usize];
    let mut at = 0;
    while at < bytes.len() {
        at += snapshot.read_at(at as u64, &mut bytes[at..]);
    }
    bytes
}

/// i14102: damage is refused or harmless, never a panic.
#[test]
fn i14102_random_damage_never_panics_or_hangs() {
    let whole = sample(21);
    assert!(look(&whole));
    let pages = whole.len() as u64 / 4096;
    let mut dice = Dice(4);
    for round in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..=dice.roll(4) {
            let page = (dice.roll(pages) * 4096) as usize;
            match round % 4 {
                // A header or an element.
                0 => bytes[page + dice.roll(200) as usize] ^= 1 << dice.roll(8),
                1 => bytes[page + dice.roll(64) as usize] = dice.roll(256) as u8,
                // A page in the place of another, its own number put right.
                2 => {
                    let from = (dice.roll(pages) * 4096) as usize;
                    let copy = bytes[from..from + 4096].to_vec();
                    bytes[page..page + 4096].copy_from_slice(&copy);
                    let id = (page / 4096) as u64;
                    bytes[page..page + 8].copy_from_slice(&id.to_le_bytes());
                }
                _ => {
                    let at = page + 8 * dice.roll(40) as usize;
                    let n = dice.roll(pages + 2);
                    bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
                }
            }
        }
        look(&bytes);
    }
    for _ in 0..60 {
        look(&whole[..dice.roll(whole.len() as u64) as usize]);
    }
}

#[test]
fn without_a_valid_meta_page_the_error_says_so() {
    let whole = sample(22);
    let mut bytes = whole.clone();
    bytes[16 + 48] ^= 1;
    assert!(look(&bytes), "the other one is as good");
    let mut bytes = whole.clone();
    bytes[4096 + 16 + 48] ^= 1;
    assert!(look(&bytes), "the other one is as good");
    bytes[16] ^= 1;
    let disk = MemDisk::new();
    disk.open(db(), Open::Create).unwrap().write_at(&bytes, 0).unwrap();
    let error = open_read_only(&disk, db()).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("page 1: no valid meta"), "{error}");
}
