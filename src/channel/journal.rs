//! Which cards are shown, on disk, so that cards of a crashed proxy can be closed.
//!
//! The file has lines of JSON with ids only. It is no record: when it cannot be written, cards are
//! shown nevertheless, and when it is lost, a leftover card is closed by the first click on it.
//!
//! ```text
//! {"shown":"0199..","channel":"C0..","ts":"1767607200.000100"}
//! {"closed":"0199.."}
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use crate::statement::RequestId;

/// A message in a chat channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageRef {
    /// The id of the chat channel.
    pub(super) channel: String,
    /// The id of the message in it.
    #[serde(rename = "ts")]
    pub(super) message: String,
}

/// The cards that are shown.
#[derive(Debug, Default)]
pub(super) struct Journal {
    path: Option<PathBuf>,
    file: Option<File>,
    shown: BTreeMap<Uuid, MessageRef>,
    lines: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Shown {
        shown: Uuid,
        #[serde(flatten)]
        place: MessageRef,
    },
    Closed {
        closed: Uuid,
    },
}

/// The file is written anew when it has so many lines more than there are cards.
const SPARE: usize = 1_000;

impl Journal {
    /// Reads what an earlier run has left, and goes on from there.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::default() };
        let mut journal = Self { path: Some(path.to_owned()), ..Self::default() };
        match fs::read_to_string(path) {
            Ok(text) => journal.shown = replay(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(path = %path.display(), %error, "the file of shown cards cannot be read"),
        }
        journal.rewrite();
        journal
    }

    /// The cards that are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = (RequestId, &MessageRef)> {
        self.shown.iter().map(|(id, place)| (RequestId(*id), place))
    }

    /// A card is shown.
    pub(super) fn show(&mut self, request: RequestId, place: &MessageRef) {
        self.shown.insert(request.0, place.clone());
        self.append(&Line::Shown { shown: request.0, place: place.clone() });
    }

    /// A card has no buttons any more.
    pub(super) fn close(&mut self, request: RequestId) {
        if self.shown.remove(&request.0).is_some() {
            self.append(&Line::Closed { closed: request.0 });
        }
    }

    fn append(&mut self, line: &Line) {
        self.lines += 1;
        if self.lines > self.shown.len() + SPARE {
            self.rewrite();
            return;
        }
        if let Some(file) = &mut self.file
            && let Err(error) = write(file, line)
        {
            warn!(%error, "the file of shown cards cannot be written");
            self.file = None;
        }
    }

    fn rewrite(&mut self) {
        let Some(path) = &self.path else { return };
        self.lines = self.shown.len();
        self.file = match rewrite(path, &self.shown) {
            Ok(file) => Some(file),
            Err(error) => {
                warn!(path = %path.display(), %error, "the file of shown cards cannot be written");
                None
            }
        };
    }
}

/// What is left open at the end of `text`. A line that cannot be read is one that a crash cut off.
fn replay(text: &str) -> BTreeMap<Uuid, MessageRef> {
    let mut shown = BTreeMap::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Shown { shown: id, place }) => {
                shown.insert(id, place);
            }
            Ok(Line::Closed { closed }) => {
                shown.remove(&closed);
            }
            Err(_) => {}
        }
    }
    shown
}

/// Writes a new file beside the old one and puts it in its place.
fn rewrite(path: &Path, shown: &BTreeMap<Uuid, MessageRef>) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    for (id, place) in shown {
        write(&mut file, &Line::Shown { shown: *id, place: place.clone() })?;
    }
    fs::rename(&new, path)?;
    Ok(file)
}

/// One write for one line, so that a crash leaves whole lines.
fn write(file: &mut File, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_and_not_closed_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards");
        let mut journal = Journal::open(Some(&path));
        journal.show(id(1), &place("1.1"));
        journal.show(id(2), &place("2.1"));
        journal.show(id(2), &place("2.2"));
        journal.close(id(1));
        drop(journal);

        let journal = Journal::open(Some(&path));

        assert_eq!(journal.shown().collect::<Vec<_>>(), [(id(2), &place("2.2"))]);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards");
        let mut journal = Journal::open(Some(&path));
        journal.show(id(1), &place("1.1"));
        drop(journal);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"shown\":\"0199");
        fs::write(&path, text).unwrap();

        assert_eq!(Journal::open(Some(&path)).shown().count(), 1);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards");
        let mut journal = Journal::open(Some(&path));
        for number in 0..3 * SPARE as u128 {
            journal.show(id(number), &place("1.1"));
            journal.close(id(number));
        }

        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= SPARE + 1, "{lines}");
    }

    #[test]
    fn without_a_file_nothing_is_kept_and_nothing_fails() {
        let mut journal = Journal::open(None);
        journal.show(id(1), &place("1.1"));
        let mut journal = Journal::open(Some(Path::new("/nowhere/at/all")));
        journal.show(id(1), &place("1.1"));

        assert_eq!(journal.shown().count(), 1);
    }

    fn id(number: u128) -> RequestId {
        RequestId(Uuid::from_u128(number))
    }

    fn place(ts: &str) -> MessageRef {
        MessageRef { channel: "C0123456789".to_owned(), message: ts.to_owned() }
    }
}
