//! `countersign ledger ..`: for auditors and operators.

mod entry;
mod export;
mod proof;
mod query;
mod redact;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use crate::cli::terminal;
use crate::ledger::inbox;
use crate::ledger::read::Reader;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Check, read and export a ledger
#[derive(Subcommand)]
enum Command {
    Verify(verify::Arguments),
    Export(export::Arguments),
    Query(query::Arguments),
    Show(entry::ShowArguments),
    Tail(entry::TailArguments),
    Anchor(proof::AnchorArguments),
    Prove(proof::ProveArguments),
    Redact(redact::Arguments),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Query(arguments) => query::run(&arguments),
        Command::Show(arguments) => entry::show(&arguments),
        Command::Tail(arguments) => entry::tail(&arguments),
        Command::Anchor(arguments) => proof::anchor(&arguments),
        Command::Prove(arguments) => proof::prove(&arguments),
        Command::Redact(arguments) => redact::run(&arguments),
    }
}

/// Opens a ledger, and tells the proxy that runs it, if one does, that it was read and what for: that
/// becomes an entry. A copy is read without a trace; `docs/ledger-format.md` says so.
fn open(path: &Path, what: &str, from: Option<u64>, to: Option<u64>) -> anyhow::Result<Reader> {
    let reader = Reader::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let note = inbox::Note::Read { what: what.to_owned(), from, to };
    if let Err(error) = inbox::leave(path, &note) {
        terminal::complain(&format!("countersign: the proxy could not be told of this reading: {error}"));
    }
    Ok(reader)
}

/// Tells of everything that a command came across which is not as it was recorded, and gives the exit
/// code: that of `ledger verify` for the first of it.
fn damage_report(reader: &Reader) -> ExitCode {
    let damage = reader.damage();
    for (seq, damage) in damage.iter().take(20) {
        terminal::complain(&format!("countersign: entry {seq}: {damage}"));
    }
    match damage.first_key_value() {
        Some((_, first)) => {
            terminal::complain("countersign: this ledger was altered; see countersign ledger verify");
            ExitCode::from(first.code() as u8)
        }
        None => ExitCode::SUCCESS,
    }
}

/// Writes to a file that must not exist yet, or to standard output.
fn write_out(output: Option<&Path>, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match output {
        Some(path) => {
            let mut file = std::fs::File::create_new(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            file.write_all(text.as_bytes())?;
        }
        None => terminal::out(terminal::As::Text).write_all(text.as_bytes())?,
    }
    Ok(())
}
