//! The commands. Each has a file with its `Args` and a `run` that returns an exit code.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

pub mod cluster;

mod classify;
mod client;
mod document;
mod requests;
mod sessions;
mod status;
mod terminal;

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
    Requests(requests::Arguments),
    Sessions(sessions::Arguments),
    Status(status::Arguments),
}

/// Runs the command line. Exit code 2 is wrong usage or I/O; others are each command's own.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result: anyhow::Result<ExitCode> = match arguments.command {
        Command::Classify(arguments) => classify::run(arguments),
        Command::Requests(arguments) => requests::run(arguments),
        Command::Sessions(arguments) => sessions::run(arguments),
        Command::Status(arguments) => status::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("countersign: {error:#}");
        ExitCode::from(2)
    })
}
