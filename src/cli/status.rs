//! `countersign status`: how a running proxy is.
//!
//! Exit codes: 0 everything works; 1 something does not; 2 wrong usage, no connection, not signed in;
//! 4 this credential may not.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Server, Told, refuse, text};
use super::terminal;
use super::terminal::{line, moment};

/// Show how a running proxy is
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let server = arguments.server;
    let status = match server.connect()?.get(&["status"], &[])? {
        Told::Yes(status) => status,
        Told::No(no) => return Ok(refuse(&no, server.json)),
    };
    let mut out = terminal::out(terminal::As::of(server.json));
    if server.json {
        writeln!(out, "{status}")?;
    } else {
        write!(out, "{}", told(&status))?;
    }
    let is_healthy = status.get("healthy").and_then(Value::as_bool).unwrap_or_default();
    Ok(ExitCode::from(u8::from(!is_healthy)))
}

fn told(status: &Value) -> String {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let words = |pointer: &str| line(status.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let healthy = status.get("healthy").and_then(Value::as_bool).unwrap_or_default();
    let mut out = String::new();
    let mut say = |label: &str, value: String| {
        let _ = writeln!(out, "{label:<10} {value}");
    };
    say("countersign", format!("{}, {}", words("/version"), if healthy { "healthy" } else { "NOT healthy" }));
    say("since", moment(status.pointer("/started_at").and_then(Value::as_str).unwrap_or_default()));
    let writable = status.pointer("/ledger/writable").and_then(Value::as_bool).unwrap_or_default();
    let mut ledger = if writable { "writing".to_owned() } else { "NOT writing, so nothing runs".to_owned() };
    let _ = write!(ledger, ", {} entries under the last checkpoint", number("/ledger/size"));
    if let Some(trouble) = status.pointer("/ledger/trouble").and_then(Value::as_str) {
        let _ = write!(ledger, "; {}", line(trouble));
    }
    say("ledger", ledger);
    let anchors = status.pointer("/ledger/anchors").and_then(Value::as_array);
    for anchor in anchors.into_iter().flatten() {
        let size = anchor.get("size").and_then(Value::as_u64).unwrap_or_default();
        say("anchor", format!("{}: {size} entries", line(text(anchor, "name"))));
    }
    let digest = words("/policy/digest");
    say(
        "policy",
        format!("{} rules, {} cases, digest {}", number("/policy/rules"), number("/policy/cases"), digest),
    );
    say("requests", format!("{} waiting", number("/requests/waiting")));
    say("sessions", format!("{} open, {} held", number("/sessions/open"), number("/sessions/held")));
    for (list, label) in [("upstreams", "upstream"), ("channels", "channel")] {
        for part in status.get(list).and_then(Value::as_array).into_iter().flatten() {
            let works = part.get("healthy").and_then(Value::as_bool).unwrap_or_default();
            let note = match text(part, "note") {
                "" => String::new(),
                note => format!(": {}", line(note)),
            };
            say(
                label,
                format!(
                    "{} {}{note}",
                    line(text(part, "name")),
                    if works { "works" } else { "does NOT work" }
                ),
            );
        }
    }
    out
}
