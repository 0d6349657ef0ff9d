//! Why a request ends without a verdict.

use std::fmt;

use crate::statement::SessionEnd;

/// Why a request was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// A reviewer took the approval back before it was used.
    TakenBack,
    /// The agent cancelled the statement.
    AgentCancelled,
    /// The agent disconnected while it waited.
    AgentDisconnected,
    /// The session ended in a way that says no more.
    SessionEnded,
    /// The session ended, and this is why.
    Session(SessionEnd),
    /// The desk found that the session does not wait any more.
    SessionGone,
    /// An identical deferred request was opened a moment earlier.
    Duplicate,
    /// A statement before it in the same batch failed.
    EarlierFailed,
    /// The agent sent so much behind the statement that the proxy stopped reading, and could not have
    /// seen it disconnect.
    TooMuchAhead,
    /// Upstream could not be asked for the session's settings.
    SettingsUnknown,
    /// Upstream could not be asked for its catalogue.
    CatalogueUnknown,
    /// The session, its settings or its target differ from the approved ones.
    SessionChanged,
    /// The statement would be refused now whatever people say.
    CannotRun,
    /// The ledger could not record that the grant is used.
    Unrecorded,
    /// The policy in force denies it.
    DeniedByPolicy,
    /// The policy in force does not hold it, and its text is no SQL.
    SyntaxError,
    /// The policy in force asks for more than the request did.
    StricterPolicy,
    /// Somebody who approved may not approve it any more.
    ApproversChanged,
    /// The agent is not configured any more, or not for this upstream.
    AgentRevoked,
    /// The desk was dropped while a session waited.
    DeskClosed,
}

impl Withdrawal {
    /// The reason in one lower-case phrase. It may be shown to everybody.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TakenBack => "a reviewer took the approval back",
            Self::AgentCancelled => "the agent cancelled",
            Self::AgentDisconnected => "the agent disconnected",
            Self::SessionEnded => "the session ended",
            Self::Session(end) => end.as_str(),
            Self::SessionGone => "the session is gone",
            Self::Duplicate => "an identical request waits already",
            Self::EarlierFailed => "an earlier statement of the same batch failed",
            Self::TooMuchAhead => {
                "the agent sent more than 1 MiB behind it, so it could not be seen to disconnect"
            }
            Self::SettingsUnknown => "the server could not be asked for the settings of the session",
            Self::CatalogueUnknown => "the server could not be asked for its catalogue",
            Self::SessionChanged => "the session is not what it was when approval was asked for",
            Self::CannotRun => "the statement cannot run any more",
            Self::Unrecorded => "the ledger could not record it",
            Self::DeniedByPolicy => "the policy in force denies it",
            Self::SyntaxError => "under the policy in force it is refused as a syntax error",
            Self::StricterPolicy => "the policy in force asks for more than was asked for",
            Self::ApproversChanged => "somebody who approved may not approve it any more",
            Self::AgentRevoked => "the agent is no longer allowed here",
            Self::DeskClosed => "the proxy no longer keeps the request",
        }
    }
}

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
