//! What the desk needs of the ledger.

use std::sync::Arc;

use jiff::Timestamp;

use crate::actor::{ChannelName, GroupName, Reviewer, ReviewerId};
use crate::approval::request::TreeHead;
use crate::approval::{Request, Verdict};
use crate::policy::Assurance;
use crate::statement::{Digest, RequestId};

/// Writes down what happens at the desk, before it takes effect. The ledger is one; tests have one
/// that fails on demand.
pub trait Recorder: Send + Sync {
    /// Writes one record. When this returns, it is durable.
    fn append(&self, record: Record) -> Result<(), Unrecorded>;

    /// The last signed tree head, which every request shows.
    fn head(&self) -> Option<TreeHead>;
}

/// The record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot write")]
pub struct Unrecorded {
    /// Because its disk is full.
    pub disk_full: bool,
}

/// What is written down.
#[derive(Clone, Debug)]
pub enum Record {
    /// People are asked.
    RequestOpened {
        /// The request as they are shown it.
        request: Arc<Request>,
    },
    /// Somebody answered, whether it counted or not.
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
    /// A request was granted, or ended.
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
}

/// One answer of one person.
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
    /// When it was put before their eyes, where the channel knows.
    pub displayed_at: Option<Timestamp>,
    /// Why it did not count; `None` when it did.
    pub not_counted: Option<String>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// Enough people approved.
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
