//! Texts outside the tree: an entry commits to them, and they can be deleted without a trace in the
//! proof.
//!
//! A commitment is SHA-256 over a random salt and the value. With the salt anybody can check the
//! value; without it nobody can guess it, however few values are possible. So redaction deletes salt
//! and value together, and what is left proves that there was something without telling what.
//!
//! Where the stored text is not the original (a password was blanked out, a text was too long), the
//! entry commits to the statement's digest as well, under a salt that is *not* stored: storing it
//! would let every reader of the ledger try passwords. It is derived from the root key and a nonce
//! that the entry names, so whoever holds the root key can prove later which bytes ran.

use sha2::{Digest as _, Sha256};

use super::entry::Key;
use crate::statement::Digest;

/// Length of a salt in bytes.
pub const SALT: usize = 16;

const DOMAIN: &[u8] = b"countersign/payload/v1\0";

/// A value that an entry will commit to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload<'a> {
    /// The field that commits to it.
    pub(crate) key: Key,
    /// Its salt; the writer makes one where there is none.
    pub(crate) salt: Option<[u8; SALT]>,
    /// The value.
    pub(crate) value: &'a [u8],
}

/// SHA-256("countersign/payload/v1" 0x00 || number of the field, 8 bytes || salt || value).
#[must_use]
pub fn commitment(key: Key, salt: &[u8], value: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(u64::from(key).to_be_bytes());
    hash.update(salt);
    hash.update(value);
    Digest::from_bytes(hash.finalize().into())
}

/// The salt that is not stored: the first 16 bytes of SHA-256(secret || nonce).
#[must_use]
pub fn secret_salt(secret: &[u8; 32], nonce: &[u8; 16]) -> [u8; SALT] {
    let mut hash = Sha256::new();
    hash.update(secret);
    hash.update(nonce);
    let hash: [u8; 32] = hash.finalize().into();
    let mut salt = [0; SALT];
    salt.copy_from_slice(hash.first_chunk::<SALT>().unwrap_or(&[0; SALT]));
    salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_is_to_one_value_in_one_field_under_one_salt() {
        let one = commitment(Key::Sql, &[1; SALT], b"select 1");

        assert_ne!(one, commitment(Key::Sql, &[1; SALT], b"select 2"));
        assert_ne!(one, commitment(Key::Sql, &[2; SALT], b"select 1"));
        assert_ne!(one, commitment(Key::Reason, &[1; SALT], b"select 1"));
    }
}
