//! How reviewers are reached.
