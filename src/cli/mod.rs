//! The commands. Each has a file with its `Args` and a `run` that returns an exit code.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

pub mod cluster;

mod agent;
mod check;
mod classify;
mod client;
mod demo;
mod document;
mod init;
mod key;
mod ledger;
mod log;
mod metrics;
mod policy;
mod reload;
mod requests;
mod reviewer;
mod serve;
mod sessions;
mod status;
mod terminal;
mod unseen;
mod views;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::config::edit::{EditError, Editor};
use crate::toml_reader::Problem;

/// Makes AI agents ask before they do something privileged on Postgres, and can prove it.
#[derive(Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Init(init::Arguments),
    Classify(classify::Arguments),
    Requests(requests::Arguments),
    Sessions(sessions::Arguments),
    Status(status::Arguments),
    /// Check, read and export a ledger
    Ledger(ledger::Arguments),
    /// Make, hand over and show a ledger's root key
    Key(key::Arguments),
    Serve(serve::Arguments),
    Check(check::Arguments),
    Policy(policy::Arguments),
    Agent(agent::Arguments),
    Reviewer(reviewer::Arguments),
}

/// Runs the command line. Exit code 2 is wrong usage or I/O; others are each command's own.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result: anyhow::Result<ExitCode> = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Classify(arguments) => classify::run(arguments),
        Command::Requests(arguments) => requests::run(arguments),
        Command::Sessions(arguments) => sessions::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Ledger(arguments) => ledger::run(arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Policy(arguments) => policy::run(arguments),
        Command::Agent(arguments) => agent::run(arguments),
        Command::Reviewer(arguments) => reviewer::run(arguments),
    };
    result.unwrap_or_else(|error| {
        terminal::complain(&format!("countersign: {error:#}"));
        ExitCode::from(2)
    })
}

/// Prints everything that is wrong with a file, one line each, and gives the exit code for it.
fn report_problems(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        terminal::complain(&problem.to_string());
    }
    ExitCode::from(2)
}

/// Prints what is wrong with a file; exit code 2.
fn print_problems(problems: &[Problem], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let problems: Vec<serde_json::Value> = problems
            .iter()
            .map(|problem| {
                json!({
                    "file": &*problem.file, "line": problem.line, "key": problem.key, "message": problem.message,
                })
            })
            .collect();
        writeln!(terminal::out(terminal::As::Json), "{}", json!({ "problems": problems }))?;
        return Ok(ExitCode::from(2));
    }
    Ok(report_problems(problems))
}

/// Edits the configuration at `path`. `Err` is the exit code when it was left as it was; why is
/// printed.
fn edit(
    path: &Path,
    change: impl FnOnce(&mut Editor) -> Result<(), EditError>,
) -> anyhow::Result<Result<(), ExitCode>> {
    let mut editor = Editor::open(path)?;
    match change(&mut editor).and_then(|()| editor.save()) {
        Ok(()) => Ok(Ok(())),
        Err(error @ (EditError::Io { .. } | EditError::Syntax { .. })) => Err(error.into()),
        Err(
            error @ (EditError::Inline(_)
            | EditError::Exists { .. }
            | EditError::Missing { .. }
            | EditError::Wrong(_)),
        ) => {
            terminal::complain(&format!("countersign: {error}"));
            Ok(Err(ExitCode::from(1)))
        }
    }
}

/// Says what was done, if it was.
fn report(
    done: Result<(), ExitCode>,
    file: &agent::ConfigFile,
    object: &serde_json::Value,
    sentence: &str,
) -> anyhow::Result<ExitCode> {
    if let Err(code) = done {
        return Ok(code);
    }
    let mut out = terminal::out(terminal::As::of(file.json));
    if file.json {
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{sentence}")?;
    }
    Ok(ExitCode::SUCCESS)
}
