//! The keys of a ledger.
//!
//! The **root key** is what auditors trust: its public half is all they need. It signs nothing but
//! the first entry, hand-overs to another root, and the certificates of **epoch keys**, which sign
//! everything else. An epoch key is made in memory, lives for an hour or until the proxy stops, and is
//! never written anywhere, so whoever copies the disk finds no key that could re-sign the past.
//!
//! A certificate names the size and root of the tree it begins at. An epoch key that leaks can
//! therefore sign nothing but the end of that very ledger, and every certificate is an anchor of
//! everything before it, by the root's hand.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::checkpoint::{ED25519, is_name, key_id};
use crate::statement::Digest;

const EPOCH_DOMAIN: &[u8] = b"countersign/epoch/v1\0";
const ENTRY_DOMAIN: &[u8] = b"countersign/entry/v1\0";
const ROOT_DOMAIN: &[u8] = b"countersign/root/v1\0";
const SPOOL_DOMAIN: &[u8] = b"countersign/spool/v1\0";
const SALT_DOMAIN: &[u8] = b"countersign/secret-salt/v1\0";

/// Why a key cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error("key file {path} has mode {mode:o}; nobody but its owner may read it (chmod 600)")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not a key.
    #[error("key file {path} does not hold {wanted}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
    },
    /// The private and the public file belong to different keys.
    #[error("{private} and {public} are not halves of one key")]
    NotAPair {
        /// The private key's file.
        private: PathBuf,
        /// The public key's file.
        public: PathBuf,
    },
    /// The name cannot be a ledger's.
    #[error("\"{0}\" cannot name a ledger: no blanks and no \"+\", at most 255 bytes")]
    Name(String),
    /// The system gave no random bytes.
    #[error("no random bytes from the system: {0}")]
    Random(String),
}

/// A signature that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not hold")]
pub struct BadSignature;

/// Random bytes of the system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::Random(error.to_string()))
}

/// An array of them.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

fn new_signing_key() -> Result<SigningKey, KeyError> {
    let seed = Zeroizing::new(random::<32>()?);
    Ok(SigningKey::from_bytes(&seed))
}

/// `origin` as it stands in everything that is signed: its length as two bytes, then its bytes.
fn put_origin(message: &mut Vec<u8>, origin: &str) {
    let length = u16::try_from(origin.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(origin.as_bytes());
}

/// What an entry's signature covers.
#[must_use]
pub fn entry_message(origin: &str, seq: u64, leaf: &Digest) -> Vec<u8> {
    let mut message = Vec::with_capacity(ENTRY_DOMAIN.len() + 2 + origin.len() + 40);
    message.extend_from_slice(ENTRY_DOMAIN);
    put_origin(&mut message, origin);
    message.extend_from_slice(&seq.to_be_bytes());
    message.extend_from_slice(leaf.as_bytes());
    message
}

/// The public half of a root key, with the name of its ledger.
///
/// Its text is the verifier key of C2SP signed notes: `origin+key id+base64(0x01 || key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicRoot {
    /// The ledger's name.
    pub origin: String,
    /// The key.
    pub key: VerifyingKey,
}

impl PublicRoot {
    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        format!("{}+{}+{}", self.origin, self.fingerprint(), STANDARD.encode(key))
    }

    /// Eight hexadecimal digits that tell keys apart.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(key_id(&self.origin, &[ED25519], &self.key))
    }

    /// Reads the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (origin, rest) = text.trim_end().split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let bytes = STANDARD.decode(key).ok()?;
        let (&kind, key) = bytes.split_first()?;
        let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
        let root = Self { origin: origin.to_owned(), key };
        (kind == ED25519 && is_name(origin) && !key.is_weak() && root.fingerprint() == id).then_some(root)
    }

    /// Reads a file that holds the text form.
    ///
    /// # Errors
    ///
    /// When it cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
        Self::parse(&text).ok_or_else(|| KeyError::Malformed {
            path: path.to_owned(),
            wanted: "a public key (origin+id+base64)",
        })
    }
}

/// Where the files of a ledger's root key are: `ledger.db.key` and `ledger.db.pub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The private key: PKCS#8 PEM, mode 0600.
    pub private: PathBuf,
    /// The public key.
    pub public: PathBuf,
}

impl KeyFiles {
    /// The files beside a ledger.
    #[must_use]
    pub fn beside(ledger: &Path) -> Self {
        Self { private: with_suffix(ledger, "key"), public: with_suffix(ledger, "pub") }
    }

    /// The files that belong to one private key: `x.key` has `x.pub` beside it.
    #[must_use]
    pub fn of_private(private: &Path) -> Self {
        Self { private: private.to_owned(), public: private.with_extension("pub") }
    }
}

/// `path` with `.suffix` appended to its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A root key, in memory for as long as it takes to sign something. Zeroized when dropped.
pub struct RootKey {
    origin: String,
    key: SigningKey,
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootKey({})", self.public().to_text())
    }
}

impl RootKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// When the name cannot be a ledger's, or there is no randomness.
    pub fn generate(origin: &str) -> Result<Self, KeyError> {
        if !is_name(origin) {
            return Err(KeyError::Name(origin.to_owned()));
        }
        Ok(Self { origin: origin.to_owned(), key: new_signing_key()? })
    }

    /// Reads both files; the public one says the ledger's name.
    ///
    /// # Errors
    ///
    /// When one cannot be read, others could read the private one, or they are not a pair.
    pub fn load(files: &KeyFiles) -> Result<Self, KeyError> {
        let public = PublicRoot::load(&files.public)?;
        let key = read_private(&files.private)?;
        if key.verifying_key() != public.key {
            return Err(KeyError::NotAPair { private: files.private.clone(), public: files.public.clone() });
        }
        Ok(Self { origin: public.origin, key })
    }

    /// Writes both files. Neither may exist: a key that was used is never overwritten.
    ///
    /// # Errors
    ///
    /// When one cannot be written.
    pub fn save(&self, files: &KeyFiles) -> Result<(), KeyError> {
        let pem = self
            .key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| KeyError::Malformed { path: files.private.clone(), wanted: "a private key" })?;
        write_new(&files.private, pem.as_bytes(), 0o600)?;
        let text = format!("{}\n", self.public().to_text());
        write_new(&files.public, text.as_bytes(), 0o644)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicRoot {
        PublicRoot { origin: self.origin.clone(), key: self.key.verifying_key() }
    }

    /// The ledger's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Signs an entry by the root itself (epoch 0).
    #[must_use]
    pub fn sign_entry(&self, seq: u64, leaf: &Digest) -> Signature {
        self.key.sign(&entry_message(&self.origin, seq, leaf))
    }

    /// Makes the key of an epoch that begins at the end of this tree, and vouches for it.
    ///
    /// # Errors
    ///
    /// When there is no randomness.
    pub fn begin_epoch(&self, epoch: u64, size: u64, root: Digest, wall: u64) -> Result<EpochKey, KeyError> {
        let key = new_signing_key()?;
        let mut certificate =
            Certificate { epoch, key: key.verifying_key().to_bytes(), size, root, wall, signature: [0; 64] };
        certificate.signature = self.key.sign(&certificate.message(&self.origin)).to_bytes();
        Ok(EpochKey { origin: self.origin.clone(), key, certificate })
    }

    /// One half of a hand-over: both roots sign both keys.
    #[must_use]
    pub fn sign_hand_over(&self, old: &VerifyingKey, new: &VerifyingKey) -> Signature {
        self.key.sign(&hand_over_message(&self.origin, old, new))
    }

    /// The secret that what is in the spool is checked with (see `spool`).
    #[must_use]
    pub(crate) fn spool_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(SPOOL_DOMAIN);
        hash.update(Zeroizing::new(self.key.to_bytes()));
        Zeroizing::new(hash.finalize().into())
    }

    /// The secret from which the salts of hidden originals are derived (see `payload`).
    #[must_use]
    pub(crate) fn salt_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(SALT_DOMAIN);
        hash.update(Zeroizing::new(self.key.to_bytes()));
        Zeroizing::new(hash.finalize().into())
    }
}

/// What both roots sign when one hands over to the other.
#[must_use]
pub fn hand_over_message(origin: &str, old: &VerifyingKey, new: &VerifyingKey) -> Vec<u8> {
    let mut message = ROOT_DOMAIN.to_vec();
    put_origin(&mut message, origin);
    message.extend_from_slice(old.as_bytes());
    message.extend_from_slice(new.as_bytes());
    message
}

/// A root's word for an epoch's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The number of the epoch; epochs follow each other without a gap.
    pub epoch: u64,
    /// Its public key.
    pub key: [u8; 32],
    /// The number of entries before it began: the place of its `key_epoch` entry.
    pub size: u64,
    /// The root over those entries.
    pub root: Digest,
    /// The wall clock when it began.
    pub wall: u64,
    /// The root key's signature.
    pub signature: [u8; 64],
}

impl Certificate {
    const LENGTH: usize = 8 + 32 + 8 + 32 + 8 + 64;

    fn message(&self, origin: &str) -> Vec<u8> {
        let mut message = EPOCH_DOMAIN.to_vec();
        put_origin(&mut message, origin);
        message.extend_from_slice(&self.signed_bytes());
        message
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&self.wall.to_be_bytes());
        bytes
    }

    /// The form it has in a signature line: what is signed, then the signature.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads that form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk()?;
        let (wall, rest) = rest.split_first_chunk()?;
        Some(Self {
            epoch: u64::from_be_bytes(*epoch),
            key: *key,
            size: u64::from_be_bytes(*size),
            root: Digest::from_bytes(*root),
            wall: u64::from_be_bytes(*wall),
            signature: rest.try_into().ok()?,
        })
    }

    /// The epoch's key, when `root` vouches for it.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn verify(&self, origin: &str, root: &VerifyingKey) -> Result<VerifyingKey, BadSignature> {
        let signature = Signature::from_bytes(&self.signature);
        root.verify_strict(&self.message(origin), &signature).map_err(|_| BadSignature)?;
        let key = VerifyingKey::from_bytes(&self.key).map_err(|_| BadSignature)?;
        if key.is_weak() { Err(BadSignature) } else { Ok(key) }
    }
}

/// The key of the running epoch. It exists in memory only and is zeroized when dropped.
pub struct EpochKey {
    origin: String,
    key: SigningKey,
    certificate: Certificate,
}

impl EpochKey {
    /// The root's word for it.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The number of its epoch.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.certificate.epoch
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Signs bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.key.sign(message)
    }

    /// Signs an entry.
    #[must_use]
    pub fn sign_entry(&self, seq: u64, leaf: &Digest) -> Signature {
        self.key.sign(&entry_message(&self.origin, seq, leaf))
    }
}

/// A hand-over that was prepared (`countersign key rotate`) and that the next start records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The root that goes.
    pub old: PublicRoot,
    /// The root that comes.
    pub new: PublicRoot,
    /// Signed by the one that goes.
    pub by_old: [u8; 64],
    /// Signed by the one that comes.
    pub by_new: [u8; 64],
}

impl HandOver {
    /// The file beside a ledger in which one waits for the next start.
    #[must_use]
    pub fn file(ledger: &Path) -> PathBuf {
        with_suffix(ledger, "handover")
    }

    /// Lets `new` follow `old`.
    #[must_use]
    pub fn prepare(old: &RootKey, new: &RootKey) -> Self {
        let (before, after) = (old.public(), new.public());
        Self {
            by_old: old.sign_hand_over(&before.key, &after.key).to_bytes(),
            by_new: new.sign_hand_over(&before.key, &after.key).to_bytes(),
            old: before,
            new: after,
        }
    }

    /// Checks both signatures.
    ///
    /// # Errors
    ///
    /// When one does not hold.
    pub fn verify(&self) -> Result<(), BadSignature> {
        let message = hand_over_message(&self.old.origin, &self.old.key, &self.new.key);
        let holds = |key: &VerifyingKey, signature: &[u8; 64]| {
            key.verify_strict(&message, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
        };
        holds(&self.old.key, &self.by_old)?;
        holds(&self.new.key, &self.by_new)
    }

    /// Four lines: both public keys, both signatures.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (by_old, by_new) = (STANDARD.encode(self.by_old), STANDARD.encode(self.by_new));
        format!("{}\n{}\n{by_old}\n{by_new}\n", self.old.to_text(), self.new.to_text())
    }

    /// Reads the four lines.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let old = PublicRoot::parse(lines.next()?)?;
        let new = PublicRoot::parse(lines.next()?)?;
        let mut signature = || STANDARD.decode(lines.next()?).ok()?.try_into().ok();
        Some(Self { old, new, by_old: signature()?, by_new: signature()? })
    }
}

fn read_private(path: &Path) -> Result<SigningKey, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut pem = Zeroizing::new(String::new());
    file.read_to_string(&mut pem).map_err(io)?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|_| KeyError::Malformed {
        path: path.to_owned(),
        wanted: "an Ed25519 private key (PKCS#8 PEM)",
    })
}

/// Writes a file that must not exist yet, all the way to the disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_files_and_they_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let files = KeyFiles::beside(&directory.path().join("ledger.db"));
        let key = RootKey::generate("example.com/ledger").unwrap();
        key.save(&files).unwrap();

        assert_eq!(RootKey::load(&files).unwrap().public(), key.public());
        assert_eq!(std::fs::metadata(&files.private).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(key.save(&files), Err(KeyError::Io { .. })), "a key is never overwritten");

        std::fs::set_permissions(&files.private, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(RootKey::load(&files), Err(KeyError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_public_key_has_one_text_and_its_id_is_checked() {
        let public = RootKey::generate("example.com/ledger").unwrap().public();
        let text = public.to_text();

        assert_eq!(PublicRoot::parse(&format!("{text}\n")), Some(public));
        assert_eq!(PublicRoot::parse(&text.replace("example.com", "example.org")), None);
        assert!(matches!(RootKey::generate("two words"), Err(KeyError::Name(_))));
    }

    #[test]
    fn a_certificate_holds_for_its_ledger_and_place_only() {
        let root = RootKey::generate("example.com/ledger").unwrap();
        let epoch = root.begin_epoch(3, 10, Digest::of(b"tree"), 1).unwrap();
        let certificate = epoch.certificate().clone();
        let key = root.public().key;

        assert_eq!(Certificate::from_bytes(&certificate.to_bytes()).as_ref(), Some(&certificate));
        assert_eq!(certificate.verify("example.com/ledger", &key), Ok(epoch.public()));
        assert_eq!(certificate.verify("example.com/other", &key), Err(BadSignature));
        let moved = Certificate { size: 11, ..certificate.clone() };
        assert_eq!(moved.verify("example.com/ledger", &key), Err(BadSignature));
        let renumbered = Certificate { epoch: 4, ..certificate };
        assert_eq!(renumbered.verify("example.com/ledger", &key), Err(BadSignature));
    }

    #[test]
    fn a_hand_over_needs_both_roots() {
        let (old, new) = (RootKey::generate("l").unwrap(), RootKey::generate("l").unwrap());
        let hand_over = HandOver::prepare(&old, &new);

        assert_eq!(HandOver::parse(&hand_over.to_text()).unwrap().verify(), Ok(()));
        let one_sided = HandOver { by_old: hand_over.by_new, ..hand_over };
        assert_eq!(one_sided.verify(), Err(BadSignature));
    }
}
