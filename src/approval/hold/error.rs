//! Why an answer to a request does not count.

use jiff::Timestamp;

use super::HoldState;
use crate::approval::quorum::NotAllowed;
use crate::policy::Assurance;

/// Why an answer did not count. Everything here may be shown to the reviewer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// No such request, or it ended so long ago that only the ledger knows it.
    #[error("no such request")]
    Unknown,
    /// It is over.
    #[error("too late: the request is {} already", .state.as_str())]
    TooLate {
        /// How it stands.
        state: HoldState,
    },
    /// This person may not.
    #[error("{why}")]
    NotAllowed {
        /// Why.
        why: NotAllowed,
    },
    /// They stand in for a group that is asked, and its time to answer is not over.
    #[error("you stand in for others, and may approve this from {} on", in_words(*.from))]
    NotYet {
        /// From when on they may.
        from: Timestamp,
    },
    /// They were a reviewer when they signed in, and are none now.
    #[error("you are not enrolled as a reviewer")]
    NotEnrolled,
    /// They saw another statement than the one that waits.
    #[error("what you were shown is not what is waiting; reload and read it again")]
    DigestMismatch,
    /// The rule wants a reason.
    #[error("this request needs a reason with the answer")]
    ReasonRequired,
    /// The reason is too long to be shown and stored whole.
    #[error("the reason is longer than {limit} characters")]
    ReasonTooLong {
        /// The most there may be.
        limit: usize,
    },
    /// We are not sure enough of them for this request.
    #[error("this request needs {}; you answered by {}", .needed.as_str(), .had.as_str())]
    AssuranceTooLow {
        /// What the rule asks for.
        needed: Assurance,
        /// What they came with.
        had: Assurance,
    },
    /// They gave this answer before.
    #[error("you have answered already")]
    AlreadyAnswered,
    /// Every further group is asked already, or was notified.
    #[error("there is no further group to notify")]
    NoFurtherStep,
    /// The ledger could not write the answer down, so it did not happen.
    #[error("the ledger cannot write, so the answer does not count; try again")]
    Unrecorded,
}

fn in_words(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

impl From<NotAllowed> for VerdictError {
    fn from(why: NotAllowed) -> Self {
        Self::NotAllowed { why }
    }
}
