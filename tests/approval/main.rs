//! The main job, end to end: a statement waits for a human, runs exactly once or not at all, and the
//! ledger proves it. Each promise of the threat model is a test by its number.
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
mod policies;
mod promises;
#[path = "../support/mod.rs"]
mod support;

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{AGENT, ALICE, BOB, CAROL, Setup, Stack, TOKEN, ended, signal, text, wait_for};

fn state_of(stack: &Stack, request: &Value) -> String {
    let (status, view) =
        stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    assert_eq!(status, 200, "{view}");
    view["state"].as_str().unwrap().to_owned()
}

fn exists(stack: &Stack, table: &str) -> bool {
    stack.superuser(&format!("select to_regclass('{table}') is not null")) == "t"
}
