//! What the desk needs of the ledger.

use crate::approval::request::TreeHead;
use crate::ledger::{Event, Ledger, LedgerError};

/// Writes down what happens at the desk, before it takes effect. The ledger is one; tests have one
/// that fails on demand.
pub trait Recorder: Send + Sync {
    /// Writes one event. When this returns, it is durable.
    fn append(&self, event: Event) -> Result<(), Unrecorded>;

    /// The last signed tree head, which every request shows.
    fn head(&self) -> Option<TreeHead>;
}

/// The event was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot write")]
pub struct Unrecorded {
    /// Because its disk is full.
    pub disk_full: bool,
}

impl From<LedgerError> for Unrecorded {
    fn from(error: LedgerError) -> Self {
        Self { disk_full: error.is_disk_full() }
    }
}

impl Recorder for Ledger {
    fn append(&self, event: Event) -> Result<(), Unrecorded> {
        Ok(Self::append(self, event)?)
    }

    fn head(&self) -> Option<TreeHead> {
        Self::head(self)
    }
}
