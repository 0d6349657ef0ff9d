//! The tamper-evident record.

use crate::statement::Digest;

/// Identifies an intent until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(u64);

/// Proof that the ledger durably holds the entry for one statement.
#[derive(Debug)]
pub struct Receipt {
    intent: IntentId,
    digest: Digest,
}

impl Receipt {
    /// The intent.
    #[must_use]
    pub fn intent(&self) -> IntentId {
        self.intent
    }
    /// The statement's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    #[cfg(test)]
    pub(crate) fn for_test(intent: u64, digest: Digest) -> Self {
        Self { intent: IntentId(intent), digest }
    }
}
