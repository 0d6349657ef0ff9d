//! The proof that one entry is in the ledger, as a file that is checked by the root's public key alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Note, NoteError};
use super::key::PublicRoot;
use super::tree::{self, ProofError};
use crate::approval::request::TreeHead;
use crate::statement::Digest;

/// How far an entry is proved by the ledger it is in.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The entry.
    pub index: u64,
    /// The way from its hash to the root, sibling by sibling.
    pub path: Vec<Digest>,
    /// The checkpoint whose tree that is, with the root's word for the key that signed it.
    pub note: Note,
    /// The entry's body.
    pub body: Vec<u8>,
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFailure {
    /// Not a proof.
    #[error("not a proof of one entry (c2sp.org/tlog-proof@v1)")]
    Malformed,
    /// The checkpoint.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The way to the root.
    #[error(transparent)]
    Path(#[from] ProofError),
}

const PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";

impl Proof {
    /// The text of a `.tlog-proof` file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text =
            format!("{PROOF_HEADER}\nextra {}\nindex {}\n", STANDARD.encode(&self.body), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash.as_bytes()));
            text.push('\n');
        }
        text + "\n" + &self.note.to_text()
    }

    /// Reads the text.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, ProofFailure> {
        let (head, note) = text.split_once("\n\n").ok_or(ProofFailure::Malformed)?;
        let mut lines = head.lines();
        let mut next = |prefix: &str| lines.next().and_then(|line| line.strip_prefix(prefix));
        let header = next(PROOF_HEADER).filter(|rest| rest.is_empty());
        let body = header.and_then(|_| next("extra ")).and_then(|body| STANDARD.decode(body).ok());
        let body = body.ok_or(ProofFailure::Malformed)?;
        let index = next("index ").and_then(|index| index.parse().ok()).ok_or(ProofFailure::Malformed)?;
        let path = lines
            .map(|line| Some(Digest::from_bytes(STANDARD.decode(line).ok()?.try_into().ok()?)))
            .collect::<Option<Vec<_>>>()
            .ok_or(ProofFailure::Malformed)?;
        let proof = Self { index, path, note: Note::parse(note)?, body };
        if proof.to_text() == text { Ok(proof) } else { Err(ProofFailure::Malformed) }
    }

    /// Checks it by the root's public key alone.
    ///
    /// # Errors
    ///
    /// When anything about it does not hold.
    pub fn verify(&self, root: &PublicRoot) -> Result<TreeHead, ProofFailure> {
        if self.note.checkpoint.origin != root.origin {
            return Err(NoteError::OtherOrigin.into());
        }
        self.note.verify_by_root(&root.key)?;
        let head = self.note.checkpoint.head;
        tree::verify_inclusion(tree::leaf_hash(&self.body), self.index, head.size, &self.path, head.root)?;
        Ok(head)
    }
}
