//! The request: one document about one held statement, from which every channel renders.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::actor::{AgentIdentity, AgentName, Claims, DatabaseName, RoleName, UpstreamName};
use crate::classify::Classification;
use crate::policy::Terms;
use crate::statement::{Digest, RequestId, SessionId, Statement, Target, TransactionStatus};

/// Everything that a grant covers besides its expiry: if any of it differs when the statement is
/// about to be forwarded, the grant does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// [`Statement::digest`]: bytes, parameters, declared types.
    pub statement: Digest,
    /// The agent.
    pub agent: AgentName,
    /// The session; `None` for a deferred hold, which any session of the agent may claim.
    pub session: Option<SessionId>,
    /// The operator's name for the upstream.
    pub upstream: UpstreamName,
    /// The database.
    pub database: DatabaseName,
    /// The role the proxy logged in with.
    pub role: RoleName,
    /// What upstream itself said of the session, by setting name: `role`, `session_authorization`,
    /// `search_path`, and whatever else changes what the statement means.
    pub settings: BTreeMap<Arc<str>, Arc<str>>,
}

/// What a reviewer should know of the transaction that a statement waits in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionView {
    /// Upstream's status when the hold opened; `None` when upstream was still busy.
    pub status: Option<TransactionStatus>,
    /// The texts that ran in the open transaction so far, oldest first; the last
    /// [`TransactionView::KEPT`] of them.
    pub statements: Vec<String>,
    /// How many more ran before those.
    pub earlier: u64,
}

impl TransactionView {
    /// How many statements of a transaction are shown.
    pub const KEPT: usize = 20;
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
}

/// The document about one held statement. Immutable once opened; what people answered is in the
/// [`Hold`](super::Hold).
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
}
