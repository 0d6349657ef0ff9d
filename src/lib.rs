//! Countersign: a Postgres proxy that makes AI agents ask before they do something privileged.
#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is read with its private items")]

pub mod actor;
pub mod approval;
pub mod channel;
pub mod classify;
pub mod cli;
pub mod config;
pub mod desk;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity;
pub mod ledger;
pub mod policy;
pub mod proxy;
pub mod refusal;
pub mod secrets;
pub mod session;
pub mod statement;
pub mod toml_reader;
pub mod web;
pub mod wire;

// Test support that the crate shares with the test binaries and benchmarks lives in `tests/support`. It
// names the crate as they do.
#[cfg(test)]
extern crate self as countersign;
#[cfg(test)]
#[path = "../tests/support/random.rs"]
mod random;
#[cfg(test)]
#[path = "../tests/support/samples.rs"]
mod samples;
