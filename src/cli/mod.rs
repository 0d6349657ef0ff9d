//! The commands. Each has a file with its `Args` and a `run` that returns an exit code.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

pub mod cluster;

mod classify;
mod key;
mod ledger;
mod reload;
mod serve;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Makes AI agents ask before they do something privileged on Postgres, and can prove it.
#[derive(Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Classify(classify::Arguments),
    /// Check, read and export a ledger
    Ledger(ledger::Arguments),
    /// Make, hand over and show a ledger's root key
    Key(key::Arguments),
    Serve(serve::Arguments),
}

/// Runs the command line. Exit code 2 is wrong usage or I/O; others are each command's own.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result: anyhow::Result<ExitCode> = match arguments.command {
        Command::Classify(arguments) => classify::run(arguments),
        Command::Ledger(arguments) => ledger::run(arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Serve(arguments) => serve::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("countersign: {error:#}");
        ExitCode::from(2)
    })
}

/// Sends the program's own log to standard error; `RUST_LOG` says how much of it.
fn logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only when a log has been set up already, as when the demo serves.
    let _ = subscriber.with_ansi(std::io::stderr().is_terminal()).try_init();
}

/// Prints everything that is wrong with a file, one line each, and gives the exit code for it.
fn report_problems(problems: &[crate::toml_reader::Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    ExitCode::from(2)
}
