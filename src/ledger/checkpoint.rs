//! Checkpoints: the size and root of the tree, as a signed note (C2SP signed-note and tlog-checkpoint).
//!
//! ```text
//! example.com/ledger                              <- origin
//! 20852163                                        <- tree size
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    <- root
//!
//! — example.com/ledger Az3grlgtzPICa5OS8npVmf1Myq/5IZ..
//! ```
//!
//! Reading is strict: a note that could be written in another way is refused, so that nothing can
//! hide in one. Epoch keys sign under the origin's name; which key it was, the key id says. What
//! leaves the ledger as an anchor carries a second line by which the root key vouches for the epoch
//! key, so that the root's public key alone is enough to check it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::key::{Certificate, EpochKey};
use crate::approval::request::TreeHead;
use crate::statement::Digest;

/// The signature type of plain Ed25519 signatures (C2SP signed-note).
pub const ED25519: u8 = 0x01;
/// The signature type of what has no assigned number, and the name we use behind it.
const CERTIFICATE_TYPE: &[u8] = b"\xffcountersign/epoch/v1";
/// The longest note that is read: 16 signature lines fit many times over.
const LONGEST: usize = 16 * 1024;

/// A tree head of a named ledger: the signed part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name.
    pub origin: String,
    /// Size and root.
    pub head: TreeHead,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.head.size, STANDARD.encode(self.head.root.as_bytes()))
    }
}

/// A checkpoint with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// By whom.
    pub signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// Which of the keys of that name.
    pub key_id: [u8; 4],
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a text is not a checkpoint of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the form of a signed checkpoint.
    #[error("not a signed checkpoint")]
    Malformed,
    /// It speaks of another ledger.
    #[error("a checkpoint of another ledger")]
    OtherOrigin,
    /// None of the signatures is by a key that is known.
    #[error("not signed by a key of this ledger")]
    UnknownKey,
    /// A signature by a known key that does not hold.
    #[error("the signature does not hold")]
    BadSignature,
}

/// The id of a key in signature lines: the first bytes of SHA-256(name || 0x0A || type || key).
#[must_use]
pub fn key_id(name: &str, kind: &[u8], key: &VerifyingKey) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(name);
    hash.update(b"\n");
    hash.update(kind);
    hash.update(key.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

impl Note {
    /// Signs a tree head with an epoch's key.
    #[must_use]
    pub fn sign(origin: &str, head: TreeHead, key: &EpochKey) -> Self {
        let checkpoint = Checkpoint { origin: origin.to_owned(), head };
        let signature = NoteSignature {
            name: origin.to_owned(),
            key_id: key_id(origin, &[ED25519], &key.public()),
            signature: key.sign(checkpoint.text().as_bytes()).to_bytes().to_vec(),
        };
        Self { checkpoint, signatures: vec![signature] }
    }

    /// Adds the line by which the root vouches for the epoch key. Signature lines of a type that a
    /// reader does not know are passed over, so other tools still read the note.
    #[must_use]
    pub fn with_certificate(mut self, certificate: &Certificate, root: &VerifyingKey) -> Self {
        let name = self.checkpoint.origin.clone();
        self.signatures.push(NoteSignature {
            key_id: key_id(&name, CERTIFICATE_TYPE, root),
            name,
            signature: certificate.to_bytes(),
        });
        self
    }

    /// The note as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self.checkpoint.text();
        text.push('\n');
        for line in &self.signatures {
            let mut bytes = line.key_id.to_vec();
            bytes.extend_from_slice(&line.signature);
            text.push_str(&format!("\u{2014} {} {}\n", line.name, STANDARD.encode(bytes)));
        }
        text
    }

    /// Reads a note; what [`Self::to_text`] would write in another way is refused.
    ///
    /// # Errors
    ///
    /// Whatever is not the one way to write a signed checkpoint.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        if text.len() > LONGEST {
            return Err(NoteError::Malformed);
        }
        let (head, lines) = text.split_once("\n\n").ok_or(NoteError::Malformed)?;
        let [origin, size, root] = head.split('\n').collect::<Vec<_>>()[..] else {
            return Err(NoteError::Malformed);
        };
        let size = size.parse().map_err(|_| NoteError::Malformed)?;
        let root = decode(root)?.try_into().map_err(|_| NoteError::Malformed)?;
        let head = TreeHead { size, root: Digest::from_bytes(root) };
        let signatures = lines
            .lines()
            .map(|line| {
                let (name, signature) = line
                    .strip_prefix("\u{2014} ")
                    .and_then(|line| line.split_once(' '))
                    .ok_or(NoteError::Malformed)?;
                let bytes = decode(signature)?;
                let (key_id, signature) = bytes.split_first_chunk().ok_or(NoteError::Malformed)?;
                Ok(NoteSignature { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
            })
            .collect::<Result<Vec<_>, NoteError>>()?;
        let note = Self { checkpoint: Checkpoint { origin: origin.to_owned(), head }, signatures };
        let again = !note.signatures.is_empty() && is_name(origin) && note.to_text() == text;
        if again { Ok(note) } else { Err(NoteError::Malformed) }
    }

    /// Checks that `key` signed it. Lines by other keys are passed over.
    ///
    /// # Errors
    ///
    /// When `key` did not sign it, or its signature does not hold.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), NoteError> {
        let origin = &self.checkpoint.origin;
        let id = key_id(origin, &[ED25519], key);
        let text = self.checkpoint.text();
        let mut found = false;
        for line in self.signatures.iter().filter(|line| line.name == *origin && line.key_id == id) {
            let signature = Signature::from_slice(&line.signature).map_err(|_| NoteError::BadSignature)?;
            key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::BadSignature)?;
            found = true;
        }
        if found { Ok(()) } else { Err(NoteError::UnknownKey) }
    }

    /// Checks the note by the root's key alone, through the certificate it carries.
    ///
    /// # Errors
    ///
    /// When it carries none by this root, or a signature does not hold.
    pub fn verify_by_root(&self, root: &VerifyingKey) -> Result<Certificate, NoteError> {
        let origin = &self.checkpoint.origin;
        let id = key_id(origin, CERTIFICATE_TYPE, root);
        let line = self
            .signatures
            .iter()
            .find(|line| line.name == *origin && line.key_id == id)
            .ok_or(NoteError::UnknownKey)?;
        let certificate = Certificate::from_bytes(&line.signature).ok_or(NoteError::Malformed)?;
        let key = certificate.verify(origin, root).map_err(|_| NoteError::BadSignature)?;
        self.verify(&key)?;
        Ok(certificate)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, NoteError> {
    STANDARD.decode(text).map_err(|_| NoteError::Malformed)
}

/// Whether a text can name a ledger and its keys: no blanks, no control characters, no `+`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |character: char| !character.is_whitespace() && !character.is_control() && character != '+';
    (1..=255).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the C2SP page.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    #[test]
    fn the_published_example_is_read_and_written_back() {
        let note = Note::parse(EXAMPLE).unwrap();

        assert_eq!(note.checkpoint.head.size, 20_852_163);
        assert_eq!(note.to_text(), EXAMPLE);
    }

    #[test]
    fn a_note_has_one_spelling() {
        let others = [
            EXAMPLE.replace("20852163", "020852163"),
            EXAMPLE.replace("20852163", "+20852163"),
            EXAMPLE.replace("\n\n", "\nextension\n\n"),
            EXAMPLE.replace("\n\n", "\r\n\r\n"),
            EXAMPLE.replace("2I=\n", "2J=\n"),
            EXAMPLE.trim_end().to_owned(),
            format!("{EXAMPLE}\n"),
            format!("{EXAMPLE}note\n"),
            EXAMPLE.replace("behind-the-sofa", "behind the sofa"),
            EXAMPLE.replace('\u{2014}', "-"),
            String::new(),
        ];

        for other in others {
            assert_eq!(Note::parse(&other), Err(NoteError::Malformed), "{other}");
        }
    }
}
