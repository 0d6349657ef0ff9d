//! Real servers and real clients: what agents see of the protocol.
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
mod denials;
mod settings;
mod start;
mod statements;
#[path = "../support/mod.rs"]
mod support;

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use support::wire::{self, Wire};
use support::{AGENT, BOB, Setup, Stack, TOKEN, signal, text, wait_for};

/// What no server parses, and what only servers of other versions than our grammar's do.
const UNPARSED: [&str; 9] = [
    "\\set VERBOSITY verbose",
    "selec 1",
    "select 1; selec 2; select 3",
    r"select U&'wrong: \061'",
    "drop operator === (int4)",
    "create publication p for current_schema",
    "alter table orders alter constraint c not valid",
    "select 'open",
    "select 1_2_3, 0x",
];
