//! Cancel keys: what a `CancelRequest` must carry to mean a session.

use std::fmt;

use bytes::{BufMut as _, BytesMut};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::frame::{Malformed, Reader};

/// A process id and a secret: four bytes in protocol 3.0, up to 256 in 3.2 (protocol documentation,
/// "BackendKeyData").
#[derive(Clone)]
pub struct CancelKey {
    /// The process id. Anybody may know it: `pg_backend_pid()` tells it.
    pub process: i32,
    secret: Zeroizing<Vec<u8>>,
}

impl CancelKey {
    /// Bytes of the secrets that we give out where protocol 3.2 was agreed on, as Postgres does.
    pub const LONG: usize = 32;
    /// Bytes of a secret in protocol 3.0.
    pub const SHORT: usize = 4;

    /// Wraps a key.
    #[must_use]
    pub fn new(process: i32, secret: &[u8]) -> Self {
        Self { process, secret: Zeroizing::new(secret.to_vec()) }
    }

    /// Reads the body of a `BackendKeyData`.
    ///
    /// # Errors
    /// When the secret is shorter than 4 or longer than 256 bytes.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let process = reader.i32()?;
        if !(4..=256).contains(&reader.rest().len()) {
            return Err(Malformed);
        }
        Ok(Self::new(process, reader.rest()))
    }

    /// The secret.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Whether this is the secret, in a time that does not depend on where they differ.
    #[must_use]
    pub fn has_secret(&self, secret: &[u8]) -> bool {
        self.secret.ct_eq(secret).into()
    }

    /// Appends the `CancelRequest` that carries it.
    pub fn put_request(&self, out: &mut BytesMut) {
        // At most 256 bytes of secret: the length fits.
        out.put_u32(u32::try_from(12 + self.secret.len()).unwrap_or(12));
        out.put_u32(1234 << 16 | 5678);
        out.put_i32(self.process);
        out.put_slice(&self.secret);
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelKey {{ process: {}, .. }}", self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frontend::Opening;

    #[test]
    fn a_key_of_either_length_survives_the_wire() {
        for length in [CancelKey::SHORT, CancelKey::LONG, 256] {
            let secret: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let key = CancelKey::read(&[&7_i32.to_be_bytes()[..], &secret].concat()).unwrap();
            let mut out = BytesMut::new();
            key.put_request(&mut out);

            assert_eq!(Opening::read(&out), Ok(Opening::Cancel { process: 7, secret: &secret }));
            assert!(key.has_secret(&secret));
            assert!(!key.has_secret(&secret[1..]) && !key.has_secret(&[]));
        }
        assert!(CancelKey::read(&[0; 7]).is_err() && CancelKey::read(&[0; 261]).is_err());
        assert!(!format!("{:?}", CancelKey::new(1, &[222; 4])).contains("222"));
    }
}
