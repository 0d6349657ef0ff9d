//! The life of one held statement, from `Waiting` to exactly one ending.

use jiff::Timestamp;

use super::request::Seal;
use crate::actor::{ChannelName, ReviewerId};
use crate::policy::Assurance;
use crate::statement::{Digest, RequestId};

/// A reviewer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let it run.
    Approve,
    /// Do not let it run.
    Deny,
    /// Ask the next group now.
    Escalate,
}

impl Verdict {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Escalate => "escalate",
        }
    }
}

/// An answer that counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Who.
    pub reviewer: ReviewerId,
    /// What they said.
    pub verdict: Verdict,
    /// How sure we were of them.
    pub assurance: Assurance,
    /// The way it came.
    pub channel: ChannelName,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Digest of what they saw.
    pub digest: Digest,
    /// An approval so soon after it was shown that it cannot have been read.
    pub quick: bool,
}

/// Permission to forward one statement, once.
#[derive(Debug)]
pub struct Grant {
    seal: Seal,
    request: RequestId,
    approvals: Vec<Review>,
    expires: Timestamp,
}

impl Grant {
    /// The request it came from.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// What it covers.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// The approvals that it rests on.
    #[must_use]
    pub fn approvals(&self) -> &[Review] {
        &self.approvals
    }

    /// Until when it may be used.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// A grant out of thin air, for tests of what consumes grants.
    #[cfg(test)]
    pub(crate) fn for_test(
        seal: Seal,
        request: RequestId,
        approvals: Vec<Review>,
        expires: Timestamp,
    ) -> Self {
        Self { seal, request, approvals, expires }
    }
}
