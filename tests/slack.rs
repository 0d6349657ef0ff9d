//! Slack, against a Slack of our own: cards, clicks, outages, and people who cheat.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]

#[path = "support/slack/mod.rs"]
mod fake;
#[path = "support/slack_fixture.rs"]
mod fixture;
#[path = "support/samples.rs"]
mod samples;
#[path = "support/mod.rs"]
mod support;

#[path = "slack/answers.rs"]
mod answers;
#[path = "slack/cheats.rs"]
mod cheats;
#[path = "slack/display.rs"]
mod display;
#[path = "slack/outages.rs"]
mod outages;
#[path = "slack/record.rs"]
mod record;
#[path = "slack/secrets.rs"]
mod secrets;
#[path = "slack/whole.rs"]
mod whole;

const APPROVE: &str = "countersign.approve";
const DENY: &str = "countersign.deny";
const ESCALATE: &str = "countersign.escalate";
const OPEN: &str = "countersign.open";
