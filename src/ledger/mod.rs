//! The tamper-evident record.
