//! What users of other proxies have complained about (PgBouncer, pgcat, Odyssey, Supavisor, RDS Proxy),
//! each as a test: real Postgres, real sockets, through the real binary.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
mod holds;
mod pipelines;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use support::wire::{
    Wire, bind, cancel, close, describe, execute, extended, flush, frame, parse, query, sync,
};
use support::{AGENT, BOB, Setup, Stack, TOKEN, text, wait_for};

/// The same server without a proxy, as the role that the proxy logs in with.
fn direct(stack: &Stack) -> Wire {
    let parameters = [("user", "app"), ("database", "postgres"), ("application_name", "direct")];
    Wire::connect(stack.cluster.port(), &parameters, "upstream-secret")
}
