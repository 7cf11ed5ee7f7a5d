//! The tokens that logins were given: sixteen letters, a dot, and the index of the entry. Every member learns
//! of them by applying that entry; they live in memory and are gone with a restart, as in etcd.
//!
//! Not here: signed tokens (`server`), and who may log in (`view`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq as _;

/// The lifetime where none is given.
const TTL_MS: u64 = 300_000;

/// The moment of a token that has not been looked at since it was given: apply knows no time.
const UNARMED: u64 = 0;

struct Token {
    text: Box<str>,
    user: Arc<str>,
    ends_ms: AtomicU64,
}

/// The tokens by the index of their entry, which is no secret: the secret part is never looked up, but
/// compared, in a time that says nothing of where it differs.
#[derive(Default)]
struct Table {
    /// Tokens are given out only while auth is on.
    on: bool,
    by_index: HashMap<u64, Token>,
}

/// All tokens of a member.
pub struct SimpleTokens {
    table: RwLock<Table>,
    ttl_ms: AtomicU64,
}

impl std::fmt::Debug for SimpleTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimpleTokens").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Default for SimpleTokens {
    fn default() -> Self {
        Self { table: RwLock::default(), ttl_ms: AtomicU64::new(TTL_MS) }
    }
}

/// The index behind a token's dot.
fn index_of(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    // Only digits, and no second dot; the text as a whole is compared afterwards.
    index.bytes().all(|b| b.is_ascii_digit()).then(|| index.parse().ok()).flatten()
}

impl SimpleTokens {
    /// How long a token lives after its last use; 0 leaves it at five minutes.
    pub fn set_ttl(&self, ttl_ms: u64) {
        self.ttl_ms.store(if ttl_ms == 0 { TTL_MS } else { ttl_ms }, Ordering::Release);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).by_index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index that must be applied before a token can be judged.
    pub fn waits_for(token: &str) -> Option<u64> {
        index_of(token)
    }

    /// Whose token this is. Looking makes it live on.
    pub fn user(&self, token: &str, now_ms: u64) -> Option<Arc<str>> {
        let index = index_of(token)?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let known = table.by_index.get(&index)?;
        if !bool::from(known.text.as_bytes().ct_eq(token.as_bytes())) {
            return None;
        }
        let ends_ms = known.ends_ms.load(Ordering::Acquire);
        if ends_ms != UNARMED && ends_ms <= now_ms {
            return None;
        }
        known.ends_ms.store(now_ms + self.ttl_ms.load(Ordering::Acquire), Ordering::Release);
        Some(Arc::clone(&known.user))
    }

    /// Drops those whose time is over; the time of those that nobody has used yet begins.
    pub fn sweep(&self, now_ms: u64) {
        if self.is_empty() {
            return;
        }
        let ends = now_ms + self.ttl_ms.load(Ordering::Acquire);
        self.write(|table| {
            table.by_index.retain(|_, token| match token.ends_ms.get_mut() {
                unarmed if *unarmed == UNARMED => {
                    *unarmed = ends;
                    true
                }
                ends_ms => *ends_ms > now_ms,
            });
        });
    }

    /// Gives a user the token that begins with `prefix`, by the entry at this index.
    pub(super) fn assign(&self, prefix: &str, index: u64, user: &str) -> String {
        let text = format!("{prefix}.{index}");
        let (kept, user) = (text.clone().into_boxed_str(), user.into());
        self.write(|table| {
            if table.on {
                let token = Token { text: kept, user, ends_ms: AtomicU64::new(UNARMED) };
                table.by_index.insert(index, token);
            }
        });
        text
    }

    /// A user's tokens are worth nothing any more.
    pub(super) fn drop_user(&self, user: &str) {
        self.write(|table| table.by_index.retain(|_, token| &*token.user != user));
    }

    /// Auth goes on or off. What was given out before is worth nothing after.
    pub(super) fn switch(&self, on: bool) {
        self.write(|table| {
            if table.on != on {
                *table = Table { on, by_index: HashMap::new() };
            }
        });
    }

    fn write(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_one() -> (SimpleTokens, String) {
        let tokens = SimpleTokens::default();
        tokens.switch(true);
        tokens.set_ttl(1000);
        let token = tokens.assign("abcdefghijklmnop", 12, "ann");
        (tokens, token)
    }

    #[test]
    fn a_token_is_its_whole_text() {
        let (tokens, token) = with_one();
        assert_eq!(token, "abcdefghijklmnop.12");
        assert_eq!(tokens.user(&token, 5).as_deref(), Some("ann"));
        for wrong in [
            "abcdefghijklmnoq.12",
            "abcdefghijklmnop.13",
            "abcdefghijklmnop.012",
            ".12",
            "12",
            "",
            "abcdefghijklmnop.12.12",
            "abcdefghijklmnop.+12",
            "abcdefghijklmnop.",
        ] {
            assert_eq!(tokens.user(wrong, 5), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let (tokens, token) = with_one();
        assert!(tokens.user(&token, 10).is_some());
        assert!(tokens.user(&token, 1009).is_some());
        tokens.sweep(2008);
        assert_eq!(tokens.len(), 1);
        assert!(tokens.user(&token, 2009).is_none());
        tokens.sweep(2009);
        assert!(tokens.is_empty());
    }

    #[test]
    fn one_that_is_never_used_ends_as_well() {
        let (tokens, _) = with_one();
        tokens.sweep(1_000_000);
        assert_eq!(tokens.len(), 1);
        tokens.sweep(1_000_999);
        assert_eq!(tokens.len(), 1);
        tokens.sweep(1_001_000);
        assert!(tokens.is_empty());
    }

    #[test]
    fn a_changed_user_and_a_switch_end_tokens() {
        let (tokens, token) = with_one();
        let other = tokens.assign("ponmlkjihgfedcba", 13, "bob");
        tokens.drop_user("ann");
        assert!(tokens.user(&token, 5).is_none() && tokens.user(&other, 5).is_some());
        tokens.switch(true);
        assert!(tokens.user(&other, 5).is_some());
        tokens.switch(false);
        tokens.assign("abcdefghijklmnop", 14, "ann");
        assert!(tokens.is_empty());
        assert!(!format!("{tokens:?}").contains("abcdef"));
    }
}
