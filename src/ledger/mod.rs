//! The tamper-evident record.
//!
//! ```text
//! session ── forward / refuse / outcome ──┐
//! desk ───── append(Event) ───────────────┤  compose: fields and texts, on the caller's thread
//!                                         ▼
//!                                      spool     one write(), fdatasync when privileged; a Receipt
//!                                         │
//!                                  writer thread  assemble: place, references, salts, signatures
//!                                         ▼
//!                                      store     entries, texts, tiles, checkpoint: one transaction
//!                                         │
//!                              anchors ◀──┴──▶ index (derived, for people)
//! ```
//!
//! - [`record`]: what callers hand in.
//! - [`compose`]: what becomes of it.
//! - [`spool`]: where it is durable.
//! - [`assemble`], [`writer`], [`store`]: how it gets into the file.
//! - [`entry`], [`cbor`], [`tree`], [`checkpoint`], [`key`], [`payload`]: the format, as
//!   `docs/ledger-format.md` has it.
//! - [`anchor`]: what the ledger cannot prove by itself.
//!
//! The invariant that lives here: a [`Receipt`] is made in one place, [`SessionLog::record_intent`], after
//! the statement's intent is durable. Nothing waits for SQLite, and while the ledger cannot write,
//! nothing gets a receipt.

pub mod anchor;
mod assemble;
pub mod cbor;
pub mod checkpoint;
mod clock;
mod compose;
pub mod display;
pub mod entry;
pub mod export;
mod health;
pub mod inbox;
pub mod index;
pub mod key;
pub mod payload;
pub mod proof;
pub mod purge;
pub mod read;
mod record;
pub mod search;
mod settings;
mod shared;
mod spool;
mod standing;
mod store;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod verify;
mod writer;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use zeroize::Zeroizing;

use self::assemble::Assembler;
pub use self::assemble::Signing;
use self::cbor::Fields;
use self::compose::{Bindings, Hidden, Keep, Texts};
use self::entry::{Key, Kind};
use self::health::Health;
pub use self::health::Trouble;
use self::key::{HandOver, KeyError, PublicRoot, RootKey, random};
use self::payload::Payload;
pub use self::record::{
    Clearance, Event, HoldEnd, ReviewRecord, ReviewerSignature, SessionInfo, StatementRecord,
};
pub use self::settings::{Settings, is_live};
use self::spool::record as spooled;
use self::spool::{Context, Layout, Spool};
use self::store::Store;
pub use self::store::StoreError;
use self::writer::Writer;
use crate::actor::Claims;
use crate::approval::Release;
pub use crate::approval::request::TreeHead;
use crate::classify::StatementClass;
use crate::refusal::Refusal;
use crate::statement::{Digest, Outcome, RequestId};

/// The version that entries name as the software which wrote them.
const SOFTWARE: &str = concat!("countersign ", env!("CARGO_PKG_VERSION"));

/// Why the ledger did not take something. The statement it was about must not be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot write.
    #[error("the ledger cannot write")]
    Unavailable {
        /// Its disk is full.
        disk_full: bool,
    },
    /// It was closed.
    #[error("the ledger is closed")]
    Closed,
    /// One record is larger than the spool can ever hold.
    #[error("a record of {0} bytes is too large for the ledger")]
    TooLarge(usize),
    /// A grant rests on something that was never recorded, or covers another statement: a bug of the
    /// caller's, and no statement runs on it.
    #[error("the grant cannot be recorded: {0}")]
    Ungrounded(&'static str),
    /// No randomness, no commitments.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl LedgerError {
    /// Whether the disk is full; the refusal says so.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Unavailable { disk_full: true })
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::LedgerUnavailable { disk_full: error.is_disk_full() }
    }
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file.
    #[error("ledger: {0}")]
    Store(#[from] StoreError),
    /// Its spool or lock.
    #[error("ledger: {0}")]
    Io(#[from] std::io::Error),
    /// Its keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An anchor.
    #[error(transparent)]
    Anchor(#[from] anchor::AnchorError),
    /// Another process has it open.
    #[error("ledger {0} is in use by another process")]
    InUse(PathBuf),
    /// It is damaged; `countersign ledger verify` says more.
    #[error("the ledger is damaged: {0}; see countersign ledger verify")]
    Damaged(&'static str),
    /// The key is not this ledger's.
    #[error("the root key {found} is not this ledger's; its last epoch was certified by another")]
    OtherKey {
        /// The fingerprint of the key that was found.
        found: String,
    },
}

/// Proof that the ledger durably holds the intent of one statement.
///
/// Only [`SessionLog::record_intent`] makes one, and forwarding consumes it, so "nothing is forwarded
/// unrecorded" is checked by the compiler rather than remembered by us.
#[derive(Debug)]
pub struct Receipt {
    intent: IntentId,
    digest: Digest,
}

impl Receipt {
    /// Under which the outcome is to be reported.
    #[must_use]
    pub fn intent(&self) -> IntentId {
        self.intent
    }

    /// [`Statement::digest`](crate::statement::Statement::digest) of what was recorded: the session
    /// compares it with what it is about to forward.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A receipt out of thin air, for tests and fuzzers of what consumes them. The program does not build
    /// with `cfg(fuzzing)`.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_test(intent: u64, digest: Digest) -> Self {
        Self { intent: IntentId { record: intent, reads: false }, digest }
    }
}

/// Names the intent of a forwarded statement until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId {
    record: u64,
    /// The statement only reads: what is lost when the record of its outcome is, is how it ended.
    reads: bool,
}

/// What start-up found of the run before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Spool records that had not reached the ledger.
    pub replayed: u64,
    /// Spool records that are gone.
    pub lost: u64,
    /// The spool held something that no crash leaves behind.
    pub damaged: bool,
    /// Intents closed as unknown.
    pub unknown: u64,
    /// Requests closed: as withdrawn, or as executed where their statement had been forwarded.
    pub withdrawn: Vec<RequestId>,
}

/// How the ledger is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Why it cannot write, when it cannot.
    pub trouble: Option<Trouble>,
    /// The last signed checkpoint.
    pub head: Option<TreeHead>,
    /// Bytes that are spooled and not in the ledger yet, counted in whole segments.
    pub backlog_bytes: u64,
    /// The checkpoint that anchors were given last.
    pub anchored: Option<TreeHead>,
    /// Why an anchor could not be given it.
    pub anchor_trouble: Option<String>,
}

impl Status {
    /// Whether statements can be recorded.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.trouble.is_none()
    }
}

/// The ledger of a running proxy. Clones share it; no call waits for SQLite.
#[derive(Clone, Debug)]
pub struct Ledger {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
    recovery: Recovery,
}

#[derive(Debug)]
struct Threads {
    writing: Option<JoinHandle<()>>,
    indexing: Option<JoinHandle<()>>,
}

/// What callers and the writer thread have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    root: PublicRoot,
    boot: [u8; 16],
    spool: Spool,
    secret: Zeroizing<[u8; 32]>,
    health: Health,
    /// Requests that wait, as callers know them: before the writer has seen their entries.
    requests: Mutex<BTreeMap<RequestId, WaitingRequest>>,
    /// Records that must not be dropped and could not be spooled.
    postponed: Mutex<Vec<Vec<u8>>>,
    progress: Mutex<Progress>,
    moved: Condvar,
    stop: AtomicBool,
    /// The writer has stopped.
    written_out: AtomicBool,
    /// Held for as long as the ledger is open.
    lock: Mutex<Option<File>>,
    purge: purge::Purge,
}

/// A request whose opening is recorded.
#[derive(Debug)]
struct WaitingRequest {
    /// The commitment to its statement's digest.
    covers: Digest,
    /// The same, where the salt is not stored.
    hidden: Option<Hidden>,
    digest: Digest,
    /// Whose approvals are recorded.
    approved_by: Vec<String>,
}

#[derive(Debug, Default)]
struct Progress {
    head: Option<TreeHead>,
    /// All records before this one are in the ledger.
    committed: u64,
    anchored: Option<TreeHead>,
    anchor_trouble: Option<String>,
}

/// The most outcomes that are kept in memory while the spool cannot be written.
const MOST_POSTPONED: usize = 1 << 16;

impl Ledger {
    /// Opens a ledger, or begins one where there is none: takes in what an earlier run left in the
    /// spool, closes what it left open, compares the anchors, starts the writer.
    ///
    /// # Errors
    ///
    /// When it cannot be written, its key is missing, it is damaged, or an anchor has seen more.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let lock = settings.lock()?;
        let root = RootKey::load(&settings.key_files())?;
        let store = if settings.path.exists() {
            Store::open(&settings.path)?
        } else {
            Store::create(&settings.path)?
        };
        let found = standing::read(&store)?;
        let hand_over = match &found {
            Some(found) => pending_hand_over(settings, found, &root)?,
            None => None,
        };
        let heads = open_heads(settings, &store, found.as_ref(), root.origin())?;
        let is_new = found.is_none();
        let (standing, ingested) = match found {
            Some(found) => {
                let ingested = found.standing.ingested;
                (found.standing, ingested)
            }
            None => (assemble::Standing::default(), 0),
        };

        inbox::make_directory(&settings.path)?;
        let boot = random()?;
        let layout = Layout {
            directory: settings.spool_directory(),
            segment_bytes: settings.segment_bytes,
            backlog_bytes: settings.backlog_bytes,
            key: spooled::SpoolKey::new(&root.spool_secret()),
        };
        // A key that was handed over cannot check what was left under the old one; nothing was
        // (`countersign key rotate` sees to that).
        let ended = (!is_new && hand_over.is_none()).then(|| standing.tree.size());
        let spool = Spool::open(layout, boot, settings.clock.clone(), ingested, ended)?;
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            root: root.public(),
            boot,
            spool,
            secret: root.salt_secret(),
            health: Health::default(),
            requests: Mutex::default(),
            postponed: Mutex::default(),
            progress: Mutex::default(),
            moved: Condvar::new(),
            stop: AtomicBool::new(false),
            written_out: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            purge: purge::Purge::default(),
        });
        let assembler = Assembler::new(root.origin(), boot, settings.signing, standing);
        let mut writer = Writer::new(shared.clone(), store, assembler, ingested, heads);
        writer.begin_run(&root, is_new.then_some(SOFTWARE), hand_over.as_ref())?;
        if hand_over.is_some() {
            writer::forget_hand_over(&settings.key_files(), &settings.path);
        }
        let recovery = if is_new { Recovery::default() } else { writer.recover(SOFTWARE)? };
        for note in inbox::left_over(&settings.path) {
            shared.purge.promise(note, 0);
            shared.purge.ask(shared.written());
        }
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writing = thread("ledger").spawn(move || writer.run())?;
        let indexing = if settings.index {
            let shared = shared.clone();
            Some(thread("ledger-index").spawn(move || index::keep(&shared))?)
        } else {
            None
        };
        let threads = Mutex::new(Threads { writing: Some(writing), indexing });
        let handle = Handle { shared, threads, recovery };
        Ok(Self { handle: Arc::new(handle) })
    }

    /// What start-up found of the run before.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// Records that an agent logged in; everything the session does is recorded through what this
    /// returns.
    ///
    /// # Errors
    ///
    /// When the ledger cannot write: the session must not begin.
    pub fn session_opened(&self, info: &SessionInfo) -> Result<SessionLog, LedgerError> {
        let shared = &self.handle.shared;
        shared.admit()?;
        let log = SessionLog {
            shared: shared.clone(),
            session: info.session.0.into_bytes(),
            context: Mutex::new(Context::new(info.session.0.into_bytes(), compose::session(info))),
            info: Mutex::new(info.clone()),
            closed: AtomicBool::new(false),
        };
        let mut fields = Fields::new();
        fields.uint(Key::Asked, compose::nanoseconds(info.at));
        log.entry(Kind::SessionOpened, (true, false), &fields, &[], None)?;
        Ok(log)
    }

    /// Records everything that is not a statement. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// When the ledger cannot write: what the event tells of must not take effect.
    pub fn append(&self, event: Event) -> Result<(), LedgerError> {
        self.handle.shared.append(event)
    }

    /// The last signed checkpoint: for chat messages and pages, each of which is an anchor then.
    #[must_use]
    pub fn head(&self) -> Option<TreeHead> {
        self.handle.shared.progress.lock().head
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.handle.shared;
        shared.watch_the_writer();
        let progress = shared.progress.lock();
        Status {
            trouble: shared.health.trouble(),
            head: progress.head,
            backlog_bytes: shared.spool.backlog(),
            anchored: progress.anchored,
            anchor_trouble: progress.anchor_trouble.clone(),
        }
    }

    /// Waits until everything recorded so far is in the SQLite file; `false` when that takes longer
    /// than `limit`. Nothing on a statement's path needs this.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        self.handle.shared.flush(limit)
    }

    /// Everything into the file, the last checkpoint to the anchors, then no more.
    pub fn close(self) {
        self.handle.close();
    }
}

impl Handle {
    fn close(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.spool.nudge();
        let mut threads = self.threads.lock();
        // The index ends behind the writer, so that it has the last groups too.
        join(threads.writing.take());
        self.shared.written_out.store(true, Ordering::Release);
        self.shared.moved.notify_all();
        join(threads.indexing.take());
        *self.shared.lock.lock() = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the ledger had panicked");
    }
}

/// The root key that follows the ledger's, where the operator prepared that.
fn pending_hand_over(
    settings: &Settings,
    found: &standing::Found,
    root: &RootKey,
) -> Result<Option<HandOver>, OpenError> {
    let public = root.public();
    let other = || OpenError::OtherKey { found: public.fingerprint() };
    if found.origin != public.origin {
        return Err(other());
    }
    if found.certificate.verify(&found.origin, &public.key).is_ok() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(HandOver::file(&settings.path)).map_err(|_| other())?;
    let hand_over = HandOver::parse(&text).ok_or_else(other)?;
    let fits = hand_over.verify().is_ok()
        && hand_over.new == public
        && found.certificate.verify(&found.origin, &hand_over.old.key).is_ok();
    if fits { Ok(Some(hand_over)) } else { Err(other()) }
}

/// Compares the head files with the ledger. None may have seen what the ledger does not hold.
fn open_heads(
    settings: &Settings,
    store: &Store,
    found: Option<&standing::Found>,
    origin: &str,
) -> Result<Vec<anchor::HeadFile>, OpenError> {
    let size = found.map_or(0, |found| found.standing.tree.size());
    let mut heads = Vec::new();
    for path in &settings.heads {
        let (file, head) = anchor::HeadFile::open(path, origin)?;
        if let Some(head) = head {
            let path = path.clone();
            if head.size > size {
                return Err(anchor::AnchorError::Ahead { path, anchored: head.size, size }.into());
            }
            if standing::tree_of(store.connection(), head.size)?.root() != head.root {
                return Err(anchor::AnchorError::Forked { path, anchored: head.size }.into());
            }
        }
        heads.push(file);
    }
    Ok(heads)
}

/// The hand with which one session writes. Dropping it records the session's end.
#[derive(Debug)]
pub struct SessionLog {
    shared: Arc<Shared>,
    session: [u8; 16],
    context: Mutex<Context>,
    info: Mutex<SessionInfo>,
    closed: AtomicBool,
}

thread_local! {
    /// Two buffers that every statement of a thread reuses: its fields and its record.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl SessionLog {
    /// Records that a statement is about to be forwarded, and on what ground. The intent is durable
    /// when this returns; a grant is used up by it.
    ///
    /// # Errors
    ///
    /// When it could not be recorded: the statement must not be forwarded.
    pub fn record_intent(
        &self,
        statement: &StatementRecord<'_>,
        clearance: Clearance,
    ) -> Result<Receipt, LedgerError> {
        self.shared.admit()?;
        let ground = clearance.as_str();
        match &clearance {
            Clearance::Granted(release) => self.record_granted(statement, release),
            Clearance::Allowed(_) | Clearance::Doomed | Clearance::ReadOnly | Clearance::ParseOnly => {
                let by_rule = clearance.rule().map(std::slice::from_ref).unwrap_or_default();
                let mut statement = *statement;
                if statement.rules.is_empty() {
                    statement.rules = by_rule;
                }
                let statement = &statement;
                let must_sign = statement.classification.class.is_privileged() || statement.request.is_some();
                let runs = matches!(clearance, Clearance::Allowed(_));
                let keep = if must_sign && runs { Keep::Whole } else { Keep::Beginning };
                let texts = Texts::of(statement.statement, statement.classification, keep);
                let bindings = self.bindings(statement, &texts)?;
                let number = SCRATCH.with_borrow_mut(|(fields, record)| {
                    let mut composed = Fields::reuse(std::mem::take(fields));
                    compose::forwarded(&mut composed, statement, ground, &bindings);
                    spooled::entry(
                        record,
                        Kind::Statement,
                        (true, must_sign),
                        &self.session,
                        &request_bytes(statement.request),
                        &composed,
                        texts.payloads(),
                    );
                    *fields = composed.into_bytes();
                    let length = record.len();
                    self.append(record, &[length], must_sign)
                })?;
                let reads = !must_sign && statement.classification.class == StatementClass::Read;
                Ok(Receipt { intent: IntentId { record: number, reads }, digest: statement.digest })
            }
        }
    }

    /// The grant and the statement it covers go into the spool by one write.
    fn record_granted(
        &self,
        statement: &StatementRecord<'_>,
        release: &Release,
    ) -> Result<Receipt, LedgerError> {
        let grant = release.grant();
        let request = grant.request();
        // What decided is what the grant was judged by, not what the request was opened under.
        let statement = &StatementRecord { policy: release.policy(), rules: release.rules(), ..*statement };
        let (covers, hidden) = {
            let requests = self.shared.requests.lock();
            let waiting = requests
                .get(&request)
                .ok_or(LedgerError::Ungrounded("its request was never recorded, or it was used before"))?;
            if waiting.digest != statement.digest || grant.seal().statement != statement.digest {
                return Err(LedgerError::Ungrounded("it covers another statement"));
            }
            let recorded = |review: &crate::approval::Review| {
                waiting.approved_by.iter().any(|by| by == review.reviewer.as_str())
            };
            if grant.approvals().is_empty() || !grant.approvals().iter().all(recorded) {
                return Err(LedgerError::Ungrounded("an approval it rests on was never recorded"));
            }
            (waiting.covers, waiting.hidden)
        };
        let texts = Texts::of(statement.statement, statement.classification, Keep::Whole);
        // Under the request's own salt, so that everybody can see it is the same digest, though nobody
        // sees which.
        let bindings = Bindings { hidden, rendition: texts.rendition(), covers: Some(covers) };
        let request_bytes = request.0.into_bytes();
        let agent = self.info.lock().identity.agent.name.clone();

        let mut used = Vec::new();
        let fields = compose::grant(grant, &self.session, agent.as_str(), covers);
        let kind = Kind::GrantUsed;
        spooled::entry(
            &mut used,
            kind,
            (false, true),
            &self.session,
            &request_bytes,
            &fields,
            std::iter::empty(),
        );
        let mut record = Vec::new();
        let mut fields = Fields::new();
        compose::forwarded(&mut fields, statement, "granted", &bindings);
        let kind = Kind::Statement;
        spooled::entry(
            &mut record,
            kind,
            (true, true),
            &self.session,
            &request_bytes,
            &fields,
            texts.payloads(),
        );

        let lengths = [used.len(), record.len()];
        used.append(&mut record);
        let number = self.append(&mut used, &lengths, true)?;
        self.shared.requests.lock().remove(&request);
        Ok(Receipt { intent: IntentId { record: number, reads: false }, digest: statement.digest })
    }

    /// Records that a statement is not forwarded, and why. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// When it could not be recorded. The statement is refused all the same.
    pub fn record_refusal(&self, statement: &StatementRecord<'_>, why: &Refusal) -> Result<(), LedgerError> {
        self.shared.admit()?;
        let texts = Texts::of(statement.statement, statement.classification, Keep::Beginning);
        let mut bindings = self.bindings(statement, &texts)?;
        bindings.covers = statement
            .request
            .and_then(|id| self.shared.requests.lock().get(&id).map(|waiting| waiting.covers));
        let mut fields = Fields::new();
        compose::refused(&mut fields, statement, why, &bindings);
        let payloads: Vec<Payload<'_>> = texts.payloads().collect();
        self.entry(Kind::Refused, (true, true), &fields, &payloads, statement.request)
    }

    /// Records how a forwarded statement ended. It ended whether that can be recorded or not, so
    /// there is no error: what cannot be spooled now is kept until it can, and degrades the ledger.
    /// How a plain read ended is written along with the next record; a crash in between leaves it
    /// `unknown`.
    pub fn outcome(&self, intent: IntentId, outcome: &Outcome, duration_ns: u64) {
        SCRATCH.with_borrow_mut(|(fields, record)| {
            let mut composed = Fields::reuse(std::mem::take(fields));
            compose::outcome(&mut composed, outcome, duration_ns);
            spooled::outcome(record, intent.record, &composed);
            *fields = composed.into_bytes();
            self.shared.append_or_postpone(record, intent.reads);
        });
    }

    /// Records that the agent changed what it claims about itself; statements repeat it from now on.
    pub fn claims(&self, claimed: &Claims) {
        let constants = {
            let mut info = self.info.lock();
            info.claimed = claimed.clone();
            compose::session(&info)
        };
        self.context.lock().replace(constants);
        let mut fields = Fields::new();
        compose::claims(&mut fields, Key::Claimed, claimed);
        let mut record = Vec::new();
        let kind = Kind::SessionClaims;
        spooled::entry(
            &mut record,
            kind,
            (false, false),
            &self.session,
            &[0; 16],
            &fields,
            std::iter::empty(),
        );
        self.shared.append_or_postpone(&mut record, false);
    }

    /// Records the session's end, once.
    pub fn closed(&self, reason: &str) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut fields = Fields::new();
        fields.text(Key::What, reason);
        let mut record = Vec::new();
        let kind = Kind::SessionClosed;
        spooled::entry(
            &mut record,
            kind,
            (false, false),
            &self.session,
            &[0; 16],
            &fields,
            std::iter::empty(),
        );
        self.shared.append_or_postpone(&mut record, false);
    }

    /// What an entry says of texts that are not stored as they were.
    fn bindings(&self, statement: &StatementRecord<'_>, texts: &Texts<'_>) -> Result<Bindings, LedgerError> {
        let rendition = texts.rendition();
        let hidden = match rendition {
            Some(_) => Some(Hidden::new(&self.shared.secret, random()?, statement.digest)),
            None => None,
        };
        Ok(Bindings { hidden, rendition, covers: None })
    }

    fn entry(
        &self,
        kind: Kind,
        flags: (bool, bool),
        fields: &Fields,
        payloads: &[Payload<'_>],
        request: Option<RequestId>,
    ) -> Result<(), LedgerError> {
        let mut record = Vec::new();
        let request = request_bytes(request);
        spooled::entry(&mut record, kind, flags, &self.session, &request, fields, payloads.iter().cloned());
        let length = record.len();
        self.append(&mut record, &[length], flags.1).map(|_| ())
    }

    /// Spools records of this session, its constants before them where the segment lacks them.
    fn append(&self, records: &mut [u8], lengths: &[usize], sync: bool) -> Result<u64, LedgerError> {
        let mut context = self.context.lock();
        let result = self.shared.spool.append(records, lengths, Some(&mut context), sync);
        drop(context);
        result.map_err(|error| self.shared.failed(error))
    }
}

impl Drop for SessionLog {
    fn drop(&mut self) {
        self.closed("the session was dropped");
    }
}

fn request_bytes(request: Option<RequestId>) -> [u8; 16] {
    request.map(|request| request.0.into_bytes()).unwrap_or_default()
}
