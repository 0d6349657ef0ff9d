//! How a ledger is set up.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use super::assemble::Signing;
use super::clock::Clock;
use super::key::{KeyFiles, with_suffix};

/// How a ledger is set up. [`Settings::new`] has what most need; everything else is a field.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The SQLite file. Beside it lie `.lock`, `.index.db`, and unless said otherwise below, `.key`,
    /// `.pub` and `.spool`.
    pub path: PathBuf,
    /// The root's private key, when it is not beside the ledger; its public half lies beside it.
    pub key: Option<PathBuf>,
    /// The directory of the spool, when it is not beside the ledger: best on the fastest disk there is.
    pub spool: Option<PathBuf>,
    /// Which entries are signed one by one.
    pub signing: Signing,
    /// Head files, best on another disk or a share (see [`super::anchor`]).
    pub heads: Vec<PathBuf>,
    /// How long an epoch key lives.
    pub epoch: Duration,
    /// How often anchors are given the newest checkpoint, besides after privileged outcomes.
    pub anchor_every: Duration,
    /// The size of a spool segment.
    pub segment_bytes: u64,
    /// The most that may be spooled and not in the ledger yet, before nothing runs any more.
    pub backlog_bytes: u64,
    /// How long records may wait without anything being committed, before nothing runs any more.
    pub commit_within: Duration,
    /// Whether the index for people is kept beside the ledger.
    pub index: bool,
    pub(crate) clock: Clock,
}

impl Settings {
    /// The ledger at `path`, with its key beside it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            key: None,
            spool: None,
            signing: Signing::default(),
            heads: Vec::new(),
            epoch: Duration::from_secs(3600),
            anchor_every: Duration::from_secs(10),
            segment_bytes: 16 << 20,
            backlog_bytes: 512 << 20,
            commit_within: Duration::from_secs(8),
            index: true,
            clock: Clock::default(),
        }
    }

    /// Where the root key's two halves are.
    #[must_use]
    pub fn key_files(&self) -> KeyFiles {
        match &self.key {
            Some(private) => KeyFiles::of_private(private),
            None => KeyFiles::beside(&self.path),
        }
    }

    /// Where the spool is.
    #[must_use]
    pub fn spool_directory(&self) -> PathBuf {
        self.spool.clone().unwrap_or_else(|| with_suffix(&self.path, "spool"))
    }

    /// The one who holds this lock is the one who writes.
    pub(super) fn lock(&self) -> Result<File, OpenError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_file(&self.path))?;
        // A process that somebody is just starting inherits the descriptor until it executes its program, so
        // a lock that was let go may seem to be held for a moment longer.
        for _ in 0..20 {
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(file);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(OpenError::InUse(self.path.clone()))
    }
}

/// Whether a proxy is writing this ledger now.
#[must_use]
pub fn is_live(ledger: &Path) -> bool {
    File::open(lock_file(ledger))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

/// Whether the file at the lock's path is the one that is held.
pub(super) fn holds(lock: &File, ledger: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let there = std::fs::symlink_metadata(lock_file(ledger)).map(identity);
    let held = lock.metadata().map(identity);
    matches!((there, held), (Ok(there), Ok(held)) if there == held)
}

/// The lock that the running proxy holds.
pub(crate) fn lock_file(ledger: &Path) -> PathBuf {
    with_suffix(ledger, "lock")
}
