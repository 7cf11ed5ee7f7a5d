//! The replicated state as a whole: its tables, what the committed file says about them, and the one way
//! in which they change and become durable. Not here: what requests do (`apply`), and when to commit.

use std::io;
use std::iter::Peekable;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use etch_api::Error;
use etch_api::internal::InternalEntry;
use etch_api::pb::etcdserverpb::AlarmType;
use etch_api::pb::raftpb::ConfChange;
use etch_disk::backend::{Backend, Batch, Bucket, Snapshot};
use etch_disk::mutants::{self, Mutant};
use serde::Serialize;

use crate::alarm::Alarms;
use crate::apply::{Applying, Done, read_entry};
use crate::auth::{Auth, changes_auth};
use crate::lease::{Lessor, LessorConfig};
use crate::members::Members;
use crate::mvcc::{Event, Step, Store, Writer};
use crate::quota::Quota;
use crate::txn::Reply;
use crate::version::{ETCD, Version};
use crate::watch::Hub;

/// What the state is told at the start.
#[derive(Clone, Debug)]
pub struct StateConfig {
    /// Bytes that the data may take (`--quota-backend-bytes`); 0 is no limit.
    pub quota_bytes: u64,
    /// How leases are run.
    pub leases: LessorConfig,
    /// Do checkpoints of leases survive a restart? (feature gate `LeaseCheckpointPersist`)
    pub persist_checkpoints: bool,
}

/// The tables beside the keys. Shared with readers; only apply writes.
pub(crate) struct Tables {
    pub lessor: Arc<Lessor>,
    pub members: Arc<RwLock<Members>>,
    pub alarms: Arc<RwLock<Alarms>>,
    pub auth: Arc<Auth>,
    pub quota: Arc<Quota>,
    /// Copies of the alarms, for each entry looks at them.
    pub flags: Flags,
    pub persist_checkpoints: bool,
}

/// The alarms as every entry looks at them.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    corrupt: AtomicBool,
    no_space: AtomicBool,
}

impl Flags {
    fn is_corrupt(&self) -> bool {
        self.corrupt.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, alarms: &Alarms) {
        self.corrupt.store(alarms.is_up(AlarmType::Corrupt), Ordering::Release);
        self.no_space.store(alarms.is_up(AlarmType::Nospace), Ordering::Release);
    }
}

impl Tables {
    pub fn is_corrupt(&self) -> bool {
        self.flags.is_corrupt()
    }

    pub fn is_out_of_space(&self) -> bool {
        self.flags.no_space.load(Ordering::Acquire)
    }

    pub fn members_mut(&self) -> RwLockWriteGuard<'_, Members> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn alarms_mut(&self) -> RwLockWriteGuard<'_, Alarms> {
        self.alarms.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The replicated state: what apply works on. One a member, owned by the node.
pub struct State {
    store: Arc<Store>,
    writer: Writer,
    hub: Arc<Hub>,
    tables: Tables,
    index: u64,
    term: u64,
    /// The index and term of the last commit taken.
    noted: (u64, u64),
    /// Bytes of the commit that is under way.
    committing: usize,
}

pub(crate) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(crate) const TERM: &[u8] = b"term";
pub(crate) const CONF_STATE: &[u8] = b"confState";
pub(crate) const STORAGE_VERSION: &[u8] = b"storageVersion";

/// A committed entry, read.
struct Entry {
    index: u64,
    term: u64,
    request: Option<InternalEntry>,
}

impl Entry {
    fn read(index: u64, term: u64, data: &Bytes) -> Self {
        let request = (!data.is_empty()).then(|| read_entry(index, data));
        Self { index, term, request }
    }

    fn changes_auth(&self) -> bool {
        self.request.as_ref().and_then(|request| request.kind).is_some_and(changes_auth)
    }
}

/// Raft's configuration, in the JSON of the `meta` bucket.
#[derive(Serialize)]
struct ConfStateRow<'a> {
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    voters: &'a [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    learners: &'a [u64],
    auto_leave: bool,
}

impl State {
    /// Reads the state out of the committed file. An error says what is damaged, or why the file is not
    /// for us.
    pub fn open(backend: Arc<dyn Backend>, config: &StateConfig) -> io::Result<Self> {
        let snapshot = backend.snapshot();
        check_version(&snapshot)?;
        let members = Members::load(&snapshot)?;
        let alarms = Alarms::load(&snapshot)?;
        let index = number(&snapshot, CONSISTENT_INDEX)?;
        let term = number(&snapshot, TERM)?;
        let (store, mut writer, loaded) = Store::open(Arc::clone(&backend))?;
        let lessor = load_leases(&snapshot, config, &loaded.attachments)?;
        let auth = Arc::new(Auth::default());
        auth.load(&snapshot)?;
        auth.begin(writer.pending_mut());
        let flags = Flags::default();
        flags.set(&alarms);
        let tables = Tables {
            lessor,
            members: Arc::new(RwLock::new(members)),
            alarms: Arc::new(RwLock::new(alarms)),
            auth,
            quota: Arc::new(Quota::new(config.quota_bytes, backend)),
            flags,
            persist_checkpoints: config.persist_checkpoints,
        };
        let hub = Hub::new(store.revision());
        Ok(Self { store, writer, hub, tables, index, term, noted: (index, term), committing: 0 })
    }

    /// The index of the last entry applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// That entry's term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The keys.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The watches.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The leases.
    pub fn lessor(&self) -> &Arc<Lessor> {
        &self.tables.lessor
    }

    /// Who may do what.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.tables.auth
    }

    /// The quota.
    pub fn quota(&self) -> &Arc<Quota> {
        &self.tables.quota
    }

    /// The member table, for sharing.
    pub fn shared_members(&self) -> &Arc<RwLock<Members>> {
        &self.tables.members
    }

    /// The alarms, for sharing.
    pub fn shared_alarms(&self) -> &Arc<RwLock<Alarms>> {
        &self.tables.alarms
    }

    /// The member table.
    pub fn members(&self) -> RwLockReadGuard<'_, Members> {
        self.tables.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies entries in order as one batch, publishes what they change, tells the watchers, and adds what
    /// came of each to `done`.
    pub fn apply<'e>(
        &mut self,
        entries: impl Iterator<Item = (u64, u64, &'e Bytes)>,
        done: &mut Vec<Done>,
    ) {
        let mut entries =
            entries.map(|(index, term, data)| Entry::read(index, term, data)).peekable();
        while entries.peek().is_some() {
            let events = self.apply_run(&mut entries, done);
            self.tables.lessor.published();
            if !events.is_empty() {
                self.hub.notify(&events, self.store.revision());
            }
        }
        self.tables.quota.spent(self.writer.pending_bytes() + self.committing);
    }

    /// Applies what can be published together: permissions change between two publications of keys, never
    /// within one, so that no reader sees keys under permissions that they were not under.
    fn apply_run(
        &mut self,
        entries: &mut Peekable<impl Iterator<Item = Entry>>,
        done: &mut Vec<Done>,
    ) -> Vec<Arc<Event>> {
        let (tables, auth) = (&self.tables, self.tables.auth.view());
        let mut applying = Applying { batch: self.writer.begin(), tables, auth };
        let mut first = true;
        while let Some(Entry { index, term, request }) =
            entries.next_if(|entry| first || !entry.changes_auth())
        {
            first = false;
            assert_eq!(index, self.index + 1, "invariant I3: entries are applied without a gap");
            (self.index, self.term) = (index, term);
            // A leader's first entry carries no request.
            if let Some(request) = request {
                done.push(applying.apply(index, &request));
            }
        }
        applying.batch.finish()
    }

    /// Applies a change of the membership, or says why it changes nothing.
    pub fn apply_change(
        &mut self,
        index: u64,
        term: u64,
        change: &ConfChange,
    ) -> Result<(), Error> {
        assert_eq!(index, self.index + 1, "invariant I3: entries are applied without a gap");
        (self.index, self.term) = (index, term);
        let verdict = self.members().validate(change);
        if verdict.is_ok() {
            self.tables.members_mut().apply(change, self.writer.pending_mut());
        }
        verdict
    }

    /// Notes raft's configuration after a change.
    pub fn set_conf_state(&mut self, voters: &[u64], learners: &[u64]) {
        let json = conf_state_json(voters, learners);
        self.writer.pending_mut().put(Bucket::Meta, CONF_STATE, json);
    }

    /// A reply that says nothing but the revision.
    pub fn empty_reply(&self) -> Reply {
        Reply { revision: self.store.revision(), body: Bytes::new() }
    }

    /// True if anything waits to be committed to the B+tree.
    pub fn has_pending(&self) -> bool {
        self.writer.pending_len() > 0 || self.noted != (self.index, self.term)
    }

    /// Changes that wait.
    pub fn pending_changes(&self) -> usize {
        self.writer.pending_len()
    }

    /// Bytes of the changes that wait.
    pub fn pending_bytes(&self) -> usize {
        self.writer.pending_bytes()
    }

    /// Takes what waits, together with the applied index: one batch, one commit (invariant I2). With it
    /// the revision that it goes up to.
    pub fn take_commit(&mut self) -> (Batch, i64) {
        let (index, term) = (self.index, self.term);
        let storage = self.members().storage_version();
        let batch = self.writer.pending_mut();
        let forgets = (mutants::on(Mutant::I11651) && self.tables.auth.revision() > 1)
            || (mutants::on(Mutant::I13937) && batch.is_empty());
        if !forgets {
            batch.put(Bucket::Meta, CONSISTENT_INDEX, Bytes::copy_from_slice(&index.to_be_bytes()));
            batch.put(Bucket::Meta, TERM, Bytes::copy_from_slice(&term.to_be_bytes()));
        }
        if let Some(version) = storage {
            batch.put(Bucket::Meta, STORAGE_VERSION, version.to_string().into());
        }
        self.noted = (index, term);
        self.committing = self.writer.pending_bytes();
        let pending = self.writer.take_pending();
        if mutants::on(Mutant::I17228) {
            self.store.committed(pending.revision);
        }
        (pending.batch, pending.revision)
    }

    /// The B+tree holds everything up to this revision.
    pub fn committed(&mut self, revision: i64) {
        self.store.committed(revision);
        self.committing = 0;
        self.tables.quota.measured(self.writer.pending_bytes());
    }

    /// True while a compaction has steps to do.
    pub fn is_compacting(&self) -> bool {
        self.writer.is_compacting()
    }

    /// True if the next step of the compaction is one in the index.
    pub fn compacts_index(&self) -> bool {
        self.writer.compacts_index()
    }

    /// Does one step of the compaction, over at most `keys` keys or stored changes. An error costs the
    /// compaction its hash, and nothing else.
    pub fn compaction_step(&mut self, keys: usize) -> io::Result<Step> {
        self.writer.compact_step(keys)
    }
}

fn load_leases(
    snapshot: &Snapshot,
    config: &StateConfig,
    attached: &[(Bytes, i64)],
) -> io::Result<Arc<Lessor>> {
    let lessor = Lessor::new(config.leases.clone());
    let mut rows = snapshot.cursor(Bucket::Lease)?;
    while let Some((key, value)) = rows.next()? {
        let negative = key.first().is_some_and(|byte| byte & 0x80 != 0);
        if negative && mutants::on(Mutant::I12535) {
            continue;
        }
        lessor.load(value).map_err(|e| damaged(format!("a lease's row: {e}")))?;
    }
    for (key, lease) in attached {
        lessor.attach_key(*lease, key);
    }
    Ok(lessor)
}

/// A number of the `meta` bucket; 0 if it is not there.
/// Raft's configuration as the `meta` bucket has it.
pub(crate) fn conf_state_json(voters: &[u64], learners: &[u64]) -> Bytes {
    let row = ConfStateRow { voters, learners, auto_leave: false };
    serde_json::to_vec(&row).expect("plain data").into()
}

pub(crate) fn number(snapshot: &Snapshot, key: &[u8]) -> io::Result<u64> {
    match snapshot.get(Bucket::Meta, key)? {
        None => Ok(0),
        Some(value) => value.try_into().map(u64::from_be_bytes).map_err(|_| {
            damaged(format!("`{}` in the meta bucket is not a number", key.escape_ascii()))
        }),
    }
}

/// Files of a newer release may hold what we would not understand.
fn check_version(snapshot: &Snapshot) -> io::Result<()> {
    let Some(value) = snapshot.get(Bucket::Meta, STORAGE_VERSION)? else { return Ok(()) };
    let text = String::from_utf8_lossy(value);
    let version: Version =
        text.parse().map_err(|()| damaged(format!("`{text}` is not a storage version")))?;
    if version > ETCD.cluster() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the data is of storage version {version}, newer than {}", ETCD.cluster()),
        ));
    }
    Ok(())
}

fn damaged(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
