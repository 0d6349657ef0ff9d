//! `countersign sessions`: agents that are connected, and ending a session.
//!
//! Exit codes: 0 done; 2 wrong usage, no connection, not signed in; 4 this credential may not; 5
//! there is no such session.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Server, Told, refuse, text};
use super::terminal;
use super::terminal::{line, moment, plain, table};

/// List the agents' sessions, or end one
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: Server,
}

#[derive(Subcommand)]
enum Command {
    /// List the sessions that are open
    List,
    /// End a session; its open transaction is rolled back
    Kill {
        /// The session's id
        id: String,
    },
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { command, server } = arguments;
    let api = server.connect()?;
    let told = match &command {
        Command::List => api.get(&["sessions"], &[])?,
        Command::Kill { id } => api.post(&["sessions", id, "kill"], &json!({}))?,
    };
    let told = match told {
        Told::Yes(told) => told,
        Told::No(no) => return Ok(refuse(&no, server.json)),
    };
    let mut out = terminal::out(terminal::As::of(server.json));
    match command {
        _ if server.json => writeln!(out, "{told}")?,
        Command::Kill { id } => writeln!(out, "{}: ended", plain(&id))?,
        Command::List => write!(out, "{}", listed(&told))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(sessions: &Value) -> String {
    let sessions = sessions.as_array().map(Vec::as_slice).unwrap_or_default();
    if sessions.is_empty() {
        return "Nobody is connected.\n".to_owned();
    }
    let row = |session: &Value| {
        let field = |name: &str| match text(session, name) {
            "" => "-".to_owned(),
            text => line(text),
        };
        let statements = session.get("statements").and_then(Value::as_u64).unwrap_or_default();
        let mut row: Vec<String> = ["id", "agent", "upstream", "activity", "request"].map(field).into();
        row.push(statements.to_string());
        row.extend([field("client_address"), moment(text(session, "opened_at"))]);
        row
    };
    let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    table(&["ID", "AGENT", "UPSTREAM", "DOING", "REQUEST", "STATEMENTS", "FROM", "SINCE"], &rows)
}
