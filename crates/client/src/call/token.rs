//! The token that calls show: got by logging in, renewed when the server no longer takes it, one renewal for all
//! calls that found it stale together.

use std::sync::{Mutex, PoisonError};

use etch_api::pb::etcdserverpb as pb;

use super::method::AUTHENTICATE;
use super::{CallOptions, Core, Token};
use crate::config::Config;
use crate::error::{Error, EtcdError, Result};

/// So often one call has the token renewed: a member may forget it a second time before it is shown.
pub(crate) const RENEWALS: u32 = 2;

/// The client's token.
pub(crate) struct Tokens {
    /// Whether there is a user to log in as.
    renewable: bool,
    current: Mutex<Current>,
    /// Held while logging in.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Current {
    /// How often it has been renewed.
    generation: u64,
    token: Option<Token>,
}

impl Tokens {
    pub fn new(config: &Config) -> Tokens {
        let given = config.token.parse().ok().filter(|_| !config.token.is_empty());
        Tokens {
            renewable: !config.username.is_empty(),
            current: Mutex::new(Current { generation: 0, token: given }),
            renewing: tokio::sync::Mutex::new(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token to show now.
    pub fn current(&self) -> Option<Token> {
        self.lock().token.clone()
    }

    /// Which renewal the current token came from.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    fn set(&self, token: Option<Token>) {
        let mut current = self.lock();
        current.generation += 1;
        current.token = token;
    }
}

impl Core {
    /// Logs in, unless somebody else did since `generation`. False if there is no user to log in as.
    pub async fn renew_token(&self, options: &CallOptions, generation: u64) -> Result<bool> {
        if !self.tokens.renewable || options.token.is_some() {
            return Ok(false);
        }
        let _renewing = self.tokens.renewing.lock().await;
        if self.tokens.generation() != generation {
            return Ok(true);
        }
        let request = pb::AuthenticateRequest {
            name: self.config.username.clone(),
            password: self.config.password.clone(),
        };
        // Logging in shows no token: a stale one would be refused.
        let answer = self.call_without_token(&AUTHENTICATE, request).await;
        let (answer, from): (pb::AuthenticateResponse, _) = match answer {
            Ok(answered) => answered,
            Err(error) if error.is(EtcdError::AuthNotEnabled) => {
                self.tokens.set(None);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let token = answer.token.parse();
        self.tokens.set(Some(token.map_err(|_| Error::Malformed("a token".into()))?));
        // Another member may not know it yet, and would refuse it.
        self.balancer.prefer(from);
        Ok(true)
    }
}
