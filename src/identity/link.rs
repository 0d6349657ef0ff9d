//! One-time sign-in links: how a reviewer gets into the console where there is no identity provider.
//!
//! The operator makes one on the server's machine and gives it to the reviewer. The link carries
//! its own proof, an HMAC under a key derived from the installation's secret, so that the command
//! line need not talk to the server. The server remembers which links were used until they expire; a
//! link that is older than the server's start is refused, because what was used before is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use sha2::Sha256;

use super::secret::{self, Kind};
use super::{AuthenticatedReviewer, Directory, NotRecognised, ReviewerIdentity};
use crate::actor::{Assurance, ChannelName, ReviewerId};

/// How long a link may be used.
pub const LIFE: Duration = Duration::from_secs(10 * 60);
/// How far the command line's clock may be ahead of the server's; they are on one machine.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

const NONCE: usize = 16;
const TAG: usize = 32;
/// issued, nonce
const HEADER: usize = 8 + NONCE;

/// Makes a link's secret for `reviewer`, to be put behind the console's address.
///
/// ```text
/// "csl_" base64url( i64 issued, milliseconds | 16 random bytes | reviewer's id | HMAC-SHA-256 of what precedes )
/// ```
#[must_use]
pub fn issue(directory: &Directory, reviewer: &ReviewerId, now: Timestamp) -> String {
    let mut bytes = now.as_millisecond().to_be_bytes().to_vec();
    bytes.extend_from_slice(&secret::random::<NONCE>());
    bytes.extend_from_slice(reviewer.as_str().as_bytes());
    let tag = mac(directory, &bytes).finalize().into_bytes();
    bytes.extend_from_slice(&tag);
    format!("{}{}", Kind::Link.prefix(), URL_SAFE_NO_PAD.encode(bytes))
}

/// The address of a link: its secret behind the console's `/sign-in/`. The page there asks for a
/// click before it uses the link up, because chat programs look at links before people do.
#[must_use]
pub fn url(console: &url::Url, secret: &str) -> String {
    format!("{}/sign-in/{secret}", console.as_str().trim_end_matches('/'))
}

/// The links that a server accepts.
#[derive(Debug)]
pub struct SignInLinks {
    started: Timestamp,
    /// Nonces of used links, and when they may be forgotten.
    used: Mutex<BTreeMap<[u8; NONCE], Timestamp>>,
}

impl SignInLinks {
    /// Accepts links made since `started`.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self { started, used: Mutex::default() }
    }
}

impl ReviewerIdentity for SignInLinks {
    type Proof<'a> = &'a str;

    /// Uses a link up. What is wrong with it is found out before it is marked as used, so that
    /// nobody can fill the memory with links of their own making.
    fn recognise(
        &self,
        directory: &Directory,
        link: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedReviewer, NotRecognised> {
        let encoded = link.strip_prefix(Kind::Link.prefix()).ok_or(NotRecognised::Unknown)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| NotRecognised::Unknown)?;
        let body_len = bytes.len().checked_sub(TAG).ok_or(NotRecognised::Unknown)?;
        let (body, tag) = bytes.split_at_checked(body_len).ok_or(NotRecognised::Unknown)?;
        mac(directory, body).verify_slice(tag).map_err(|_| NotRecognised::Unknown)?;

        let (header, id) = body.split_at_checked(HEADER).ok_or(NotRecognised::Unknown)?;
        let (issued, nonce) = header.split_at_checked(8).ok_or(NotRecognised::Unknown)?;
        let issued = i64::from_be_bytes(issued.try_into().map_err(|_| NotRecognised::Unknown)?);
        let issued = Timestamp::from_millisecond(issued).map_err(|_| NotRecognised::Unknown)?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| NotRecognised::Unknown)?;
        let id = std::str::from_utf8(id).map_err(|_| NotRecognised::Unknown)?;

        let expires = issued.saturating_add(LIFE).unwrap_or(Timestamp::MAX);
        let before_start = issued.as_millisecond() < self.started.as_millisecond();
        if now >= expires || before_start || issued.duration_since(now) > SKEW {
            return Err(NotRecognised::Expired);
        }
        let entry = directory.reviewer(&ReviewerId::new(id)).ok_or(NotRecognised::NotEnrolled)?;
        let mut used = self.used.lock();
        used.retain(|_, forget| *forget > now);
        if used.insert(nonce, expires).is_some() {
            return Err(NotRecognised::Used);
        }
        Ok(AuthenticatedReviewer::new(entry.reviewer.clone(), Assurance::Login, ChannelName::Console))
    }
}

fn mac(directory: &Directory, body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(directory.secret()).expect("any length");
    mac.update(b"countersign/sign-in-link/v1\0");
    mac.update(body);
    mac
}
