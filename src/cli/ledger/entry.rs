//! `ledger show` and `ledger tail`: entries for people.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::terminal::{self, block, line};
use crate::ledger::display::{display, display_time};
use crate::ledger::entry::{Key, Kind, Shape};
use crate::ledger::export;
use crate::ledger::key::PublicRoot;
use crate::ledger::read::{ReadError, Reader, Stored, Text, field_name};
use crate::ledger::verify::key_beside;

/// Show one entry: every field, its texts, and how far it is proved
///
/// Each text is checked against the entry's commitment, and the entry against the ledger's tree. Damaged data is
/// not shown; the exit code is then the one of `ledger verify` (12 missing entry, 13 missing
/// signature, 15 entry, 18 missing end, 20 text).
#[derive(clap::Args)]
pub(super) struct ShowArguments {
    /// The ledger file: the live one or a copy
    file: PathBuf,
    /// The number of the entry
    seq: u64,
    /// The root's public key; without it, the one beside the ledger is used
    #[arg(long, value_name = "PUB")]
    key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Show the newest entries; with -f, also new ones as they are recorded
#[derive(clap::Args)]
pub(super) struct TailArguments {
    /// The ledger file: the live one or a copy
    file: PathBuf,
    /// How many of the newest entries to show
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: u64,
    /// Keep running and print new entries as they are recorded
    #[arg(long, short)]
    follow: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

pub(super) fn show(arguments: &ShowArguments) -> anyhow::Result<ExitCode> {
    let seq = arguments.seq;
    let reader = super::open(&arguments.file, "ledger show", Some(seq), Some(seq))?;
    let stored = match reader.entry(seq) {
        Err(ReadError::NoEntry(_)) if !reader.damage().is_empty() => {
            return Ok(super::damage_report(&reader));
        }
        found => found?,
    };
    let key = arguments.key.clone().unwrap_or_else(|| key_beside(&arguments.file));
    let proved = proof_status(&reader, &stored, PublicRoot::load(&key).ok().as_ref());
    if arguments.json {
        let mut object = export::to_json(&reader, &stored)?;
        if let Some(object) = object.as_object_mut() {
            object.insert("proof".to_owned(), proved.into());
        }
        terminal::say_json_laid_out(&object);
    } else {
        let text = details(&reader, &stored)? + &format!("{:<18} {}", "proof", block(&proved, MARGIN));
        terminal::say(&text);
    }
    Ok(super::damage_report(&reader))
}

/// Where values begin.
const MARGIN: usize = 19;

/// One line on what vouches for the entry.
fn proof_status(reader: &Reader, stored: &Stored, root: Option<&PublicRoot>) -> String {
    let signature = match reader.signature_holds(stored) {
        Ok(Some(true)) => "its signature holds",
        Ok(Some(false)) => "ITS SIGNATURE DOES NOT HOLD",
        Ok(None) if stored.lacks_signature => "ITS SIGNATURE IS MISSING",
        Ok(None) => "it has no signature of its own",
        Err(_) => "its signature cannot be checked",
    };
    let inclusion = match (reader.proof(stored.seq), root) {
        (Ok(proof), Some(root)) => match proof.verify(root) {
            Ok(head) => format!(
                "it is in the tree of {} entries, whose checkpoint the root {} vouches for",
                head.size,
                root.fingerprint()
            ),
            Err(error) => format!("IT IS NOT PROVED: {error}"),
        },
        (Ok(_), None) => "there is no root key to check the checkpoint with".to_owned(),
        (Err(error), _) => format!("IT IS NOT PROVED: {error}"),
    };
    format!("{signature}; {inclusion}")
}

fn details(reader: &Reader, stored: &Stored) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<18} {}\n", block(value, MARGIN)));
    };
    line("entry", &stored.seq.to_string());
    match stored.entry() {
        Ok(entry) => {
            line("kind", entry.kind().name());
            for (number, value) in entry.fields() {
                match Key::from_number(*number) {
                    Some(Key::V | Key::Kind | Key::Seq) => {}
                    Some(key) if key.shape() == Shape::Commitment => {
                        let shown = match reader.text(&entry, key)? {
                            Text::Kept(bytes) => printable(key, &bytes),
                            Text::NotStored => "(committed to; the salt is not stored)".to_owned(),
                            Text::Redacted => "(redacted)".to_owned(),
                            Text::Deleted => "(DELETED: no redaction entry names this text)".to_owned(),
                            Text::Damaged => {
                                "(DAMAGED: not the text that was recorded; not shown)".to_owned()
                            }
                        };
                        line(key.name(), &shown);
                    }
                    Some(key) => line(key.name(), &display(key, key.shape(), value)),
                    None => line(&field_name(*number), "(a remark)"),
                }
            }
        }
        Err(error) => line("DAMAGED", &error.to_string()),
    }
    line("leaf", &stored.leaf().to_string());
    Ok(text)
}

/// A text as it was; anything else in hexadecimal.
fn printable(key: Key, bytes: &[u8]) -> String {
    let is_text = matches!(key, Key::Sql | Key::Reason | Key::Difference);
    match std::str::from_utf8(bytes) {
        Ok(text) if is_text => text.to_owned(),
        _ => hex::encode(bytes),
    }
}

pub(super) fn tail(arguments: &TailArguments) -> anyhow::Result<ExitCode> {
    let what = if arguments.follow { "ledger tail -f" } else { "ledger tail" };
    let reader = super::open(&arguments.file, what, None, None)?;
    let mut next = reader.size()?.saturating_sub(arguments.lines);
    let mut output = terminal::out(terminal::As::of(arguments.json));
    loop {
        let size = reader.size()?;
        if size > next {
            reader.each::<anyhow::Error>(next, size - 1, |stored| {
                if arguments.json {
                    writeln!(output, "{}", export::to_json(&reader, &stored)?)?;
                } else {
                    writeln!(output, "{}", summary(&reader, &stored)?)?;
                }
                Ok(())
            })?;
            output.flush()?;
            next = size;
        }
        if !arguments.follow {
            return Ok(super::damage_report(&reader));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// An entry in one line.
#[expect(clippy::wildcard_enum_match_arm, reason = "of most kinds the same few fields are of interest")]
fn summary(reader: &Reader, stored: &Stored) -> anyhow::Result<String> {
    let entry = match stored.entry() {
        Ok(entry) => entry,
        Err(error) => return Ok(format!("{:>8}  DAMAGED: {error}", stored.seq)),
    };
    let interesting: &[Key] = match entry.kind() {
        Kind::Statement | Kind::Refused => {
            &[Key::Agent, Key::Class, Key::Clearance, Key::Refusal, Key::Ending, Key::Tag, Key::SqlState]
        }
        Kind::Outcome => &[Key::Ref, Key::Ending, Key::Tag, Key::SqlState],
        Kind::RequestOpened => &[Key::Agent, Key::Class, Key::Approvals],
        Kind::Review => &[Key::Reviewer, Key::Verdict, Key::Channel, Key::WhyNot],
        Kind::RequestClosed => &[Key::State, Key::What],
        Kind::GrantUsed => &[Key::Agent, Key::ApprovedBy],
        Kind::SessionOpened => &[Key::Agent, Key::Address, Key::Upstream],
        Kind::CheckpointRef | Kind::Anchored => &[Key::TreeSize, Key::Anchor],
        Kind::KeyEpoch => &[Key::Epoch],
        _ => &[Key::What, Key::By, Key::Group, Key::Count],
    };
    let mut words: Vec<String> = interesting
        .iter()
        .filter_map(|key| entry.value(*key).map(|value| line(&display(*key, key.shape(), value))))
        .collect();
    if entry.has(Key::Sql) {
        words.push(match reader.text(&entry, Key::Sql)? {
            Text::Kept(sql) => {
                super::query::one_line(&String::from_utf8_lossy(&sql)).chars().take(100).collect()
            }
            Text::NotStored | Text::Redacted => "(redacted)".to_owned(),
            Text::Deleted => "(DELETED text)".to_owned(),
            Text::Damaged => "(DAMAGED text)".to_owned(),
        });
    }
    let time = display_time(entry.uint(Key::Wall).unwrap_or_default());
    Ok(format!("{:>8}  {time}  {:<16} {}", stored.seq, entry.kind().name(), words.join("  ")))
}
