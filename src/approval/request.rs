//! The request: everything that is known about one held statement.
//!
//! It is made in one place, [`Request::open`], which refuses a draft whose [`Seal`] speaks of
//! something else than the statement it shows: what reviewers read and what their grant covers must
//! not be two things. How it is laid out for people is [`document`](super::document)'s business.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::seal::Seal;
use super::visible::Shown;
use super::words::words;
use crate::actor::{AgentIdentity, Claims, ReviewerId};
use crate::classify::Classification;
use crate::policy::{InTransaction, Terms};
use crate::statement::{
    Digest, RequestId, ServerTimers, SessionId, SqlText, Statement, Target, TransactionStatus,
};

/// What a reviewer should know of the transaction that a statement waits in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TransactionView {
    /// Upstream's status when the hold opened; `None` when upstream was still busy.
    pub status: Option<TransactionStatus>,
    /// The texts that ran in the open transaction so far, oldest first; the last
    /// [`TransactionView::KEPT`] of them.
    pub statements: Vec<String>,
    /// How many more ran before those.
    pub earlier: u64,
    /// The texts of the same batch that reach upstream before it, or together with it: whether and when
    /// they run, upstream will say.
    pub batch: Vec<String>,
    /// Timers of upstream's that run while the statement waits.
    pub timers: ServerTimers,
    /// How much longer upstream lets the transaction last, where it limits that.
    pub left: Option<Duration>,
}

impl TransactionView {
    /// How many statements of a transaction are shown.
    pub const KEPT: usize = 20;
}

impl fmt::Debug for TransactionView {
    /// Prints counts: the statements are SQL, which never belongs into a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = self.statements.len() as u64 + self.earlier;
        write!(f, "TransactionView {{ status: {:?}, ran: {ran} }}", self.status)
    }
}

/// The tree head that was current when a request was shown, so that a chat message or a page is
/// itself an anchor of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Number of entries.
    pub size: u64,
    /// Root hash (RFC 6962, section 2.1).
    pub root: Digest,
}

/// What the proxy knows when it opens a hold; the desk adds id and times.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The statement, whole.
    pub statement: Statement,
    /// What it does and why it is held.
    pub classification: Arc<Classification>,
    /// Who asks.
    pub identity: Arc<AgentIdentity>,
    /// What the agent says about itself.
    pub claimed: Claims,
    /// The session that waits.
    pub session: SessionId,
    /// Where it would run.
    pub target: Target,
    /// What the grant will be bound to.
    pub seal: Seal,
    /// The transaction around it.
    pub transaction: TransactionView,
    /// Who must answer, and how.
    pub terms: Terms,
    /// Prepared statements that it runs by name (`EXECUTE x`), with their texts: whoever approves it
    /// approves them.
    pub refers_to: Vec<(String, SqlText)>,
}

impl Draft {
    /// Whether any of it is shown and kept without its secrets.
    #[must_use]
    pub fn holds_secrets(&self) -> bool {
        let classification = &self.classification;
        classification.redacted_sql.is_some() || !classification.bound_secrets.is_empty()
    }
}

/// An earlier request of this agent with the same fingerprint: what was asked before, in other
/// values or the same, and what people said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The request.
    pub request: RequestId,
    /// When it ended.
    pub at: Timestamp,
    /// How it ended: `granted`, `denied`, ..
    pub ended: &'static str,
    /// Who decided.
    pub by: Vec<ReviewerId>,
}

/// One held statement and all that is known about it. Immutable once opened; what people answered
/// is in the [`Hold`](super::Hold).
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id; people use its code.
    pub id: RequestId,
    /// What it is about.
    pub draft: Draft,
    /// [`Statement::digest`], kept because it is shown and compared often.
    pub digest: Digest,
    /// Four short words that stand for the digest when people talk.
    pub words: [&'static str; 4],
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it expires unless answered.
    pub expires_at: Timestamp,
    /// The ledger's tree head when it was opened.
    pub checkpoint: Option<TreeHead>,
    /// What was said about the same fingerprint before, newest first.
    pub past: Vec<Past>,
    /// The statement of the newest of them that was approved, to show what is different now.
    pub last_approved: Option<Statement>,
}

/// Why a draft cannot become a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDraft {
    /// The seal names another statement, agent, session or target than the draft: a bug, and a
    /// dangerous one.
    #[error("the seal does not speak of the statement that is shown")]
    SealDiffers,
    /// The rule forbids waiting inside a transaction.
    #[error("the terms forbid to wait inside a transaction")]
    InTransaction,
}

/// How long a grant lives whose session is waiting for it: long enough to ask upstream once more
/// whether the session is still what it was, not long enough to be kept for later.
const GRANT_OF_A_WAITING_SESSION: Duration = Duration::from_secs(60);

impl Request {
    /// Opens a request at `now`.
    pub fn open(
        id: RequestId,
        draft: Draft,
        now: Timestamp,
        checkpoint: Option<TreeHead>,
        past: Vec<Past>,
        last_approved: Option<Statement>,
    ) -> Result<Self, BadDraft> {
        let digest = draft.statement.digest();
        let seal = &draft.seal;
        let speaks_of_it = seal.statement == digest
            && seal.agent == draft.identity.agent.name
            && seal.upstream == draft.target.upstream
            && seal.database == draft.target.database
            && seal.role == draft.target.role
            && seal.session.is_none_or(|session| session == draft.session);
        if !speaks_of_it || seal.session.is_none() != draft.terms.defer {
            return Err(BadDraft::SealDiffers);
        }
        let mut wait = waiting_time(&draft.terms, draft.transaction.status)?;
        if let (Some(left), false) = (draft.transaction.left, draft.terms.defer) {
            wait = wait.min(left);
        }
        let expires_at = later(now, wait);
        Ok(Self {
            id,
            words: words(&digest),
            digest,
            opened_at: now,
            expires_at,
            checkpoint,
            past,
            last_approved,
            draft,
        })
    }

    /// Whether no session waits: the statement failed at once and runs when it is retried.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.draft.seal.session.is_none()
    }

    /// Whether it expires early, because upstream would end its transaction.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        let left = self.draft.transaction.left.filter(|_| !self.is_deferred());
        left.is_some_and(|left| later(self.opened_at, left) <= self.expires_at)
    }

    /// How long a grant for it lives unused.
    #[must_use]
    pub fn grant_life(&self) -> Duration {
        if self.is_deferred() {
            self.draft.terms.expires
        } else {
            self.draft.terms.expires.min(GRANT_OF_A_WAITING_SESSION)
        }
    }

    /// The text to show: passwords replaced, and behind it the texts of the prepared statements that
    /// it runs by name. They are part of it here, and not a section of their own, so that no channel
    /// can show `EXECUTE x` without what `x` stands for.
    #[must_use]
    pub fn shown_sql(&self) -> Shown {
        let own = match &self.draft.classification.redacted_sql {
            Some(redacted) => Shown::of(redacted),
            None => Shown::of_bytes(self.draft.statement.sql.as_bytes()),
        };
        self.draft.refers_to.iter().fold(own, |text, (name, sql)| {
            let heading = format!("{text}\n\n⟨{} stands for⟩\n", Shown::line(name));
            Shown::after(&heading, &Shown::of_bytes(sql.as_bytes()))
        })
    }
}

/// How long a statement on these terms may wait. Inside an open transaction it keeps locks, so the
/// limit is shorter there; what upstream has not answered yet (no `status`) counts as open.
pub(super) fn waiting_time(terms: &Terms, status: Option<TransactionStatus>) -> Result<Duration, BadDraft> {
    if terms.defer || status == Some(TransactionStatus::Idle) {
        return Ok(terms.expires);
    }
    match terms.in_transaction {
        InTransaction::Wait(limit) => Ok(terms.expires.min(limit)),
        InTransaction::Refuse => Err(BadDraft::InTransaction),
    }
}

/// `now + by`, or the end of time.
pub(crate) fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
