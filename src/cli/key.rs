//! `countersign key ..`: the root key of a ledger.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::terminal;
use crate::ledger::key::{HandOver, KeyFiles, PublicRoot, RootKey, with_suffix, write_new};
use crate::ledger::{Ledger, Settings, is_live};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Make, hand over and show a ledger's root key
#[derive(Subcommand)]
enum Command {
    /// Make a root key: `ledger.key` (mode 0600) and `ledger.pub` in a directory, or as named
    Init {
        /// A directory, or the file for the private key
        path: PathBuf,
        /// The ledger's name, best a host name and a path (`db.example.com/countersign`)
        #[arg(long)]
        origin: String,
    },
    /// Replace the root key; the next start of the proxy records the change
    ///
    /// Both keys sign the hand-over, so an auditor who has either public key can check the whole ledger. The old
    /// private key is kept with `.old` appended: destroy it once the next start has recorded the hand-over. (Epoch
    /// keys, which sign entries, change by themselves every hour and at each start.)
    Rotate {
        /// The private key in use
        key: PathBuf,
        /// The ledger it belongs to
        #[arg(long)]
        ledger: PathBuf,
    },
    /// Show a public key
    Show {
        /// The public or the private key's file
        path: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Init { path, origin } => init(path, origin),
        Command::Rotate { key, ledger } => rotate(key, ledger),
        Command::Show { path, json } => show(path, *json),
    }
}

fn init(path: &std::path::Path, origin: &str) -> anyhow::Result<ExitCode> {
    let private = if path.is_dir() { path.join("ledger.key") } else { path.to_owned() };
    let files = KeyFiles::of_private(&private);
    let key = RootKey::generate(origin)?;
    key.save(&files)?;
    terminal::say(&key.public().to_text());
    let (private, public) = (files.private.display(), files.public.display());
    terminal::complain(&format!("private key: {private} (mode 0600; whoever has it can write history)"));
    terminal::complain(&format!("public key:  {public} (give it to your auditors now)"));
    Ok(ExitCode::SUCCESS)
}

fn rotate(private: &std::path::Path, ledger: &std::path::Path) -> anyhow::Result<ExitCode> {
    if is_live(ledger) {
        bail!("stop the proxy first: it would go on with the old key");
    }
    let hand_over_file = HandOver::file(ledger);
    if hand_over_file.exists() {
        bail!("{} waits for the next start already", hand_over_file.display());
    }
    let files = files_of(private, ledger);
    let old = RootKey::load(&files)?;
    // What a crash left in the spool can only be read with the old key.
    let mut settings = Settings::new(ledger);
    settings.key = Some(files.private.clone());
    Ledger::open(&settings).context("bringing the ledger up to date")?.close();
    let new = RootKey::generate(old.origin())?;
    let kept =
        KeyFiles { private: with_suffix(&files.private, "old"), public: with_suffix(&files.public, "old") };
    for file in [&kept.private, &kept.public] {
        if file.exists() {
            bail!("{} of an earlier hand-over is still there; destroy it first", file.display());
        }
    }
    // In this order a crash leaves either the old key in place, or everything that the next start needs.
    let next =
        KeyFiles { private: with_suffix(&files.private, "next"), public: with_suffix(&files.public, "next") };
    for file in [&next.private, &next.public] {
        let _ = std::fs::remove_file(file);
    }
    new.save(&next)?;
    write_new(&hand_over_file, HandOver::prepare(&old, &new).to_text().as_bytes(), 0o644)?;
    let moved = [
        (&files.private, &kept.private),
        (&files.public, &kept.public),
        (&next.private, &files.private),
        (&next.public, &files.public),
    ];
    for (from, to) in moved {
        std::fs::rename(from, to).with_context(|| format!("moving {}", from.display()))?;
    }
    terminal::say(&new.public().to_text());
    let kept = kept.private.display();
    terminal::complain(&format!("the next start of the proxy records the hand-over; then destroy {kept}"));
    Ok(ExitCode::SUCCESS)
}

/// The key in use: named by its file, and by either of the two customs of naming the public half.
fn files_of(private: &std::path::Path, ledger: &std::path::Path) -> KeyFiles {
    let beside = KeyFiles::beside(ledger);
    if beside.private == private { beside } else { KeyFiles::of_private(private) }
}

fn show(path: &std::path::Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let public = match PublicRoot::load(path) {
        Ok(public) => public,
        Err(_) => PublicRoot::load(&KeyFiles::of_private(path).public)
            .with_context(|| format!("{} is no public key, and there is none beside it", path.display()))?,
    };
    if as_json {
        let key = hex::encode(public.key.as_bytes());
        terminal::say_json_laid_out(
            &json!({ "origin": public.origin, "id": public.fingerprint(), "key": key, "text": public.to_text() }),
        );
    } else {
        terminal::say(&public.to_text());
    }
    Ok(ExitCode::SUCCESS)
}
