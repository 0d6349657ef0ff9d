//! Anchors against the tree: the only check that can show a lost end or an older copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;

use super::{Code, Problem, VerifyError};
use crate::approval::request::TreeHead;
use crate::ledger::checkpoint::{Note, NoteError, is_name};
use crate::statement::Digest;

/// One anchor, as it was given or as the ledger keeps it.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) name: String,
    pub(super) origin: String,
    pub(super) head: TreeHead,
    /// It lies beside the ledger.
    pub(super) is_beside: bool,
    /// What is signed; `None` when only size and root were kept, which are taken at their word.
    note: Option<Note>,
}

/// Reads the files an auditor brings. Those that are no checkpoint are kept as a problem for later: an
/// earlier check may fail first.
pub(super) fn load(
    paths: &[PathBuf],
    is_beside: impl Fn(&Path) -> bool,
) -> Result<Vec<Result<Anchor, Problem>>, VerifyError> {
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)
                .map_err(|error| VerifyError::Unreadable { path: path.clone(), reason: error.to_string() })?;
            let anchor = read(&path.display().to_string(), &text);
            Ok(anchor.map(|anchor| Anchor { is_beside: is_beside(path), ..anchor }))
        })
        .collect()
}

pub(super) fn read(name: &str, text: &str) -> Result<Anchor, Problem> {
    let name = name.to_owned();
    match Note::parse(text) {
        Ok(note) => Ok(Anchor {
            name,
            origin: note.checkpoint.origin.clone(),
            head: note.checkpoint.head,
            is_beside: false,
            note: Some(note),
        }),
        Err(_) => match unsigned(text) {
            Some((origin, head)) => Ok(Anchor { name, origin, head, is_beside: false, note: None }),
            None => Err(Problem::new(Code::Checkpoint, None, format!("anchor {name} is no checkpoint"))),
        },
    }
}

/// A row of the ledger's own table of anchors.
pub(super) fn kept(name: &str, size: i64, text: &str) -> Result<Anchor, Problem> {
    let anchor = read(name, text)?;
    if anchor.note.is_some() && u64::try_from(size) == Ok(anchor.head.size) {
        return Ok(anchor);
    }
    Err(Problem::new(Code::Checkpoint, None, format!("anchor {name} is kept with another size")))
}

/// The three lines of a checkpoint, copied by hand out of a message or a page.
fn unsigned(text: &str) -> Option<(String, TreeHead)> {
    use base64::Engine as _;
    let base64 = &base64::engine::general_purpose::STANDARD;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let [origin, size, root] = text.split('\n').collect::<Vec<_>>()[..] else { return None };
    let number: u64 = size.parse().ok()?;
    let bytes = base64.decode(root).ok()?;
    // There is one way to write each of them.
    let is_canonical = number.to_string() == size && base64.encode(&bytes) == root && is_name(origin);
    let head = TreeHead { size: number, root: Digest::from_bytes(bytes.try_into().ok()?) };
    is_canonical.then(|| (origin.to_owned(), head))
}

/// What the pass over the entries found at the sizes that anchors speak of.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) size: u64,
    /// Root, and the key of the epoch that signed the last entry below.
    pub(super) at: BTreeMap<u64, (Digest, VerifyingKey)>,
    pub(super) roots: Vec<VerifyingKey>,
}

/// Checks one anchor: first that it is what it says, then that the ledger agrees with it.
pub(super) fn check(anchor: &Anchor, origin: &str, seen: &Seen) -> Result<(), Problem> {
    let name = &anchor.name;
    let head = anchor.head;
    let bad = |what: String| Err(Problem::new(Code::Checkpoint, None, format!("anchor {name} {what}")));
    if anchor.origin != origin {
        return bad(format!("is of the ledger \"{}\"", anchor.origin));
    }
    let here = seen.at.get(&head.size);
    let vouched = match &anchor.note {
        None => true,
        Some(note) => match authentic(note, here.map(|(_, key)| key), &seen.roots) {
            Ok(()) => true,
            Err(NoteError::UnknownKey) => false,
            Err(_) => return bad("has a signature that does not hold".to_owned()),
        },
    };
    if head.size > seen.size {
        let what = format!(
            "anchor {name} has seen {} entries, the ledger holds {}: it was rolled back",
            head.size, seen.size
        );
        return Err(Problem::new(Code::RolledBack, None, what));
    }
    if here.is_none_or(|(root, _)| *root != head.root) {
        let what = format!("anchor {name} has seen other entries below {}: the ledger was forked", head.size);
        return Err(Problem::new(Code::RolledBack, None, what));
    }
    if !vouched {
        return bad("is not signed by a key of this ledger".to_owned());
    }
    Ok(())
}

/// By the certificate it carries, or by the epoch's key that the ledger has.
fn authentic(note: &Note, epoch: Option<&VerifyingKey>, roots: &[VerifyingKey]) -> Result<(), NoteError> {
    for root in roots {
        match note.verify_by_root(root) {
            Err(NoteError::UnknownKey) => {}
            other => return other.map(|_| ()),
        }
    }
    epoch.map_or(Err(NoteError::UnknownKey), |key| note.verify(key))
}
