//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) as Postgres speaks it.
//!
//! The exchange is a pure state machine: messages in, messages out, with the nonce handed in by the
//! caller. An agent that does not exist is led through the same exchange with a verifier that nobody
//! knows the password of, so that names cannot be probed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

/// The mechanism without channel binding.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The mechanism bound to the TLS channel by `tls-server-end-point` (RFC 5929).
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What a server keeps in place of a password (RFC 5802, section 3). Where it comes from, and what an
/// unknown name gets, is `identity`'s business.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// How often the password was hashed.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// The server key.
    pub server_key: [u8; 32],
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.server_key.zeroize();
    }
}

/// What the channel under the exchange offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// No TLS: `-PLUS` is not on offer.
    Plain,
    /// TLS, with the hash of our certificate (RFC 5929, section 4.1).
    Tls {
        /// `tls-server-end-point` data.
        end_point: Vec<u8>,
    },
}

/// Why an exchange failed. The agent is told the same in every case but malformed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message that is none, or that contradicts the one before.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The channel binding does not match: somebody may sit in between.
    #[error("SCRAM channel binding check failed")]
    ChannelBinding,
    /// The proof does not match the verifier.
    #[error("wrong password")]
    WrongPassword,
}

/// After the first message, before the proof.
pub struct Exchange {
    keys: Keys,
    /// The agent's GS2 header and the binding data it must repeat, in base 64.
    expected_binding: String,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

impl Exchange {
    /// Reads the client's first message and answers it. `server_nonce` is fresh randomness,
    /// printable and without commas.
    ///
    /// # Errors
    /// When the message is malformed, or asks for a channel binding other than offered.
    pub fn begin(
        mechanism: &str,
        client_first: &[u8],
        keys: Keys,
        channel: &Channel,
        server_nonce: &str,
    ) -> Result<(Self, String), ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ScramError::Malformed);
        };
        // An authorization identity other than the user is not supported, by Postgres neither.
        if !authzid.is_empty() {
            return Err(ScramError::Malformed);
        }
        let binding: &[u8] = match (mechanism, flag, channel) {
            (MECHANISM, "n", _) => b"",
            // "y": the client could bind but thinks that we cannot. If we can, somebody removed
            // the offer on its way (RFC 5802, section 6).
            (MECHANISM, "y", Channel::Plain) => b"",
            (MECHANISM, "y", Channel::Tls { .. }) => return Err(ScramError::ChannelBinding),
            (MECHANISM_PLUS, "p=tls-server-end-point", Channel::Tls { end_point }) => end_point,
            _ => return Err(ScramError::Malformed),
        };
        let mut expected = format!("{flag},,").into_bytes();
        expected.extend_from_slice(binding);

        let mut attributes = bare.split(',');
        // The user name comes from the start-up message; what is said here is ignored, as in Postgres.
        let user = attributes.next().ok_or(ScramError::Malformed)?;
        let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let client_nonce = client_nonce.filter(|nonce| !nonce.is_empty()).ok_or(ScramError::Malformed)?;
        if !user.starts_with("n=") {
            return Err(ScramError::Malformed);
        }

        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        let exchange = Self {
            keys,
            expected_binding: BASE64.encode(expected),
            nonce,
            client_first_bare: bare.to_owned(),
            server_first: server_first.clone(),
        };
        Ok((exchange, server_first))
    }

    /// Checks the client's proof; on success, our own proof is the answer.
    ///
    /// # Errors
    /// When the message is malformed, bound to another channel, or the password is wrong.
    pub fn finish(self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding =
            attributes.next().and_then(|part| part.strip_prefix("c=")).ok_or(ScramError::Malformed)?;
        let nonce =
            attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        if binding != self.expected_binding {
            return Err(ScramError::ChannelBinding);
        }
        let proof: [u8; 32] =
            BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(ScramError::Malformed)?;

        let auth_message = [self.client_first_bare.as_str(), &self.server_first, without_proof].join(",");
        let signature = hmac(&self.keys.stored_key, &[auth_message.as_bytes()]);
        let mut client_key = [0; 32];
        for ((key, proof), signature) in client_key.iter_mut().zip(proof).zip(signature) {
            *key = proof ^ signature;
        }
        let offered: [u8; 32] = Sha256::digest(client_key).into();
        client_key.zeroize();
        if !bool::from(offered.ct_eq(&self.keys.stored_key)) {
            return Err(ScramError::WrongPassword);
        }
        let server_signature = hmac(&self.keys.server_key, &[auth_message.as_bytes()]);
        Ok(format!("v={}", BASE64.encode(server_signature)))
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use postgres_protocol::password::scram_sha_256;

    use super::*;

    fn keys(verifier: &str) -> Keys {
        let mut parts = verifier.split(['$', ':']).skip(1);
        let iterations = parts.next().unwrap().parse().unwrap();
        let mut decoded = parts.map(|part| BASE64.decode(part).unwrap());
        let salt = decoded.next().unwrap();
        let mut key = || decoded.next().unwrap().try_into().unwrap();
        Keys { iterations, salt, stored_key: key(), server_key: key() }
    }

    fn log_in(
        password: &str,
        binding: ChannelBinding,
        mechanism: &str,
        channel: &Channel,
    ) -> Result<(), ScramError> {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let keys = keys(&scram_sha_256(b"correct horse"));
        let (exchange, first) =
            Exchange::begin(mechanism, client.message(), keys, channel, "3rfcNHYJY1ZVvWVs7j")?;
        client.update(first.as_bytes()).unwrap();
        let last = exchange.finish(client.message())?;
        client.finish(last.as_bytes()).expect("the client checks that we know the keys, too");
        Ok(())
    }

    #[test]
    fn the_right_password_logs_in_and_a_wrong_one_does_not() {
        let plain = Channel::Plain;
        assert_eq!(log_in("correct horse", ChannelBinding::unsupported(), MECHANISM, &plain), Ok(()));
        assert_eq!(
            log_in("battery staple", ChannelBinding::unsupported(), MECHANISM, &plain),
            Err(ScramError::WrongPassword)
        );
    }

    #[test]
    fn channel_binding_is_checked() {
        let channel = Channel::Tls { end_point: b"hash of our certificate".to_vec() };
        let binding = |data: &[u8]| ChannelBinding::tls_server_end_point(data.to_vec());

        assert_eq!(
            log_in("correct horse", binding(b"hash of our certificate"), MECHANISM_PLUS, &channel),
            Ok(())
        );
        assert_eq!(
            log_in("correct horse", binding(b"hash of another one"), MECHANISM_PLUS, &channel),
            Err(ScramError::ChannelBinding)
        );
    }

    #[test]
    fn a_client_that_was_told_we_cannot_bind_is_stopped_when_we_can() {
        let channel = Channel::Tls { end_point: b"hash".to_vec() };

        assert_eq!(
            log_in("correct horse", ChannelBinding::unrequested(), MECHANISM, &channel),
            Err(ScramError::ChannelBinding)
        );
    }

    #[test]
    fn malformed_messages_are_told_apart_from_wrong_passwords() {
        let keys = keys(&scram_sha_256(b"x"));
        for first in [&b""[..], b"n,,", b"n,,n=,r=", b"n,a=root,n=,r=abc", b"p=tls-unique,,n=,r=abc", b"\xff"]
        {
            let begun = Exchange::begin(MECHANISM, first, keys.clone(), &Channel::Plain, "nonce");
            assert_eq!(begun.err(), Some(ScramError::Malformed), "{first:?}");
        }
        for last in [&b""[..], b"c=biws,r=other,p=AAAA", b"c=biws,r=abcnonce", b"c=biws,r=abcnonce,p=!!"] {
            let (exchange, _) =
                Exchange::begin(MECHANISM, b"n,,n=,r=abc", keys.clone(), &Channel::Plain, "nonce").unwrap();
            assert_eq!(exchange.finish(last), Err(ScramError::Malformed), "{last:?}");
        }
    }
}
