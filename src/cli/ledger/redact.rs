//! `ledger redact`: deletes texts, keeps the proof that there were some.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::ledger::entry::{Entry, Key};
use crate::ledger::read::Reader;
use crate::ledger::{Ledger, Settings, inbox};

/// Delete the texts of entries (SQL, parameters, reasons), for good
///
/// The entries and their commitments stay, and the redaction is an entry itself: who, when, why, what. The same
/// statement may have been recorded more than once (its request, its refusal, its run): look for it with
/// `ledger query --contains` and redact each.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The ledger
    file: PathBuf,
    /// The numbers of the entries
    #[arg(required = true)]
    seqs: Vec<u64>,
    /// Which texts (sql, parameters, digest, reason, difference, signed, `reviewer_signature`); all that there
    /// are when not given
    #[arg(long = "field", value_name = "NAME")]
    fields: Vec<String>,
    /// Why
    #[arg(long)]
    reason: String,
    /// The root's private key, when it is not beside the ledger and no proxy is running
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let fields = wanted(arguments)?;
    if fields.is_empty() {
        println!("nothing to redact: those entries have no texts, or they are gone already");
        return Ok(ExitCode::SUCCESS);
    }
    let note = inbox::Note::Redact { reason: arguments.reason.clone(), fields: fields.clone() };
    match inbox::leave(&arguments.file, &note)? {
        Some(path) => {
            if !inbox::wait(&path, Duration::from_secs(10)) {
                // Taken back, so that it does not happen behind the operator's back some time later.
                let _ = std::fs::remove_file(&path);
                bail!("the running proxy did not take it in; is its ledger degraded?");
            }
        }
        None => {
            let mut settings = Settings::new(&arguments.file);
            settings.key.clone_from(&arguments.private_key);
            let ledger = Ledger::open(&settings).context("cannot write to the ledger")?;
            ledger.append(note.into_event(inbox::whoever_runs_this()))?;
            ledger.close();
        }
    }
    if !is_gone(arguments, &fields)? {
        bail!("the texts are still there");
    }
    println!("redacted {} texts", fields.len());
    Ok(ExitCode::SUCCESS)
}

/// The texts that are to go: those of the entries that are there and were asked for.
fn wanted(arguments: &Arguments) -> anyhow::Result<Vec<(u64, u64)>> {
    let reader = Reader::open(&arguments.file)?;
    let named = |name: &String| {
        let key = Key::ALL.iter().copied().find(|key| key.name() == name.as_str());
        key.with_context(|| format!("\"{name}\" is not a field"))
    };
    let only: Vec<Key> = arguments.fields.iter().map(named).collect::<anyhow::Result<_>>()?;
    let mut wanted = Vec::new();
    for seq in &arguments.seqs {
        let stored = reader.entry(*seq)?;
        let entry = Entry::parse(&stored.body)?;
        for (key, _) in entry.commitments() {
            let asked_for = only.is_empty() || only.contains(&key);
            if asked_for && reader.text(*seq, key)?.is_some() {
                wanted.push((*seq, key.into()));
            }
        }
    }
    Ok(wanted)
}

/// Whether they are gone; the writer takes a moment.
fn is_gone(arguments: &Arguments, fields: &[(u64, u64)]) -> anyhow::Result<bool> {
    for _ in 0..100 {
        let reader = Reader::open(&arguments.file)?;
        let mut there = false;
        for (seq, field) in fields {
            let key = Key::from_number(*field).context("a field")?;
            there |= reader.text(*seq, key)?.is_some();
        }
        if !there {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
