//! A reviewer's SSH signature (OpenSSH `PROTOCOL.sshsig`), for Ed25519 keys, namespace `countersign`.

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256, Sha512};

const MAGIC: &[u8] = b"SSHSIG";
const NAMESPACE: &[u8] = b"countersign";

/// Whether `signature` (the binary form of an SSH signature) by `public_key` (an SSH public key, binary)
/// is over `record`. Key types other than Ed25519 do not hold: nothing else is enrolled.
pub(super) fn holds(public_key: &[u8], record: &[u8], signature: &[u8]) -> bool {
    check(public_key, record, signature).unwrap_or(false)
}

fn check(public_key: &[u8], record: &[u8], signature: &[u8]) -> Option<bool> {
    let mut rest = signature.strip_prefix(MAGIC)?.strip_prefix(&1_u32.to_be_bytes())?;
    let key = string(&mut rest)?;
    let namespace = string(&mut rest)?;
    let reserved = string(&mut rest)?;
    let hash = string(&mut rest)?;
    let mut signed = string(&mut rest)?;
    if !rest.is_empty() || key != public_key || namespace != NAMESPACE || !reserved.is_empty() {
        return None;
    }
    let digest = match hash {
        b"sha256" => Sha256::digest(record).to_vec(),
        b"sha512" => Sha512::digest(record).to_vec(),
        _ => return None,
    };
    let mut message = MAGIC.to_vec();
    for part in [namespace, reserved, hash, &digest] {
        message.extend_from_slice(&(part.len() as u32).to_be_bytes());
        message.extend_from_slice(part);
    }
    let mut key = public_key;
    let kinds = (string(&mut key)?, string(&mut signed)?);
    let (key_bytes, signature) = (string(&mut key)?, string(&mut signed)?);
    if kinds != (b"ssh-ed25519", b"ssh-ed25519") || !key.is_empty() || !signed.is_empty() {
        return None;
    }
    let key = VerifyingKey::from_bytes(key_bytes.try_into().ok()?).ok()?;
    Some(key.verify_strict(&message, &Signature::from_slice(signature).ok()?).is_ok())
}

/// A length as four bytes, then that many bytes.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (taken, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(taken)
}
