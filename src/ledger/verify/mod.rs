//! Offline verification: one pass over the file, no trust in anything but a public key and the
//! anchors an auditor brings.
//!
//! The order of checks is part of the format (`docs/ledger-format.md`, section 8), so that every
//! verifier reports the same first failure. Signatures are checked on other threads meanwhile; what
//! they find is put back into that order.
//!
//! - [`stream`]: the pass itself.
//! - [`signatures`]: the other threads.
//! - [`meaning`], [`people`]: what must be true of statements, requests and reviews.
//! - [`clocks`].
//! - [`anchors`].
//! - [`places`]: where a key and anchors come from.

mod anchors;
mod clocks;
mod meaning;
mod people;
mod places;
mod signatures;
mod sshsig;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, ErrorCode};

pub(super) use self::meaning::must_be_signed;
pub use self::places::{is_beside, key_beside};
use super::entry::Kind;
use super::index;
use super::key::PublicRoot;
use super::store::{self, StoreError};
use crate::statement::Digest;

/// What is wrong with a ledger; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The schema is not the built-in one.
    Schema = 10,
    /// The file is damaged.
    Damaged = 11,
    /// A gap, a duplicate, another order.
    Order = 12,
    /// Signature or encoding of an entry.
    Entry = 13,
    /// Signature or form of a checkpoint or an anchor.
    Checkpoint = 14,
    /// The root.
    Root = 15,
    /// Tiles or index.
    Derived = 16,
    /// Entries behind the last checkpoint.
    UnsignedTail = 17,
    /// Rolled back or forked.
    RolledBack = 18,
    /// Key or epoch.
    Key = 19,
    /// Texts and redaction.
    Redaction = 20,
    /// Clock.
    Clock = 21,
    /// A missing review, a self-approval, a reused grant ..
    Meaning = 22,
}

impl Code {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Damaged => "damaged",
            Self::Order => "order",
            Self::Entry => "entry",
            Self::Checkpoint => "checkpoint",
            Self::Root => "root",
            Self::Derived => "derived",
            Self::UnsignedTail => "unsigned_tail",
            Self::RolledBack => "rolled_back",
            Self::Key => "key",
            Self::Redaction => "redaction",
            Self::Clock => "clock",
            Self::Meaning => "meaning",
        }
    }
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub code: Code,
    /// At which entry, where it is about one.
    pub seq: Option<u64>,
    /// In words.
    pub what: String,
}

impl Problem {
    pub(crate) fn new(code: Code, seq: impl Into<Option<u64>>, what: impl Into<String>) -> Self {
        Self { code, seq: seq.into(), what: what.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "entry {seq}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Why a check stopped before it could say anything about the ledger.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What to check, and against what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ledger.
    pub path: PathBuf,
    /// The root's public key; when it is not given, the one beside the ledger is used.
    pub key: Option<PathBuf>,
    /// Checkpoints that were kept elsewhere.
    pub anchors: Vec<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The ledger's name.
    pub origin: String,
    /// The key that was trusted, as a short id, and the file it came from.
    pub key: (String, PathBuf),
    /// Whether the key lies beside the ledger rather than with the auditor.
    pub key_is_beside: bool,
    /// What was counted on the way.
    pub counts: Counts,
    /// The root over all entries, when the pass got that far.
    pub root: Option<Digest>,
    /// How many entries the anchors given cover; `None` without anchors.
    pub anchored: Option<u64>,
    /// The same of those anchors that do not lie beside the ledger.
    pub anchored_elsewhere: Option<u64>,
    /// What the ledger itself tells of damage, the first entries of it.
    pub damage: Vec<Recorded>,
    /// How many entries tell of damage.
    pub damaged: u64,
    /// The first thing that is wrong.
    pub problem: Option<Problem>,
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries.
    pub entries: u64,
    /// Signatures on entries.
    pub signatures: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Epochs.
    pub epochs: u64,
    /// Forwarded statements.
    pub statements: u64,
    /// Statements that were not forwarded.
    pub refused: u64,
    /// Approval requests.
    pub requests: u64,
    /// Answers that counted.
    pub reviews: u64,
    /// Statements that ran on a grant.
    pub grants: u64,
    /// Texts that fit their commitments.
    pub texts: u64,
    /// Texts that were redacted.
    pub redacted: u64,
    /// Anchors that were given and hold.
    pub anchors: u64,
    /// Rows of the index that are as derived; `None` without an index.
    pub index_rows: Option<u64>,
    /// The time of the first entry and of the last.
    pub times: Option<(u64, u64)>,
}

/// Damage that the ledger itself recorded: its entries are as they were written, and tell that others
/// are missing or that it could not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The entry that tells of it.
    pub seq: u64,
    /// Its kind: recovered, discarded or degraded.
    pub kind: Kind,
    /// What it says.
    pub what: String,
}

/// Why a ledger that is good as far as it goes cannot be vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The key lies beside the ledger.
    KeyBeside,
    /// The anchors that cover the last entry lie beside the ledger; those from elsewhere cover less.
    AnchorBeside {
        /// The first entry that they do not cover.
        from: u64,
    },
    /// No anchor covers the last entry.
    Tail {
        /// The first entry that none covers.
        from: u64,
    },
    /// The ledger records damage.
    Damage {
        /// How many entries tell of some.
        entries: u64,
    },
}

impl Reservation {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::KeyBeside => "key_beside",
            Self::AnchorBeside { .. } => "anchor_beside",
            Self::Tail { .. } => "tail_not_anchored",
            Self::Damage { .. } => "recorded_damage",
        }
    }
}

impl std::fmt::Display for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeyBeside => f.write_str(
                "The key lies beside the ledger: whoever replaced the ledger can have replaced it too. Give \
                 --key with a copy that was kept elsewhere.",
            ),
            Self::AnchorBeside { from } => write!(
                f,
                "The anchor lies beside the ledger, and nothing from elsewhere vouches for entry {from} and \
                 later: an older copy with its older head file would pass as well. Give --anchor with a \
                 checkpoint that was kept elsewhere.",
            ),
            Self::Tail { from } => write!(
                f,
                "Nothing outside the file vouches for entry {from} and later: an end that was cut off there \
                 would not show. Give --anchor with a newer checkpoint.",
            ),
            Self::Damage { entries } => write!(
                f,
                "The ledger itself records damage, in {entries} {}: what ran then may be missing. Ask the \
                 operator what happened.",
                if *entries == 1 { "entry" } else { "entries" },
            ),
        }
    }
}

impl Report {
    /// Why it cannot be vouched for, though nothing is wrong with it.
    #[must_use]
    pub fn reservations(&self) -> Vec<Reservation> {
        let all = Some(self.counts.entries);
        let mut reservations = Vec::new();
        if self.damaged > 0 {
            reservations.push(Reservation::Damage { entries: self.damaged });
        }
        if self.key_is_beside {
            reservations.push(Reservation::KeyBeside);
        }
        if self.anchored != all {
            reservations.push(Reservation::Tail { from: self.anchored.unwrap_or(0) });
        } else if self.anchored_elsewhere != all {
            reservations.push(Reservation::AnchorBeside { from: self.anchored_elsewhere.unwrap_or(0) });
        }
        reservations
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match &self.problem {
            Some(problem) => problem.code as u8,
            None => u8::from(!self.reservations().is_empty()),
        }
    }
}

/// How much recorded damage is told one by one.
const DAMAGE_TOLD: usize = 20;

/// How far a running check has come; for a progress bar on another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries there are.
    pub total: AtomicU64,
    /// Entries that were read.
    pub done: AtomicU64,
}

impl Progress {
    fn start(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    fn reached(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }
}

/// Checks a ledger: the live file, or a copy.
///
/// # Errors
///
/// When a file cannot be read, so that nothing can be said about the ledger.
pub fn verify(options: &Options, progress: &Progress) -> Result<Report, VerifyError> {
    let unreadable = |path: &Path, reason: String| VerifyError::Unreadable { path: path.to_owned(), reason };
    let key_path = options.key.clone().unwrap_or_else(|| key_beside(&options.path));
    let mut report = Report {
        origin: String::new(),
        key: (String::new(), key_path.clone()),
        key_is_beside: options.key.as_ref().is_none_or(|key| is_beside(&options.path, key)),
        counts: Counts::default(),
        root: None,
        anchored: None,
        anchored_elsewhere: None,
        damage: Vec::new(),
        damaged: 0,
        problem: None,
    };
    if !starts_like_sqlite(&options.path).map_err(|error| unreadable(&options.path, error.to_string()))? {
        report.problem = Some(Problem::new(Code::Damaged, None, "not an SQLite file"));
        return Ok(report);
    }
    let connection = match store::open_for_reading(&options.path) {
        Ok(connection) => connection,
        Err(error) if is_damage(&error) => {
            report.problem = Some(Problem::new(Code::Damaged, None, error.to_string()));
            return Ok(report);
        }
        Err(error) => return Err(unreadable(&options.path, error.to_string())),
    };
    if let Some(problem) = check_schema(&connection) {
        report.problem = Some(problem);
        return Ok(report);
    }
    let given = anchors::load(&options.anchors, |path| is_beside(&options.path, path))?;
    // Before the ledger: what it holds then, the ledger holds as well.
    let index = index::snapshot(&options.path);
    // One snapshot for everything: on a live ledger the end moves on meanwhile.
    let snapshot =
        connection.unchecked_transaction().map_err(|error| unreadable(&options.path, error.to_string()))?;
    let integrity = std::thread::scope(|scope| {
        let integrity = scope.spawn(|| check_integrity(&options.path));
        let key = PublicRoot::load(&key_path);
        match key {
            Ok(root) => {
                report.origin.clone_from(&root.origin);
                report.key.0 = root.fingerprint();
                stream::run(&snapshot, &root, &given, progress, &mut report);
            }
            Err(error) => {
                let reason = error.to_string();
                return (integrity.join().unwrap_or(None), Some(unreadable(&key_path, reason)));
            }
        }
        (integrity.join().unwrap_or(None), None)
    });
    match integrity {
        (Some(problem), _) => report.problem = Some(problem),
        (None, Some(error)) => return Err(error),
        (None, None) => {}
    }
    if report.problem.is_none() {
        let compared = index.and_then(|index| {
            index.map(|index| index::compare(&snapshot, &index, &report.origin)).transpose()
        });
        match compared {
            Ok(rows) => report.counts.index_rows = rows,
            Err(problem) => report.problem = Some(problem),
        }
    }
    Ok(report)
}

/// To SQLite an empty file is an empty database; to an auditor it is a ledger that was emptied.
fn starts_like_sqlite(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut start = [0; 16];
    match std::fs::File::open(path)?.read_exact(&mut start) {
        Ok(()) => Ok(start == *b"SQLite format 3\0"),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether SQLite says that the file itself is broken, rather than that it cannot be read now.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Sqlite(error) => sqlite_damage(error),
        StoreError::NotALedger(_) => true,
        StoreError::Io(_) | StoreError::Unlinked | StoreError::Replaced => false,
    }
}

fn sqlite_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn check_schema(connection: &Connection) -> Option<Problem> {
    match store::schema_difference(connection) {
        Ok(None) => None,
        Ok(Some(difference)) => Some(Problem::new(Code::Schema, None, difference)),
        Err(error) if is_damage(&error) => Some(Problem::new(Code::Damaged, None, error.to_string())),
        // A schema table that cannot be read as one.
        Err(error) => Some(Problem::new(Code::Schema, None, error.to_string())),
    }
}

fn check_integrity(path: &Path) -> Option<Problem> {
    let check = || {
        let connection = store::open_for_reading(path)?;
        let mut statement = connection.prepare("PRAGMA integrity_check(1)")?;
        let result: String = statement.query_row([], |row| row.get(0))?;
        Ok::<_, StoreError>(result)
    };
    match check() {
        Ok(result) if result == "ok" => None,
        Ok(result) => Some(Problem::new(Code::Damaged, None, result)),
        Err(error) => Some(Problem::new(Code::Damaged, None, error.to_string())),
    }
}
