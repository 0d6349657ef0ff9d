//! Anchors: places outside the ledger that remember how far it had come.
//!
//! A ledger that is checked against itself only cannot show that its end is missing, or that all of
//! it is an older copy. A checkpoint kept anywhere its owner does not control can: 150 bytes of text. Every
//! chat message and console page of a request carries one ([`super::Ledger::head`]); the **head file**
//! here is the one that the proxy keeps by itself, on another disk or a share, and that it compares
//! with the ledger before it starts.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::checkpoint::{Note, NoteError};
use super::key::with_suffix;
use super::spool::sync_directory;
use crate::approval::request::TreeHead;

/// Why an anchor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// It cannot be read or written.
    #[error("anchor {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold a checkpoint.
    #[error("anchor {path}: {source}")]
    Note {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: NoteError,
    },
    /// It speaks of another ledger.
    #[error("anchor {path} belongs to \"{origin}\"")]
    OtherLedger {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        origin: String,
    },
    /// It has seen more than this ledger holds.
    #[error("anchor {path} has seen {anchored} entries and the ledger holds {size}: it was rolled back")]
    Ahead {
        /// Which.
        path: PathBuf,
        /// Its size.
        anchored: u64,
        /// The ledger's.
        size: u64,
    },
    /// It has seen another ledger of this name.
    #[error("anchor {path} has seen other entries below {anchored}: the ledger was forked")]
    Forked {
        /// Which.
        path: PathBuf,
        /// Its size.
        anchored: u64,
    },
    /// It is not what we left there.
    #[error("anchor {path} was changed by somebody else")]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// A file that holds the newest checkpoint.
#[derive(Debug)]
pub struct HeadFile {
    path: PathBuf,
    /// What it held when it was last read or written.
    known: Option<String>,
}

impl HeadFile {
    /// Looks at the file. It need not exist.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or holds something else than a checkpoint of `origin`.
    pub fn open(path: &Path, origin: &str) -> Result<(Self, Option<TreeHead>), AnchorError> {
        let known = read(path).map_err(|source| AnchorError::Io { path: path.to_owned(), source })?;
        let head = known.as_deref().map(|text| head_of(path, text, origin)).transpose()?;
        Ok((Self { path: path.to_owned(), known }, head))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name under which entries speak of it.
    #[must_use]
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or(self.path.as_os_str());
        format!("file:{}", file.to_string_lossy())
    }

    /// Replaces what we left there by a newer checkpoint: the file is either the old one or the new
    /// one, also after a crash. What somebody else wrote is not replaced.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or does not hold what we left there.
    pub fn publish(&mut self, note: &str) -> Result<(), AnchorError> {
        let io = |source| AnchorError::Io { path: self.path.clone(), source };
        let lock = with_suffix(&self.path, "lock");
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock).map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        if read(&self.path).map_err(io)? != self.known {
            return Err(AnchorError::Changed { path: self.path.clone() });
        }
        replace(&self.path, note).map_err(io)?;
        self.known = Some(note.to_owned());
        Ok(())
    }
}

fn head_of(path: &Path, text: &str, origin: &str) -> Result<TreeHead, AnchorError> {
    let note = Note::parse(text).map_err(|source| AnchorError::Note { path: path.to_owned(), source })?;
    if note.checkpoint.origin != origin {
        return Err(AnchorError::OtherLedger { path: path.to_owned(), origin: note.checkpoint.origin });
    }
    Ok(note.checkpoint.head)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file beside `path`, all the way to the disk, and puts it in its place.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = with_suffix(path, "new");
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_directory(directory_of(path))
}

/// The directory that a path is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::super::key::RootKey;
    use super::*;
    use crate::statement::Digest;

    fn note(size: u64) -> String {
        let root = RootKey::generate("l").unwrap();
        let key = root.begin_epoch(1, 0, Digest::of(b""), 0).unwrap();
        Note::sign("l", TreeHead { size, root: Digest::of(b"") }, &key).to_text()
    }

    #[test]
    fn what_somebody_else_wrote_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("head");
        let (mut file, head) = HeadFile::open(&path, "l").unwrap();
        assert_eq!(head, None);
        file.publish(&note(1)).unwrap();
        file.publish(&note(2)).unwrap();
        let (again, head) = HeadFile::open(&path, "l").unwrap();
        assert_eq!((head.unwrap().size, again.name().as_str()), (2, "file:head"));

        std::fs::write(&path, note(9)).unwrap();

        assert!(matches!(file.publish(&note(3)), Err(AnchorError::Changed { .. })));
        assert!(matches!(HeadFile::open(&path, "other"), Err(AnchorError::OtherLedger { .. })));
    }
}
