//! Countersign: a Postgres proxy that makes AI agents ask before they do something privileged, and that
//! records every statement in a ledger that anybody can verify.
//!
//! # How a statement travels
//!
//! ```text
//!  agent            proxy (sockets)            session (no I/O)           classify, policy (pure)
//!  ─────            ───────────────            ────────────────           ───────────────────────
//!  bytes ─────────▶ reads the socket ────────▶ frames, unit
//!                                              Submit(statement) ───────▶ Classification ─▶ Decision
//!                                                                                              │
//!            allow: ledger records the intent ◀────────────────────────────────────────────────┤
//!             hold: desk opens a request, channels show it, people answer: Grant ─▶ ledger ◀───┤
//!             deny: ledger records the refusal ◀───────────────────────────────────────────────┘
//!                                              │
//!                   Receipt or Refusal ───────▶ resolve
//!  answer ◀──────── upstream ◀──────────────── the agent's own bytes, or a substitute that must fail
//!                   outcome ─────────────────▶ ledger
//! ```
//!
//! Two types keep the central promises at compile time. A [`Receipt`](ledger::Receipt) proves that the
//! intent is durable; without one the session forwards nothing. A [`Grant`](approval::Grant) is permission
//! for one statement, once; the ledger records a held statement only together with one.
//!
//! # Modules
//!
//! Pure: values in, values out, no sockets and no clock. The ledger's storage is the exception.
//!
//! - [`actor`], [`statement`], [`refusal`]: who asks, what is asked, and how the proxy refuses.
//! - [`secrets`]: which names and texts hold passwords and keys.
//! - [`wire`]: Postgres protocol 3, bytes to messages and back.
//! - [`session`]: one proxied session as a state machine.
//! - [`classify`]: what a statement does, by Postgres's own grammar.
//! - [`policy`]: rules; agent, target and classification to a decision.
//! - [`approval`]: requests, verdicts, quorum, grants.
//! - [`ledger`]: the tamper-evident record, and its verification.
//! - [`toml_reader`]: TOML files whose mistakes are all reported at once.
//!
//! The shell, on tokio:
//!
//! - [`proxy`]: sockets, TLS and logins; drives each session.
//! - [`desk`]: where held statements wait; owns requests and timers.
//! - [`identity`]: how agents and reviewers prove who they are.
//! - [`channel`]: how reviewers are reached.
//! - [`web`]: the console and the REST API.
//! - [`config`], [`cli`]: the configuration file; the commands.
//!
//! `tests/architecture.rs` holds the table of who may import whom. `docs/architecture.md` says where to begin
//! for a change, `CONTRIBUTING.md` how to build and test it.
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
