//! `ledger anchor` and `ledger prove`: small texts that vouch for a ledger elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::terminal;
use crate::ledger::entry::Entry;
use crate::ledger::key::PublicRoot;
use crate::ledger::proof::Proof;
use crate::ledger::verify::key_beside;

/// Print the newest checkpoint, to be kept elsewhere
///
/// Anybody who has it can show later that entries before it were changed or are missing: give it to
/// `ledger verify --anchor`.
#[derive(clap::Args)]
pub(super) struct AnchorArguments {
    /// The ledger
    file: PathBuf,
    /// Write to this new file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prove that one entry is in the ledger, without giving away the rest; or check such a proof
///
/// Exit code 0 when the proof was made or holds, 14 when its checkpoint does not hold, 15 when it does not lead to
/// the root, 2 when something cannot be read.
#[derive(clap::Args)]
pub(super) struct ProveArguments {
    /// The ledger, or with --check the proof
    file: PathBuf,
    /// The number of the entry
    #[arg(required_unless_present = "check")]
    seq: Option<u64>,
    /// Write to this new file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Check a proof, with nothing but the root's public key
    #[arg(long, requires = "key")]
    check: bool,
    /// The root's public key
    #[arg(long, value_name = "PUB")]
    key: Option<PathBuf>,
}

pub(super) fn anchor(arguments: &AnchorArguments) -> anyhow::Result<ExitCode> {
    // Not recorded as a reading: nothing of what the ledger holds is in it.
    let reader = crate::ledger::read::Reader::open(&arguments.file)
        .with_context(|| format!("cannot read {}", arguments.file.display()))?;
    super::write_out(arguments.output.as_deref(), &reader.checkpoint()?.to_text())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn prove(arguments: &ProveArguments) -> anyhow::Result<ExitCode> {
    if arguments.check {
        return check(arguments);
    }
    let seq = arguments.seq.context("which entry?")?;
    let reader = super::open(&arguments.file, "ledger prove", Some(seq), Some(seq))?;
    super::write_out(arguments.output.as_deref(), &reader.proof(seq)?.to_text())?;
    Ok(ExitCode::SUCCESS)
}

fn check(arguments: &ProveArguments) -> anyhow::Result<ExitCode> {
    use crate::ledger::proof::ProofFailure;
    let path = arguments.key.clone().unwrap_or_else(|| key_beside(&arguments.file));
    let root = PublicRoot::load(&path)?;
    let text = std::fs::read_to_string(&arguments.file)
        .with_context(|| format!("cannot read {}", arguments.file.display()))?;
    match Proof::parse(&text).and_then(|proof| Ok((proof.verify(&root)?, proof))) {
        Ok((head, proof)) => {
            let kind = Entry::parse(&proof.body).map_or("unreadable", |entry| entry.kind().name());
            terminal::say(&format!(
                "PROVED: entry {} ({kind}) is in the ledger \"{}\" of {} entries, by root key {}",
                proof.index,
                root.origin,
                head.size,
                root.fingerprint()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            terminal::say(&format!("NOT PROVED: {failure}"));
            Ok(ExitCode::from(match failure {
                ProofFailure::Malformed | ProofFailure::Note(_) => 14,
                ProofFailure::Path(_) => 15,
            }))
        }
    }
}
