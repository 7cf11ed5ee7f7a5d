//! Passwords: hashed and compared by bcrypt, which is slow on purpose, and therefore beside the store (`aside`): a storm
//! of logins waits for itself, not the store for it. Not here: whose password it is.

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;

use super::throttle::Throttle;
use crate::aside::Aside;

/// The costs that bcrypt knows, and the one taken in place of others.
const COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const DEFAULT_COST: u64 = 10;
/// What bcrypt takes of a password.
const LONGEST: usize = 72;
/// Logins that may wait for their turn.
const WAITING: usize = 256;

/// Why there is no hash, or no verdict.
#[derive(Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Too many wait already, or too many failed.
    Busy,
    /// bcrypt would only look at a part of it.
    TooLong,
    /// Something of ours.
    Failed(String),
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests"),
            Self::TooLong => f.write_str("bcrypt: password length exceeds 72 bytes"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Hashes and compares passwords.
pub struct Passwords {
    cost: u32,
    aside: Aside,
    waiting: AtomicUsize,
    throttle: Throttle,
    /// A hash that no password has, to compare with where there is no user.
    decoy: OnceLock<Vec<u8>>,
}

impl Passwords {
    /// With `--bcrypt-cost`.
    pub fn new(cost: u64) -> Self {
        let cost = if COSTS.contains(&cost) { cost } else { DEFAULT_COST };
        Self {
            cost: cost as u32,
            aside: Aside::new("password"),
            waiting: AtomicUsize::new(0),
            throttle: Throttle::default(),
            decoy: OnceLock::new(),
        }
    }

    /// Whether a cost from the flag is one that bcrypt knows.
    pub fn is_cost(cost: u64) -> bool {
        COSTS.contains(&cost)
    }

    /// Whether bcrypt would look at all of a password.
    pub fn check_length(password: &str) -> Result<(), PasswordError> {
        if password.len() > LONGEST { Err(PasswordError::TooLong) } else { Ok(()) }
    }

    /// The hash of a password, as it goes through the log.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        Self::check_length(&password)?;
        let cost = self.cost;
        self.take_turn(move || hash(&password, cost).map(|hash| STANDARD.encode(hash))).await?
    }

    /// Whether this is the password with that hash; `None` where there is no such user, which takes as long
    /// as a wrong password, so that nobody learns who is a user.
    pub async fn matches(
        &self,
        user: &str,
        from: Option<IpAddr>,
        password: String,
        hashed: Option<Vec<u8>>,
        now_ms: u64,
    ) -> Result<bool, PasswordError> {
        if !self.throttle.allows(user, from, now_ms) {
            return Err(PasswordError::Busy);
        }
        let is_user = hashed.is_some();
        let hashed = match hashed.or_else(|| self.decoy.get().cloned()) {
            Some(hashed) => hashed,
            None => {
                let cost = self.cost;
                let decoy = self.take_turn(move || hash("", cost)).await??;
                self.decoy.get_or_init(|| decoy).clone()
            }
        };
        let compare = move || {
            let hashed = String::from_utf8(hashed).unwrap_or_default();
            bcrypt::verify(password, &hashed).unwrap_or(false)
        };
        let matches = self.take_turn(compare).await? && is_user;
        if !matches {
            self.throttle.failed(user, from, now_ms);
        }
        Ok(matches)
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = Place::take(&self.waiting)?;
        self.aside.run(work).await.map_err(|e| PasswordError::Failed(e.to_string()))
    }
}

/// A place among those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, PasswordError> {
        if waiting.fetch_add(1, Ordering::AcqRel) >= WAITING {
            waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(PasswordError::Busy);
        }
        Ok(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn hash(password: &str, cost: u32) -> Result<Vec<u8>, PasswordError> {
    let failed = |why: &dyn fmt::Display| PasswordError::Failed(why.to_string());
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|e| failed(&e))?;
    let hashed = bcrypt::hash_with_salt(password, cost, salt).map_err(|e| failed(&e))?;
    // The version that etcd writes.
    Ok(hashed.format_for_version(Version::TwoA).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(4)
    }

    #[tokio::test]
    async fn a_hash_is_etcds_and_matches_its_password_alone() {
        let all = passwords();
        let hashed = STANDARD.decode(all.hash("secret".into()).await.unwrap()).unwrap();
        assert!(hashed.starts_with(b"$2a$04$") && hashed.len() == 60);
        let try_it =
            |password: &str| all.matches("ann", None, password.into(), Some(hashed.clone()), 1);
        assert!(try_it("secret").await.unwrap());
        assert!(!try_it("Secret").await.unwrap() && !try_it("").await.unwrap());
        assert!(!all.matches("bob", None, "".into(), None, 1).await.unwrap(), "the decoy's own");
        assert!(!all.matches("old", None, "x".into(), Some(b"no hash".to_vec()), 1).await.unwrap());
    }

    #[tokio::test]
    async fn hashes_of_etcd_are_understood() {
        // By golang.org/x/crypto/bcrypt, cost 4.
        let hashed = b"$2a$04$Sl1hbeRrvLqcR2SvB3Cyxe7uOr48q3NyPGSnv8pWxpFWbg9MbxMZK".to_vec();
        let verdict = passwords().matches("ann", None, "?".into(), Some(hashed), 1).await;
        assert_eq!(verdict, Ok(false));
    }

    #[tokio::test]
    async fn more_than_bcrypt_looks_at_is_refused() {
        assert!(passwords().hash("x".repeat(72)).await.is_ok());
        assert_eq!(passwords().hash("x".repeat(73)).await, Err(PasswordError::TooLong));
    }

    #[tokio::test]
    async fn failures_are_counted_and_then_slowed() {
        let all = passwords();
        let hashed = hash("secret", 4).unwrap();
        let try_it = |password: &str, now| {
            all.matches("ann", None, password.into(), Some(hashed.clone()), now)
        };
        while try_it("guess", 1).await == Ok(false) {}
        assert_eq!(try_it("secret", 1).await, Err(PasswordError::Busy));
        assert_eq!(try_it("secret", 60_000).await, Ok(true));
    }

    #[tokio::test]
    async fn who_finds_too_many_waiting_is_turned_away() {
        let all = passwords();
        let _turns = all.aside.hold().await;
        let places: Vec<_> = (0..WAITING).map(|_| Place::take(&all.waiting).unwrap()).collect();
        assert_eq!(all.hash("x".into()).await, Err(PasswordError::Busy));
        drop(places);
        assert_eq!(all.waiting.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_cost_that_bcrypt_does_not_know_is_the_default() {
        assert_eq!(Passwords::new(3).cost, 10);
        assert_eq!(Passwords::new(32).cost, 10);
        assert_eq!(Passwords::new(31).cost, 31);
    }
}
