//! Getting rid of what was redacted, in every file and not just in the table: the spool's segments,
//! the write-ahead logs, the index, free pages.
//!
//! The writer and the thread of the index each do their part and say so here. A note that asked for a
//! redaction ([`super::inbox`]) stays until all parts are done, so that whoever left it knows.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::index;
use super::store::with_suffix_raw;

/// Up to this size a database is written anew, so that nothing is left on its free pages. A larger one
/// relies on SQLite's `secure_delete`.
pub(super) const SMALL: u64 = 64 << 20;

/// What is to go, and how far that has come.
#[derive(Debug, Default)]
pub(super) struct Purge {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The size of the ledger with the last redaction in it.
    wanted: u64,
    /// Everything up to this size is done.
    done: u64,
    /// The spool's first segment without what was redacted up to `left_for`.
    segment: Option<u64>,
    left_for: u64,
    /// The database was written anew after the redactions up to this size.
    rewritten: u64,
    /// The index holds nothing that was redacted up to this size.
    indexed: u64,
    /// Notes that wait for it: their files, and the records they became.
    notes: Vec<(PathBuf, u64)>,
}

impl Purge {
    /// A ledger of this size has a redaction in it.
    pub(super) fn ask(&self, size: u64) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(size);
    }

    /// A note waits for the redaction that became record `number`.
    pub(super) fn promise(&self, note: PathBuf, number: u64) {
        self.state.lock().notes.push((note, number));
    }

    /// Whether there is something to do.
    pub(super) fn is_pending(&self) -> bool {
        let state = self.state.lock();
        state.done < state.wanted || !state.notes.is_empty()
    }

    /// Up to which size redactions are to be purged; `None` when all of them are.
    pub(super) fn wanted(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.done < state.wanted).then_some(state.wanted)
    }

    /// The segment that the spool went on in for what is wanted now, if it did.
    pub(super) fn segment(&self) -> Option<u64> {
        let state = self.state.lock();
        state.segment.filter(|_| state.left_for == state.wanted)
    }

    pub(super) fn left_segment(&self, wanted: u64, segment: u64) {
        let mut state = self.state.lock();
        state.segment = Some(segment);
        state.left_for = wanted;
    }

    pub(super) fn is_rewritten(&self, wanted: u64) -> bool {
        self.state.lock().rewritten >= wanted
    }

    pub(super) fn rewritten(&self, wanted: u64) {
        self.state.lock().rewritten = wanted;
    }

    /// The index holds nothing of what a ledger of this size has redacted.
    pub(super) fn indexed(&self, size: u64) {
        let mut state = self.state.lock();
        state.indexed = state.indexed.max(size);
    }

    pub(super) fn is_indexed(&self, wanted: u64) -> bool {
        self.state.lock().indexed >= wanted
    }

    pub(super) fn is_done(&self, wanted: u64) {
        let mut state = self.state.lock();
        state.done = state.done.max(wanted);
    }

    /// Takes the notes away whose records are before `committed`: all they asked for is done.
    pub(super) fn answer(&self, committed: u64) {
        let mut state = self.state.lock();
        if state.done < state.wanted {
            return;
        }
        state.notes.retain(|(note, number)| {
            if *number >= committed {
                return true;
            }
            // One that cannot be deleted is answered at the next start.
            if let Err(error) = std::fs::remove_file(note) {
                tracing::warn!(%error, "a note for the ledger cannot be deleted");
            }
            false
        });
    }
}

/// The files in which a ledger keeps texts: the database, its index, their logs, and the spool's.
#[must_use]
pub fn files_of(ledger: &Path, spool: &Path) -> Vec<PathBuf> {
    let index = index::path_of(ledger);
    let mut files: Vec<PathBuf> = [ledger, &index]
        .iter()
        .flat_map(|database| ["", "-wal", "-journal", ".new"].map(|suffix| with_suffix_raw(database, suffix)))
        .filter(|path| path.exists())
        .collect();
    let spooled = std::fs::read_dir(spool).into_iter().flatten().flatten();
    files.extend(spooled.map(|entry| entry.path()).filter(|path| path.is_file()));
    files
}
