//! Console sessions: what a browser shows after its owner has signed in.
//!
//! A session has two secrets, and a browser must show both: 256 random bits in a cookie, and the path
//! that its pages live under, which has 192. Browsers keep cookies by host name and path but not by
//! port (RFC 6265, section 8.5), so a cookie alone may be in the hands of anything else on that host; a
//! path alone may be in a history or in the log of a proxy. Both are kept here as one hash only.
//!
//! A session ends when it was not used for a while, when it is old, when its reviewer is no longer
//! enrolled or no longer has the token that opened it, and when the server restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::secret::{self, Kind, SecretHash};
use super::{AuthenticatedReviewer, Directory, NotRecognised, ReviewerIdentity};
use crate::actor::{Assurance, ChannelName, ReviewerId};

/// How long sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Unused.
    pub idle: Duration,
    /// At most.
    pub absolute: Duration,
    /// How long a sign-in counts as [`Assurance::Login`]; afterwards the session is as good as a
    /// click, until its owner signs in again.
    pub fresh: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30 * 60),
            absolute: Duration::from_secs(12 * 3600),
            fresh: Duration::from_secs(3600),
        }
    }
}

/// The sessions that are open.
#[derive(Debug, Default)]
pub struct ConsoleSessions {
    lifetimes: Lifetimes,
    open: Mutex<BTreeMap<SecretHash, Open>>,
}

/// What opens a session: made by [`ConsoleSessions::open`], for the browser and nobody else.
#[derive(Clone)]
pub struct SessionSecrets {
    /// A segment of the path that the session's pages live under.
    pub path: Zeroizing<String>,
    /// The value of its cookie.
    pub cookie: Zeroizing<String>,
}

impl SessionSecrets {
    /// What a browser shows that has them.
    #[must_use]
    pub fn proof(&self) -> SessionProof<'_> {
        SessionProof { path: &self.path, cookie: &self.cookie }
    }
}

/// What a browser shows of its session.
#[derive(Clone, Copy)]
pub struct SessionProof<'a> {
    /// The segment of the path that it asks under.
    pub path: &'a str,
    /// A cookie that it sent along.
    pub cookie: &'a str,
}

impl SessionProof<'_> {
    /// What the session is kept under.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        // Neither part can have a zero byte: one is a segment of a path, the other a cookie's value.
        SecretHash::of(&format!("{}\0{}", self.path, self.cookie))
    }
}

/// What somebody signed in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedInWith {
    /// A one-time link, which is used up.
    Link,
    /// A personal token. The session ends when its reviewer does not have this one any more.
    Token(SecretHash),
}

#[derive(Clone, Debug)]
struct Open {
    reviewer: ReviewerId,
    with: SignedInWith,
    signed_in: Timestamp,
    assurance: Assurance,
    used: Timestamp,
}

/// How many sessions one person may have; the oldest gives way. A person has a few browsers; a
/// script that signs in for every request must not fill the memory.
const MOST_OF_ONE_PERSON: usize = 16;

impl ConsoleSessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(lifetimes: Lifetimes) -> Self {
        Self { lifetimes, open: Mutex::default() }
    }

    /// Opens a session for somebody who has just signed in. The returned secrets go to the browser;
    /// they are not kept.
    #[must_use]
    pub fn open(&self, who: &AuthenticatedReviewer, with: SignedInWith, now: Timestamp) -> SessionSecrets {
        let secrets =
            SessionSecrets { path: secret::path_segment(), cookie: secret::generate(Kind::Session) };
        let mut open = self.open.lock();
        open.retain(|_, session| !self.is_over(session, now));
        let reviewer = &who.reviewer().id;
        let mut theirs: Vec<(Timestamp, SecretHash)> = open
            .iter()
            .filter(|(_, session)| session.reviewer == *reviewer)
            .map(|(hash, session)| (session.used, *hash))
            .collect();
        theirs.sort();
        for (_, hash) in theirs.iter().take((theirs.len() + 1).saturating_sub(MOST_OF_ONE_PERSON)) {
            open.remove(hash);
        }
        open.insert(
            secrets.proof().hash(),
            Open { reviewer: reviewer.clone(), with, signed_in: now, assurance: who.assurance(), used: now },
        );
        secrets
    }

    /// Closes a session: signing out.
    pub fn close(&self, proof: SessionProof<'_>) {
        self.open.lock().remove(&proof.hash());
    }

    /// Closes every session of `reviewer`.
    pub fn close_all_of(&self, reviewer: &ReviewerId) {
        self.open.lock().retain(|_, session| session.reviewer != *reviewer);
    }

    /// The same as recognising it, but for what a page does by itself: a tab that was left open does
    /// not keep a session from ending.
    pub fn peek(
        &self,
        directory: &Directory,
        proof: SessionProof<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedReviewer, NotRecognised> {
        self.look(directory, proof, now, false)
    }

    fn look(
        &self,
        directory: &Directory,
        proof: SessionProof<'_>,
        now: Timestamp,
        is_use: bool,
    ) -> Result<AuthenticatedReviewer, NotRecognised> {
        // Looked up by hash: how long that takes says something about hashes, not about secrets.
        let hash = proof.hash();
        let mut open = self.open.lock();
        let session = open.get_mut(&hash).ok_or(NotRecognised::Unknown)?;
        if self.is_over(session, now) {
            open.remove(&hash);
            return Err(NotRecognised::Expired);
        }
        let Some(entry) = directory.reviewer(&session.reviewer) else {
            open.remove(&hash);
            return Err(NotRecognised::NotEnrolled);
        };
        if let SignedInWith::Token(token) = session.with
            && !entry.tokens.contains(&token)
        {
            open.remove(&hash);
            return Err(NotRecognised::Expired);
        }
        if is_use {
            session.used = session.used.max(now);
        }
        let stale = passed(session.signed_in, now) >= self.lifetimes.fresh;
        let assurance = if stale { Assurance::Click } else { session.assurance };
        Ok(AuthenticatedReviewer::new(entry.reviewer.clone(), assurance, ChannelName::Console))
    }

    fn is_over(&self, session: &Open, now: Timestamp) -> bool {
        passed(session.used, now) >= self.lifetimes.idle
            || passed(session.signed_in, now) >= self.lifetimes.absolute
    }
}

impl ReviewerIdentity for ConsoleSessions {
    type Proof<'a> = SessionProof<'a>;

    fn recognise(
        &self,
        directory: &Directory,
        proof: SessionProof<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedReviewer, NotRecognised> {
        self.look(directory, proof, now, true)
    }
}

/// How much time has passed; none when the clock went backwards.
fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
