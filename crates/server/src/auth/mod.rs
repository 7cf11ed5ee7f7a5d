//! Who calls, and whether it may: from a call's token or certificate to a user, before anything is done in its
//! name. Not here: what users may do (`etch_state::auth`), and the methods of the auth service
//! (`services::auth`).

pub mod claim;
pub mod jwt;
mod keys;
pub mod password;
mod throttle;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

use self::jwt::Jwt;
use self::password::Passwords;
use crate::config::Config;
use crate::log_warn;
use crate::logging::Logger;

/// What is in a token.
#[derive(Debug)]
pub enum TokenKind {
    /// Letters and a number that mean something to this cluster alone.
    Simple,
    /// A user's name, signed.
    Jwt(Box<Jwt>),
    /// Tokens are neither given nor taken.
    None,
}

/// What the member needs to tell its callers apart.
pub struct Guard {
    /// What tokens are like.
    pub tokens: TokenKind,
    /// Hashes and compares passwords.
    pub passwords: Passwords,
    /// Whether the name in a client's certificate is a user (`--client-cert-auth`).
    pub certificates: bool,
}

/// Letters of a token.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// How many of them a token has.
const PREFIX: usize = 16;

impl Guard {
    /// As the flags say; the files of keys are read here.
    pub fn new(config: &Config, log: &Logger) -> Result<Self, String> {
        let options = jwt::options(&config.auth_token)?;
        let tokens = match config.auth_token.split(',').next().unwrap_or_default() {
            "simple" => TokenKind::Simple,
            "jwt" => {
                let unknown = jwt::unknown_options(&options);
                if !unknown.is_empty() {
                    log_warn!(log, "unknown JWT options", "keys" => unknown.join(","));
                }
                TokenKind::Jwt(Box::new(Jwt::open(&options)?))
            }
            "" => TokenKind::None,
            _ => return Err(jwt::BAD_OPTIONS.to_owned()),
        };
        if !Passwords::is_cost(config.bcrypt_cost) {
            log_warn!(log, "use default bcrypt cost instead of the invalid given cost", "given-cost" => config.bcrypt_cost);
        }
        Ok(Self {
            tokens,
            passwords: Passwords::new(config.bcrypt_cost),
            certificates: config.client_tls.client_cert_auth,
        })
    }
}

/// The secret part of a simple token.
pub fn token_prefix() -> Result<String, &'static str> {
    let mut prefix = String::with_capacity(PREFIX);
    while prefix.len() < PREFIX {
        let mut bytes = [0; 2 * PREFIX];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers")?;
        // What is beyond the last whole run of letters would make some of them likelier.
        let even = bytes.iter().filter(|b| usize::from(**b) < 256 / LETTERS.len() * LETTERS.len());
        let letters = even.map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()]));
        prefix.extend(letters.take(PREFIX - prefix.len()));
    }
    Ok(prefix)
}

/// The first digits of a token's hash: enough to find it again in logs, and of no other use.
pub fn fingerprint(token: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(token).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_sixteen_letters_and_all_letters_occur() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let prefix = token_prefix().unwrap();
            assert!(prefix.len() == PREFIX && prefix.bytes().all(|b| b.is_ascii_alphabetic()));
            seen.extend(prefix.bytes());
        }
        assert_eq!(seen.len(), LETTERS.len());
    }

    #[test]
    fn a_fingerprint_is_twelve_digits_of_the_hash() {
        assert_eq!(fingerprint("abc"), "ba7816bf8f01");
    }
}
