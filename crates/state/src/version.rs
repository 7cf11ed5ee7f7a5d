//! Versions: which etcd this program stands for, and the three numbers that members agree on. Not here:
//! etch's own version (the binary prints it).

use std::fmt;
use std::str::FromStr;

/// The etcd release whose behaviour and interfaces this program has, as clients see it in `Status`,
/// `/version` and the metrics. Clients switch features on by it.
pub const ETCD: Version = Version { major: 3, minor: 7, patch: 1 };

/// The oldest cluster version that this program can join.
pub const MIN_CLUSTER: Version = Version { major: 3, minor: 0, patch: 0 };

/// Three numbers, as in `3.7.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second; what members agree on goes this far.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// The version of a cluster or of a file whose newest writer this is: the patch is left out.
    pub const fn cluster(self) -> Self {
        Self { patch: 0, ..self }
    }

    /// The one version that a cluster of this version may be downgraded to.
    pub const fn one_minor_lower(self) -> Option<Self> {
        match self.minor.checked_sub(1) {
            Some(minor) => Some(Self { minor, patch: 0, ..self }),
            None => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = ();

    /// Reads `3.7.1`; what follows a `-` or `+` in the last number is passed over.
    fn from_str(text: &str) -> Result<Self, ()> {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(|n| n.parse::<u32>().map_err(|_| ()));
        let mut next = || numbers.next().ok_or(())?;
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if numbers.next().is_some() { Err(()) } else { Ok(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        assert_eq!("3.7.1".parse(), Ok(ETCD));
        assert_eq!(ETCD.cluster().to_string(), "3.7.0");
        assert_eq!("3.8.0-alpha.0".parse(), Ok(Version { major: 3, minor: 8, patch: 0 }));
        for bad in ["", "3", "3.7", "3.7.x", "3.7.1.2", "v3.7.1"] {
            assert_eq!(bad.parse::<Version>(), Err(()), "{bad}");
        }
    }
}
