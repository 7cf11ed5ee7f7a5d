//! A revision: the place of one change in the history of the whole store. Not here: what changed.

/// Length of an encoded revision key: 8 bytes main, `_`, 8 bytes sub.
pub const REVISION_LEN: usize = 17;
/// Length of the key of a tombstone: a revision key and `t`.
pub const TOMBSTONE_LEN: usize = 18;

/// The place of one change: `main` counts transactions, `sub` the changes inside one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction's number; what clients see as `mod_revision`.
    pub main: i64,
    /// The change's number inside its transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// A revision.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// The key of this revision in the bucket `key`.
    pub fn encode(self) -> [u8; REVISION_LEN] {
        let mut out = [0; REVISION_LEN];
        out[..8].copy_from_slice(&self.main.to_be_bytes());
        out[8] = b'_';
        out[9..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    /// The key of this revision where it is a tombstone.
    pub fn encode_tombstone(self) -> [u8; TOMBSTONE_LEN] {
        let mut out = [b't'; TOMBSTONE_LEN];
        out[..REVISION_LEN].copy_from_slice(&self.encode());
        out
    }

    /// Reads a key of the bucket `key`: the revision, and whether it is a tombstone. `None` if it is
    /// not such a key.
    pub fn decode(key: &[u8]) -> Option<(Self, bool)> {
        let tombstone = match key.len() {
            REVISION_LEN => false,
            TOMBSTONE_LEN if key[REVISION_LEN] == b't' => true,
            _ => return None,
        };
        if key[8] != b'_' {
            return None;
        }
        let main = i64::from_be_bytes(key[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(key[9..REVISION_LEN].try_into().ok()?);
        // Others are never written: a file that has them is damaged.
        let sound = (0..i64::MAX).contains(&main) && (0..1 << 31).contains(&sub);
        sound.then_some((Self { main, sub }, tombstone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_etcd_does_and_back() {
        let rev = Revision::new(0x0102, 3);
        let key = rev.encode();
        assert_eq!(&key, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        assert_eq!(Revision::decode(&key), Some((rev, false)));
        assert_eq!(Revision::decode(&rev.encode_tombstone()), Some((rev, true)));
        assert_eq!(Revision::decode(b"short"), None);
        assert_eq!(Revision::decode(b"\0\0\0\0\0\0\x01\x02-\0\0\0\0\0\0\0\x03"), None);
    }
}
