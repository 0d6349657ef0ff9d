//! How a command reaches the ledger of a running proxy: a file in a directory beside it.
//!
//! Only the proxy writes its ledger. What others want written (a redaction, a note that somebody read
//! it) they leave here, and the writer takes it in within a second. Who may is what the file system
//! says: the directory belongs to the proxy's user and is open to nobody else, and the
//! entry names the owner of the file.
#![allow(clippy::disallowed_methods, reason = "waiting for the running proxy, within a limit")]

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::key::with_suffix;
use super::record::Event;
use super::settings::is_live;
use super::{LedgerError, Shared};

/// The longest note that is taken in.
const LONGEST: u64 = 1 << 20;

/// What somebody wants written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Note {
    /// Texts are to be deleted.
    Redact {
        /// Why.
        reason: String,
        /// Which: entry, number of the field.
        fields: Vec<(u64, u64)>,
    },
    /// Somebody read the ledger.
    Read {
        /// What: the command.
        what: String,
        /// The first entry.
        from: Option<u64>,
        /// The last entry.
        to: Option<u64>,
    },
}

impl Note {
    /// The event it becomes, by this person.
    #[must_use]
    pub fn into_event(self, by: String) -> Event {
        match self {
            Self::Redact { reason, fields } => Event::Redaction { by, reason, fields },
            Self::Read { what, from, to } => Event::Export { by, what, from, to },
        }
    }
}

/// The directory beside a ledger.
#[must_use]
pub fn directory_of(ledger: &Path) -> PathBuf {
    with_suffix(ledger, "inbox")
}

/// Who runs this program, as far as the machine knows.
#[must_use]
pub fn whoever_runs_this() -> String {
    name_of(rustix::process::getuid().as_raw())
}

/// `uid 1000 (alice)`: the name from `/etc/passwd`, where it is in there.
fn name_of(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), |name| format!("uid {uid} ({name})"))
}

/// Leaves a note for the running proxy; `None` when none is running, or it cannot be reached.
///
/// # Errors
///
/// When the note cannot be written.
pub fn leave(ledger: &Path, note: &Note) -> io::Result<Option<PathBuf>> {
    let directory = directory_of(ledger);
    if !is_live(ledger) || !directory.is_dir() {
        return Ok(None);
    }
    let path = directory.join(format!("{}.json", uuid::Uuid::now_v7()));
    let hidden = path.with_extension("new");
    match std::fs::write(&hidden, serde_json::to_vec(note).map_err(io::Error::other)?) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        other => other?,
    }
    std::fs::rename(&hidden, &path)?;
    Ok(Some(path))
}

/// What became of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All it asked for is done.
    Done,
    /// It is recorded, and what it asked for is not done yet.
    Recorded,
    /// It was not taken in.
    Waiting,
}

/// Waits until what a note asks for is done, but no longer than `limit`.
#[must_use]
pub fn wait(path: &Path, limit: Duration) -> Answer {
    let until = Instant::now() + limit;
    let taken = path.with_extension(TAKEN);
    loop {
        // In this order: a note is renamed from the one to the other.
        let answer = match (path.exists(), taken.exists()) {
            (true, _) => Answer::Waiting,
            (false, true) => Answer::Recorded,
            (false, false) => return Answer::Done,
        };
        if Instant::now() >= until {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The extension of a note that is recorded and not done yet.
const TAKEN: &str = "taken";

/// Redactions that an earlier run recorded and may not have carried out in every file.
pub(super) fn left_over(ledger: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory_of(ledger)).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == TAKEN)).collect()
}

pub(super) fn make_directory(ledger: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory_of(ledger)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes in what was left. What cannot be taken in stays until it can; what makes no sense is deleted.
pub(super) fn take_in(shared: &Shared) {
    let Ok(entries) = std::fs::read_dir(directory_of(&shared.settings.path)) else { return };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    for path in paths {
        match take(shared, &path) {
            Ok(None) => {}
            // It stays until the texts are gone from every file.
            Ok(Some(record)) => {
                let taken = path.with_extension(TAKEN);
                match std::fs::rename(&path, &taken) {
                    Ok(()) => shared.purge.promise(taken, record),
                    Err(error) => {
                        tracing::error!(%error, "a note for the ledger cannot be renamed; no more are taken in");
                        return;
                    }
                }
                continue;
            }
            Err(Left::Later(error)) => {
                tracing::warn!(%error, "a note for the ledger has to wait");
                return;
            }
            Err(Left::Never(error)) => tracing::warn!(%error, "a note for the ledger makes no sense"),
        }
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::error!(%error, "a note for the ledger cannot be deleted; no more are taken in");
            return;
        }
    }
}

enum Left {
    Later(LedgerError),
    Never(io::Error),
}

/// Records a note; with a redaction, gives the record that it became, or a later one.
fn take(shared: &Shared, path: &Path) -> Result<Option<u64>, Left> {
    let read = || {
        // Not followed: a link would have the owner of what it points to.
        let metadata = std::fs::symlink_metadata(path)?;
        if !metadata.is_file() || metadata.len() > LONGEST {
            return Err(io::Error::other("not a note"));
        }
        let note: Note = serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)?;
        Ok(note.into_event(name_of(metadata.uid())))
    };
    let event = read().map_err(Left::Never)?;
    let redacts = matches!(event, Event::Redaction { .. });
    shared.append(event).map_err(Left::Later)?;
    Ok(redacts.then(|| shared.spool.next_record().saturating_sub(1)))
}
