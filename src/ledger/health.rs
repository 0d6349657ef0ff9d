//! Whether the ledger can write. While it cannot, nothing runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Why the ledger cannot write, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The wall clock when it began, nanoseconds since the Unix epoch.
    pub since: u64,
    /// In words, for the operator.
    pub reason: String,
    /// Space is what is missing.
    pub disk_full: bool,
}

/// One switch, read by every statement.
#[derive(Debug, Default)]
pub(crate) struct Health {
    degraded: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    /// What was turned away since the switch fell.
    refused: AtomicU64,
}

impl Health {
    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Acquire)
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }

    /// Whether space is what is missing, and counts one that was turned away.
    pub(crate) fn turn_away(&self) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.trouble.lock().as_ref().is_some_and(|trouble| trouble.disk_full)
    }

    /// Throws the switch. `true` when it was not thrown before.
    pub(crate) fn degrade(&self, trouble: Trouble) -> bool {
        let mut current = self.trouble.lock();
        if current.is_some() {
            return false;
        }
        tracing::error!(reason = %trouble.reason, "ledger degraded: nothing runs");
        *current = Some(trouble);
        self.refused.store(0, Ordering::Relaxed);
        self.degraded.store(true, Ordering::Release);
        true
    }

    /// How many were turned away so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lets statements through again.
    pub(crate) fn resume(&self) {
        *self.trouble.lock() = None;
        self.degraded.store(false, Ordering::Release);
        tracing::info!("ledger resumed");
    }
}
