//! How we say no: every reason a statement does not run, as the agent is told it.
//!
//! A refusal is a stable SQLSTATE, one lower-case sentence, a `DETAIL` with the request's id where
//! there is one, and a `HINT` with what to do next. It never carries other people's SQL, paths, or
//! anything a reviewer did not address to the agent.

use std::fmt;
use std::time::Duration;

use crate::statement::{RequestId, RuleName};

/// Why a statement was not forwarded. Everything here may be shown to the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A rule says `deny`.
    #[error("statement denied by rule \"{rule}\"")]
    DeniedByPolicy {
        /// The rule.
        rule: RuleName,
        /// The rule's message to the agent.
        message: Option<String>,
    },
    /// A reviewer said no.
    #[error("statement denied by a reviewer")]
    DeniedByReviewer {
        /// The request they answered.
        request: RequestId,
        /// What they want the agent to know.
        message: Option<String>,
    },
    /// Nobody answered in time.
    #[error("approval request {request} expired without an answer")]
    HoldExpired {
        /// The request.
        request: RequestId,
    },
    /// The agent cancelled while its statement was waiting.
    #[error("canceling statement due to user request")]
    HoldCancelled {
        /// The request.
        request: RequestId,
    },
    /// The agent cancelled before anybody was asked.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// The hold was withdrawn for a reason of ours: the session changed under it, upstream went
    /// away, the proxy is shutting down.
    #[error("approval request {request} was withdrawn: {reason}")]
    HoldWithdrawn {
        /// The request.
        request: RequestId,
        /// In one lower-case phrase.
        reason: &'static str,
    },
    /// A deferred hold: the statement fails now and may be retried after approval.
    #[error("statement needs approval and was not run")]
    Deferred {
        /// The request.
        request: RequestId,
    },
    /// A statement inside a transaction needs approval, and the rule forbids waiting there.
    #[error("statement needs approval, which is not possible inside a transaction")]
    HoldInTransaction,
    /// A statement needs approval where upstream cannot be asked what the session's settings are.
    #[error(
        "statement needs approval, and the server cannot be asked about the session's settings at this point"
    )]
    HoldOutOfReach,
    /// A statement needs approval, and more comes before it in its batch than a reviewer is shown.
    #[error("statement needs approval, and too much comes before it in the same batch to be reviewed")]
    TooMuchBefore {
        /// How many statements may.
        statements: usize,
        /// How many bytes they may have.
        bytes: usize,
    },
    /// What was decided earlier in a batch does not hold any more: the policy or the people have changed
    /// while a later statement of it waited.
    #[error("the policy or its people have changed while a statement of the same batch waited")]
    BatchOutdated,
    /// The agent has too many requests waiting.
    #[error("too many approval requests are waiting for this agent")]
    TooManyHolds {
        /// The cap.
        limit: usize,
    },
    /// The session has too many prepared statements or portals.
    #[error("too many prepared statements or open portals in this session")]
    TooManyStatements {
        /// The cap.
        limit: usize,
    },
    /// What is prepared has too long texts.
    #[error("the texts of prepared statements and open portals of {whose} are too long")]
    TooMuchText {
        /// Whose: "this session", "this agent".
        whose: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The key of the limit in the configuration.
        setting: &'static str,
    },
    /// One text executes too many prepared statements.
    #[error("too many prepared statements are executed by one text")]
    TooManyExecuted {
        /// The cap.
        limit: usize,
    },
    /// A name behind a dot is no column that is known, and upstream could not be asked what it is.
    #[error("column or function \"{name}\" is not known")]
    UnknownColumn {
        /// The name.
        name: String,
    },
    /// The same statement was denied a short while ago.
    #[error("an identical statement was denied a short while ago")]
    CoolingDown {
        /// How long until it may be asked again.
        retry_after: Duration,
    },
    /// The text is not SQL that Postgres's grammar accepts. Says what Postgres would say.
    #[error("{message}")]
    Syntax {
        /// The parser's message.
        message: String,
        /// 1-based character position, as in the `P` field.
        position: Option<u32>,
    },
    /// The text is not in the session's encoding. Says what Postgres would say.
    #[error("{message}")]
    Encoding {
        /// Postgres's message.
        message: String,
    },
    /// A part of the protocol that the proxy does not carry.
    #[error("{feature} is not supported through countersign")]
    Unsupported {
        /// What it was.
        feature: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A start-up parameter outside the allow-list.
    #[error("start-up parameter \"{name}\" is not accepted")]
    StartupParameter {
        /// Its name.
        name: String,
        /// Why not, and what is.
        hint: String,
    },
    /// A malformed or out-of-order message. The session ends.
    #[error("protocol violation: {what}")]
    Protocol {
        /// What was wrong.
        what: &'static str,
    },
    /// A message over our limit. The session ends.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Wrong password, unknown agent: the same words for both.
    #[error("password authentication failed for user \"{user}\"")]
    InvalidPassword {
        /// The user name as it was sent.
        user: String,
    },
    /// The server does not accept a setting at start-up.
    #[error("{message}")]
    StartupSetting {
        /// The server's words, which name the setting.
        message: String,
    },
    /// TLS is required here, or authentication otherwise impossible.
    #[error("{what}")]
    NotAuthorized {
        /// One lower-case sentence.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// No such upstream, or not for this agent. The same words for both.
    #[error("database \"{name}\" does not exist")]
    UnknownUpstream {
        /// What was asked for.
        name: String,
    },
    /// A limit on sessions is reached.
    #[error("too many sessions")]
    TooManySessions,
    /// The ledger cannot write, so nothing may run.
    #[error("the audit ledger is unavailable, so nothing can run")]
    LedgerUnavailable {
        /// Its disk is full.
        disk_full: bool,
    },
    /// The upstream cannot be reached.
    #[error("could not connect to upstream \"{upstream}\"")]
    UpstreamUnreachable {
        /// Its name.
        upstream: String,
    },
    /// The upstream's database has an encoding in which names cannot be told apart reliably.
    #[error("upstream \"{upstream}\" has the encoding {encoding}; only UTF8 databases are supported")]
    UpstreamEncoding {
        /// Its name.
        upstream: String,
        /// The encoding of its database.
        encoding: String,
    },
    /// The upstream's catalogue could not be read, so that nothing can be told of a statement's names.
    #[error("the catalogue of upstream \"{upstream}\" could not be read, so the statement was not run")]
    CatalogueUnavailable {
        /// Its name.
        upstream: String,
    },
    /// The upstream went away after statements were forwarded to it.
    #[error(
        "the connection to upstream \"{upstream}\" was lost; statements in flight may or may not have run"
    )]
    UpstreamLost {
        /// Its name.
        upstream: String,
    },
    /// The proxy is starting or draining.
    #[error("countersign is not accepting sessions now")]
    NotAccepting,
    /// The proxy is shutting down.
    #[error("terminating connection because countersign is shutting down")]
    ShuttingDown,
    /// What the session began with is no longer so: its agent was revoked, its token has expired.
    #[error("terminating connection because {why}")]
    SessionOver {
        /// In one lower-case sentence.
        why: &'static str,
    },
    /// An operator ended the session.
    #[error("terminating connection due to operator command")]
    Killed,
    /// A bug of ours.
    #[error("internal error: {what}")]
    Internal {
        /// What broke.
        what: &'static str,
    },
}

impl Refusal {
    /// The SQLSTATE (PostgreSQL documentation, appendix A).
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::DeniedByPolicy { .. }
            | Self::DeniedByReviewer { .. }
            | Self::Deferred { .. }
            | Self::HoldInTransaction
            | Self::HoldOutOfReach
            | Self::TooMuchBefore { .. }
            | Self::CoolingDown { .. } => "42501",
            Self::HoldExpired { .. }
            | Self::HoldCancelled { .. }
            | Self::HoldWithdrawn { .. }
            | Self::BatchOutdated
            | Self::Cancelled => "57014",
            Self::TooManyHolds { .. } | Self::TooManyStatements { .. } => "53400",
            Self::Syntax { .. } => "42601",
            Self::Encoding { .. } => "22021",
            Self::StartupSetting { .. } => "22023",
            Self::Unsupported { .. } | Self::StartupParameter { .. } | Self::UpstreamEncoding { .. } => {
                "0A000"
            }
            Self::Protocol { .. } => "08P01",
            Self::TooMuchText { .. } => "53200",
            Self::TooLarge { .. } | Self::TooManyExecuted { .. } => "54000",
            Self::UnknownColumn { .. } => "42703",
            Self::InvalidPassword { .. } => "28P01",
            Self::NotAuthorized { .. } => "28000",
            Self::UnknownUpstream { .. } => "3D000",
            Self::TooManySessions => "53300",
            // 53100 would say that the server's disk is full, which it is not.
            Self::LedgerUnavailable { .. } => "58030",
            Self::UpstreamUnreachable { .. } => "08006",
            Self::CatalogueUnavailable { .. } => "53000",
            Self::UpstreamLost { .. } => "08007",
            Self::NotAccepting => "57P03",
            Self::ShuttingDown | Self::SessionOver { .. } | Self::Killed => "57P01",
            Self::Internal { .. } => "XX000",
        }
    }

    /// The `DETAIL` field.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::DeniedByReviewer { request, message: Some(message) } => {
                Some(format!("request {request}, denied: {message}"))
            }
            Self::DeniedByReviewer { request, message: None } => Some(format!("request {request}, denied")),
            Self::DeniedByPolicy { message, .. } => message.clone(),
            Self::Deferred { request } => Some(format!("request {request}, pending")),
            Self::HoldExpired { request }
            | Self::HoldCancelled { request }
            | Self::HoldWithdrawn { request, .. } => Some(format!("request {request}")),
            Self::TooManyHolds { limit } => {
                Some(format!("at most {limit} requests of one agent wait at a time"))
            }
            Self::TooManyStatements { limit } => Some(format!("at most {limit} names are kept")),
            Self::TooMuchText { limit, setting, .. } => {
                Some(format!("at most {limit} bytes are kept ([limits] {setting})"))
            }
            Self::TooManyExecuted { limit } => Some(format!("at most {limit} of them are looked up")),
            Self::LedgerUnavailable { disk_full: true } => Some("the disk of the ledger is full".to_owned()),
            Self::TooMuchBefore { statements, bytes } => {
                Some(format!("at most {statements} statements of {bytes} bytes in all are shown"))
            }
            Self::HoldInTransaction
            | Self::HoldOutOfReach
            | Self::BatchOutdated
            | Self::Cancelled
            | Self::CoolingDown { .. }
            | Self::UnknownColumn { .. }
            | Self::Syntax { .. }
            | Self::Encoding { .. }
            | Self::Unsupported { .. }
            | Self::StartupParameter { .. }
            | Self::StartupSetting { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. }
            | Self::InvalidPassword { .. }
            | Self::NotAuthorized { .. }
            | Self::UnknownUpstream { .. }
            | Self::TooManySessions
            | Self::LedgerUnavailable { disk_full: false }
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamEncoding { .. }
            | Self::CatalogueUnavailable { .. }
            | Self::UpstreamLost { .. }
            | Self::NotAccepting
            | Self::ShuttingDown
            | Self::SessionOver { .. }
            | Self::Killed
            | Self::Internal { .. } => None,
        }
    }

    /// The `HINT` field: what to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::DeniedByPolicy { .. } => "Ask the operator which statements this agent may run.",
            Self::DeniedByReviewer { .. } => {
                "Do not retry unchanged; follow the reviewer's message or ask the agent's owner."
            }
            Self::HoldExpired { .. } => "Retry when a reviewer is available.",
            Self::HoldCancelled { .. } | Self::Cancelled => return None,
            Self::HoldWithdrawn { .. } => "Retry the statement; a new request will be opened.",
            Self::Deferred { .. } => {
                "Retry the identical statement after approval; it will then run once. Do not change it: any change needs a new approval."
            }
            Self::HoldInTransaction => "Run the statement outside a transaction block.",
            Self::BatchOutdated => "Send the batch again; it will be decided anew.",
            Self::TooMuchBefore { .. } => "Send Sync first, and then the statement by itself.",
            Self::HoldOutOfReach => {
                "Send Sync first (in a failed transaction: ROLLBACK), and then the statement by itself."
            }
            Self::TooManyHolds { .. } => "Wait until some of them are answered.",
            Self::TooManyStatements { .. } => {
                "Close prepared statements and cursors that are no longer needed."
            }
            Self::TooMuchText { .. } => {
                "DEALLOCATE prepared statements and close cursors that are no longer needed, or send values apart from the text."
            }
            Self::TooManyExecuted { .. } => "Send them in several messages.",
            Self::UnknownColumn { .. } => {
                "Send the statement alone, as a simple query: the server then says what it is, or it is held for approval."
            }
            Self::CoolingDown { retry_after } => {
                return Some(format!("It can be asked again in {} seconds.", retry_after.as_secs().max(1)));
            }
            Self::Syntax { .. } | Self::Encoding { .. } => return None,
            Self::Unsupported { hint, .. } | Self::NotAuthorized { hint, .. } => hint,
            Self::StartupParameter { hint, .. } => return Some(hint.clone()),
            Self::StartupSetting { .. } => "Correct the setting in the connection's parameters or options.",
            Self::Protocol { .. } => {
                "This is a bug in the driver, or something other than Postgres's protocol."
            }
            Self::TooLarge { .. } => "Send smaller statements, or COPY the data in.",
            Self::InvalidPassword { .. } => return None,
            Self::UnknownUpstream { .. } => "The database name must be an upstream that this agent may use.",
            Self::TooManySessions => "Retry later.",
            Self::LedgerUnavailable { .. } => "Nothing was forwarded. Open transactions can only roll back.",
            Self::UpstreamUnreachable { .. } => "Check that the upstream is up; nothing was run.",
            Self::UpstreamEncoding { .. } => {
                "Ask the operator for a database that was created with ENCODING 'UTF8'; a dump of this one can be restored into it."
            }
            Self::CatalogueUnavailable { .. } => {
                "Retry later. ROLLBACK and COMMIT work; the operator finds the cause in the log and in `countersign status`."
            }
            Self::UpstreamLost { .. } => "Look at the data before retrying.",
            Self::NotAccepting => "Retry later.",
            Self::SessionOver { .. } => {
                "Connect with credentials that are good now; work in an open transaction was rolled back."
            }
            Self::ShuttingDown | Self::Killed => "Reconnect; work in an open transaction was rolled back.",
            Self::Internal { .. } => "Please report this.",
        };
        Some(hint.to_owned())
    }

    /// The approval request that it speaks of.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        if let Self::DeniedByReviewer { request, .. }
        | Self::HoldExpired { request }
        | Self::HoldCancelled { request }
        | Self::HoldWithdrawn { request, .. }
        | Self::Deferred { request } = self
        {
            Some(*request)
        } else {
            None
        }
    }

    /// Whether the session cannot go on after this (`FATAL`).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::StartupParameter { .. }
                | Self::StartupSetting { .. }
                | Self::Protocol { .. }
                | Self::TooLarge { .. }
                | Self::InvalidPassword { .. }
                | Self::NotAuthorized { .. }
                | Self::UnknownUpstream { .. }
                | Self::TooManySessions
                | Self::UpstreamUnreachable { .. }
                | Self::UpstreamEncoding { .. }
                | Self::UpstreamLost { .. }
                | Self::NotAccepting
                | Self::ShuttingDown
                | Self::SessionOver { .. }
                | Self::Killed
                | Self::Internal { .. }
        )
    }

    /// A short, stable word for ledgers, metrics and the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::DeniedByPolicy { .. } => "denied_by_policy",
            Self::DeniedByReviewer { .. } => "denied_by_reviewer",
            Self::HoldExpired { .. } => "expired",
            Self::HoldCancelled { .. } | Self::Cancelled => "cancelled",
            Self::HoldWithdrawn { .. } => "withdrawn",
            Self::Deferred { .. } => "deferred",
            Self::HoldInTransaction => "hold_in_transaction",
            Self::HoldOutOfReach => "hold_out_of_reach",
            Self::TooMuchBefore { .. } => "too_much_before",
            Self::BatchOutdated => "batch_outdated",
            Self::TooManyHolds { .. } => "too_many_holds",
            Self::TooManyStatements { .. } => "too_many_statements",
            Self::TooMuchText { .. } => "too_much_text",
            Self::TooManyExecuted { .. } => "too_many_executed",
            Self::UnknownColumn { .. } => "unknown_column",
            Self::CoolingDown { .. } => "cooling_down",
            Self::Syntax { .. } => "syntax_error",
            Self::Encoding { .. } => "encoding",
            Self::Unsupported { .. } => "unsupported",
            Self::StartupParameter { .. } => "startup_parameter",
            Self::StartupSetting { .. } => "startup_setting",
            Self::Protocol { .. } => "protocol_violation",
            Self::TooLarge { .. } => "too_large",
            Self::InvalidPassword { .. } => "invalid_password",
            Self::NotAuthorized { .. } => "not_authorized",
            Self::UnknownUpstream { .. } => "unknown_upstream",
            Self::TooManySessions => "too_many_sessions",
            Self::LedgerUnavailable { .. } => "ledger_unavailable",
            Self::UpstreamUnreachable { .. } => "upstream_unreachable",
            Self::UpstreamEncoding { .. } => "upstream_encoding",
            Self::CatalogueUnavailable { .. } => "catalogue_unavailable",
            Self::UpstreamLost { .. } => "upstream_lost",
            Self::NotAccepting => "not_accepting",
            Self::ShuttingDown => "shutting_down",
            Self::SessionOver { .. } => "session_over",
            Self::Killed => "killed",
            Self::Internal { .. } => "internal",
        }
    }
}

/// A one-line rendering with SQLSTATE, for logs.
pub struct OneLine<'a>(pub &'a Refusal);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.sqlstate(), self.0)
    }
}
