//! What is owned, with what is known of it. Answers only while the session surely lives.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::guard::Footprint;
use crate::concurrency::Session;
use crate::pb;

#[derive(Default)]
pub(super) struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    session: Option<Session>,
    owned: BTreeMap<Bytes, Owned>,
    /// Given back at a time when the answer that made us the owner had not come yet: the owner's key's revision.
    given_back: BTreeMap<Bytes, i64>,
}

struct Owned {
    /// The revision at which the owner's key was created.
    created: i64,
    answer: pb::RangeResponse,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Owns through this session from now on.
    pub fn own(&self, session: Session) {
        *self.lock() = Inner { session: Some(session), ..Inner::default() };
    }

    /// Owns nothing any more.
    pub fn disown(&self) {
        *self.lock() = Inner::default();
    }

    /// The session, if it lives.
    pub fn session(&self) -> Option<Session> {
        self.lock().session.clone().filter(|session| !session.is_lost())
    }

    /// What is known of a key, if it is owned.
    pub fn get(&self, key: &Bytes) -> Option<pb::RangeResponse> {
        let inner = self.lock();
        inner.session.as_ref().filter(|session| !session.is_lost())?;
        inner.owned.get(key).map(|owned| owned.answer.clone())
    }

    /// Notes what was read when the key became ours.
    pub fn insert(&self, session: &Session, key: &Bytes, created: i64, answer: &pb::RangeResponse) {
        let mut inner = self.lock();
        let current = inner.session.as_ref().is_some_and(|s| s.lease() == session.lease());
        let already_wanted =
            inner.given_back.remove(key).is_some_and(|revision| revision == created);
        if current && !already_wanted {
            inner.owned.insert(key.clone(), Owned { created, answer: answer.clone() });
        }
    }

    /// Forgets a key that somebody wants to write.
    pub fn give_back(&self, key: &Bytes, created: i64) {
        let mut inner = self.lock();
        match inner.owned.get(key) {
            Some(owned) if owned.created == created => _ = inner.owned.remove(key),
            _ => _ = inner.given_back.insert(key.clone(), created),
        }
    }

    /// Forgets what a write of our own touches; the keys with their owner's keys' revisions.
    pub fn take(&self, footprint: &Footprint) -> Vec<(Bytes, i64)> {
        let mut inner = self.lock();
        let touched = inner.owned.extract_if(.., |key, _| footprint.touches(key));
        touched.map(|(key, owned)| (key, owned.created)).collect()
    }
}
