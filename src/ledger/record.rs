//! What the rest of the program hands to the ledger.

use std::sync::Arc;

use jiff::Timestamp;

use crate::actor::{AgentIdentity, ChannelName, Claims, GroupName, Reviewer, ReviewerId};
use crate::approval::{Release, Request, Verdict};
use crate::classify::Classification;
use crate::policy::{Allowed, Assurance};
use crate::statement::{Digest, RequestId, RuleName, SessionId, Statement, Target};

/// What stays the same while a session lives.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The session.
    pub session: SessionId,
    /// Who connected.
    pub identity: Arc<AgentIdentity>,
    /// Where its statements run.
    pub target: Target,
    /// What it says about itself.
    pub claimed: Claims,
    /// When it connected.
    pub at: Timestamp,
}

/// One statement that is about to be forwarded or was refused.
#[derive(Clone, Copy, Debug)]
pub struct StatementRecord<'a> {
    /// The statement.
    pub statement: &'a Statement,
    /// [`Statement::digest`].
    pub digest: Digest,
    /// What it does.
    pub classification: &'a Classification,
    /// Whether a transaction was open.
    pub in_transaction: bool,
    /// The request it was held under.
    pub request: Option<RequestId>,
    /// The policy set in force.
    pub policy: Digest,
    /// The rules that decided.
    pub rules: &'a [RuleName],
    /// When it arrived. When it was recorded, the ledger says itself.
    pub wall: Timestamp,
}

/// On what ground a statement is forwarded.
#[derive(Debug)]
pub enum Clearance {
    /// Policy allowed it.
    Allowed(Allowed),
    /// People approved it, and what they approved was judged once more.
    Granted(Release),
    /// Upstream must refuse it: its transaction has failed.
    Doomed,
    /// Upstream must refuse it: it has just said that its transaction is read-only.
    ReadOnly,
    /// It is parsed and never bound, so nothing runs.
    ParseOnly,
}

impl Clearance {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Granted(_) => "granted",
            Self::Doomed => "doomed",
            Self::ReadOnly => "read_only",
            Self::ParseOnly => "parse_only",
        }
    }

    /// The rule that allowed it.
    pub(crate) fn rule(&self) -> Option<&RuleName> {
        match self {
            Self::Allowed(allowed) => allowed.rule(),
            Self::Granted(_) | Self::Doomed | Self::ReadOnly | Self::ParseOnly => None,
        }
    }
}

/// A reviewer's own signature over what they decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewerSignature {
    /// `sshsig` or `webauthn`.
    pub scheme: &'static str,
    /// The public key, as the scheme writes it.
    pub public_key: Vec<u8>,
    /// The bytes that were signed: the canonical record of request, digest, decision, nonce, expiry.
    pub record: Vec<u8>,
    /// The signature, as the scheme writes it.
    pub signature: Vec<u8>,
}

/// One answer of one person, whether it counted or not.
#[derive(Clone, Debug)]
pub struct ReviewRecord {
    /// The request.
    pub request: RequestId,
    /// The person, as enrolled at that moment.
    pub reviewer: Arc<Reviewer>,
    /// What they said.
    pub verdict: Verdict,
    /// The way it came.
    pub channel: ChannelName,
    /// How sure we were of them.
    pub assurance: Assurance,
    /// Digest of the statement they were shown.
    pub digest: Digest,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When it was first displayed to them, as far as the proxy itself knows.
    pub displayed_at: Option<Timestamp>,
    /// It came within three seconds of that, or of the opening where that is not known.
    pub quick: bool,
    /// Why it did not count; `None` when it did.
    pub not_counted: Option<String>,
    /// Their own signature, where there is one.
    pub signature: Option<ReviewerSignature>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// Enough people approved. Its statement follows, or `Expired` or `Withdrawn`.
    Granted,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time, or the grant was not used in time.
    Expired,
    /// The agent cancelled or went away, or the session changed.
    Withdrawn,
    /// The grant was used.
    Executed,
}

impl HoldEnd {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Executed => "executed",
        }
    }
}

/// Everything the ledger records that is not a statement.
#[derive(Clone, Debug)]
pub enum Event {
    /// People are asked.
    RequestOpened {
        /// The request as they are shown it.
        request: Arc<Request>,
    },
    /// Somebody answered.
    Review(Box<ReviewRecord>),
    /// More people are asked.
    Escalated {
        /// The request.
        request: RequestId,
        /// The group that is asked as well.
        group: GroupName,
        /// Who wanted it; `None` when it was the clock.
        by: Option<ReviewerId>,
    },
    /// A request reached an end.
    HoldEnded {
        /// The request.
        request: RequestId,
        /// Which end.
        end: HoldEnd,
        /// Why, in one phrase.
        reason: Option<String>,
        /// Who decided, where one person did.
        by: Option<ReviewerId>,
    },
    /// A policy set came into force.
    PolicyLoaded {
        /// Its digest.
        policy: Digest,
        /// In words: which files, why now.
        what: String,
        /// Who changed it, where that is known.
        by: Option<String>,
        /// What changed, as a diff.
        difference: Option<String>,
        /// How many rules it has.
        rules: u64,
    },
    /// The configuration changed.
    ConfigChanged {
        /// In words: which part.
        what: String,
        /// Who changed it, where that is known.
        by: Option<String>,
        /// Digest of the configuration as loaded.
        digest: Option<Digest>,
        /// What changed, as a diff without secrets.
        difference: Option<String>,
    },
    /// Somebody read the ledger or took a copy.
    Export {
        /// Who.
        by: String,
        /// What: the query, the format.
        what: String,
        /// The first entry.
        from: Option<u64>,
        /// The last entry.
        to: Option<u64>,
    },
    /// Texts are to be deleted from `payload`.
    Redaction {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Which: entry and number of the field that commits to the text.
        fields: Vec<(u64, u64)>,
    },
}
