//! How reviewers are reached.
//!
//! A channel carries requests out and answers in. It never decides who a reviewer is
//! ([`identity`](crate::identity) does) nor what an answer means ([`approval::hold`](crate::approval)
//! does), and nothing waits for it: a chat service that is slow or down must not keep the console
//! from working, nor a statement from expiring.
//!
//! - [`answers`]: the way back, for channels on which people can answer.
//! - [`slack`][]: Slack.

pub mod answers;
pub mod slack;

use std::sync::Arc;

pub use crate::actor::ChannelName;
use crate::actor::GroupName;
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Review};
use crate::policy::Approval;
use crate::statement::RequestId;

/// A way to reach reviewers.
///
/// [`Channel::deliver`] must return at once: it puts the notice into an outbox of the channel's own,
/// which retries, orders and drops as its service needs. It may be told the same thing twice, when
/// it was too slow to hear everything in between; a notice about a request replaces earlier ones.
pub trait Channel: Send + Sync {
    /// Which it is.
    fn name(&self) -> ChannelName;

    /// Something happened that reviewers should see.
    fn deliver(&self, notice: &Notice);

    /// Whether reviewers can be reached through it now; for `status`.
    fn is_healthy(&self) -> bool {
        true
    }
}

/// What a channel is told.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A request waits: show its card.
    Opened {
        /// The request.
        request: Arc<Request>,
        /// Identical requests that wait behind it.
        behind: usize,
    },
    /// The number of identical requests that wait behind a card has changed.
    Joined {
        /// The request whose card is shown.
        request: Arc<Request>,
        /// How many wait behind it now.
        behind: usize,
    },
    /// Somebody answered, and it counted.
    Reviewed {
        /// The request.
        request: Arc<Request>,
        /// The answer.
        review: Review,
        /// Who is still missing.
        missing: Vec<Approval>,
    },
    /// A further group is told: because its time has come, or by somebody who did not wait for that.
    Escalated {
        /// The request.
        request: Arc<Request>,
        /// The group.
        to: GroupName,
        /// How many of the further groups have been told, this one included.
        told: usize,
    },
    /// It was granted, or ended.
    Ended {
        /// The request.
        request: Arc<Request>,
        /// How.
        state: HoldState,
    },
    /// The approved statement ran.
    Ran {
        /// The request.
        request: Arc<Request>,
        /// What it did.
        receipt: ReceiptJson,
    },
    /// A request of an earlier run of the proxy was closed as withdrawn; its card may still be shown.
    LeftOver {
        /// Its id, which is all that is known of it here.
        id: RequestId,
    },
}

impl Notice {
    /// The request it is about.
    #[must_use]
    pub fn id(&self) -> RequestId {
        match self {
            Self::Opened { request, .. }
            | Self::Joined { request, .. }
            | Self::Reviewed { request, .. }
            | Self::Escalated { request, .. }
            | Self::Ended { request, .. }
            | Self::Ran { request, .. } => request.id,
            Self::LeftOver { id } => *id,
        }
    }
}
