//! Who may do what: users, roles and their permissions, replicated, in etcd's buckets and rows.
//!
//! Apply alone changes them, by making a new [`View`]; readers on other threads hold the published one and
//! need no lock to ask it. The view of an entry is published after the keys of all entries before it and
//! before those of any entry behind it, so that a reader who finds the same revision before and after its
//! read has read under one set of permissions.
//!
//! Not here: passwords' hashing, signed tokens and the call's metadata (`server`).

mod apply;
mod check;
mod manage;
mod ranges;
#[cfg(test)]
mod tests;
mod tokens;
mod view;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use etch_disk::backend::{Batch, Snapshot};

pub(crate) use apply::changes_auth;
pub use tokens::SimpleTokens;
pub use view::{User, View};

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// Who asks, as a check needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// The user; empty for nobody.
    pub username: &'a str,
    /// The auth store's revision when the user was identified; 0 for nobody.
    pub revision: u64,
}

/// A user who was identified, as a call keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthInfo {
    /// The user.
    pub username: Arc<str>,
    /// The auth store's revision at that moment, or the one that a signed token names.
    pub revision: u64,
}

impl AuthInfo {
    /// What a check needs of it.
    pub fn who(&self) -> Who<'_> {
        Who { username: &self.username, revision: self.revision }
    }
}

/// The auth store as threads share it.
#[derive(Debug, Default)]
pub struct Auth {
    enabled: AtomicBool,
    revision: AtomicU64,
    /// Grows with every view that is published, also where the revision stays.
    generation: AtomicU64,
    view: RwLock<Arc<View>>,
    tokens: SimpleTokens,
}

/// A reader's own hold on the newest view: looked up again only after a change.
#[derive(Clone, Debug, Default)]
pub struct Held {
    generation: u64,
    view: Arc<View>,
}

impl Auth {
    /// Reads what the committed file holds, in place of what is there.
    pub fn load(&self, snapshot: &Snapshot) -> io::Result<()> {
        let view = View::load(snapshot, &self.view())?;
        self.tokens.switch(view.is_enabled());
        self.publish(Arc::new(view));
        Ok(())
    }

    /// Gives a store that never had a change its first revision.
    pub(crate) fn begin(&self, batch: &mut Batch) {
        let mut view = View::clone(&self.view());
        if view.begin(batch) {
            self.publish(Arc::new(view));
        }
    }

    /// Whether callers are checked at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// The revision: it grows with every change of users, roles and permissions.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Another number than before whenever a new view was published.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest view, out of the reader's own hold if nothing has changed.
    pub fn hold<'h>(&self, held: &'h mut Held) -> &'h Arc<View> {
        // The number first: a view that is newer than its number is looked up once more, never too seldom.
        let generation = self.generation();
        if held.generation != generation {
            *held = Held { generation, view: self.view() };
        }
        &held.view
    }

    /// The tokens that logins were given, where tokens are not signed.
    pub fn tokens(&self) -> &SimpleTokens {
        &self.tokens
    }

    pub(crate) fn publish(&self, view: Arc<View>) {
        let (enabled, revision) = (view.is_enabled(), view.revision());
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        self.revision.store(revision, Ordering::Release);
        self.enabled.store(enabled, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
