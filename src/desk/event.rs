//! What the desk tells its listeners.

use std::sync::Arc;

use crate::actor::GroupName;
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Review};
use crate::policy::Approval;
use crate::statement::RequestId;

/// Something that happened to a request. A later event about the same request replaces earlier ones.
#[derive(Clone, Debug)]
pub enum DeskEvent {
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
        /// The approvals that are still missing.
        missing: Vec<Approval>,
    },
    /// A further group is notified: its time has come, or somebody escalated before that.
    Escalated {
        /// The request.
        request: Arc<Request>,
        /// The group.
        to: GroupName,
        /// How many of the further groups have been notified, this one included.
        notified: usize,
    },
    /// It was granted, or ended.
    Ended {
        /// The request.
        request: Arc<Request>,
        /// The state that it is in now.
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
        /// Its id. Nothing else is known of it here.
        id: RequestId,
    },
}

impl DeskEvent {
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
