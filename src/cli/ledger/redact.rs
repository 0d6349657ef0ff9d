//! `ledger redact`: deletes texts, keeps the proof that there were some.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cli::terminal;
use crate::ledger::entry::Key;
use crate::ledger::inbox::Answer;
use crate::ledger::read::{Reader, Text};
use crate::ledger::{Ledger, Settings, inbox, purge};

/// Delete the texts of entries (SQL, parameters, reasons), for good
///
/// The entries and their commitments stay, and the redaction is an entry itself: who, when, why, what. The same
/// statement may have been recorded more than once (its request, its refusal, its run): look for it with
/// `ledger query --contains` and redact each. What the signed entries themselves say, such as the names of
/// tables, cannot be taken out.
///
/// Exit codes: 0 when the texts are in no file of the ledger any more; 1 when the redaction is recorded and a
/// file may still hold a text; 2 when nothing was done.
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

/// How long the running proxy may take until a text is gone from every file.
const LIMIT: Duration = Duration::from_secs(15);

/// A text that is to go: its entry, its field, and what it is.
struct Wanted {
    seq: u64,
    field: u64,
    value: Vec<u8>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let wanted = wanted(arguments)?;
    if wanted.is_empty() {
        terminal::say("nothing to redact: those entries have no texts, or they are gone already");
        return Ok(ExitCode::SUCCESS);
    }
    let fields = wanted.iter().map(|text| (text.seq, text.field)).collect();
    let note = inbox::Note::Redact { reason: arguments.reason.clone(), fields };
    match inbox::leave(&arguments.file, &note)? {
        Some(path) => match inbox::wait(&path, LIMIT) {
            Answer::Done => {}
            Answer::Recorded => {
                terminal::complain(
                    "countersign: the redaction is recorded, and the running proxy has not got the texts out of \
                     every file yet. Somebody may be reading the ledger or its index. The proxy goes on trying; \
                     look again later, or stop it, which empties its files",
                );
                return Ok(ExitCode::from(1));
            }
            Answer::Waiting => {
                // Taken back, so that it does not happen behind the operator's back some time later.
                let _ = std::fs::remove_file(&path);
                bail!("the running proxy did not take it in; is its ledger degraded?");
            }
        },
        None => {
            let mut settings = Settings::new(&arguments.file);
            settings.key.clone_from(&arguments.private_key);
            let ledger = Ledger::open(&settings).context("cannot write to the ledger")?;
            ledger.append(note.into_event(inbox::whoever_runs_this()))?;
            ledger.close();
        }
    }
    if !is_gone(arguments, &wanted)? {
        bail!("the texts are still there");
    }
    let found = search(arguments, &wanted)?;
    if !found.files.is_empty() {
        let files: Vec<String> = found.files.iter().map(|file| file.display().to_string()).collect();
        terminal::complain(&format!(
            "countersign: the redaction is recorded, and a text is still in {}. Stop the proxy and look again; a \
             file that the ledger has put aside (.damaged) is yours to delete",
            files.join(", ")
        ));
        return Ok(ExitCode::from(1));
    }
    terminal::say(&format!("redacted {} texts", wanted.len()));
    if !found.others.is_empty() {
        let others: Vec<String> = found.others.iter().map(u64::to_string).collect();
        terminal::say(&format!(
            "the same words are also in entries {}: redact those as well if they are to go",
            others.join(", ")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The texts that are to go: those of the entries that are there and were asked for.
fn wanted(arguments: &Arguments) -> anyhow::Result<Vec<Wanted>> {
    let reader = Reader::open(&arguments.file)?;
    let named = |name: &String| {
        let key = Key::ALL.iter().copied().find(|key| key.name() == name.as_str());
        key.with_context(|| format!("\"{name}\" is not a field"))
    };
    let only: Vec<Key> = arguments.fields.iter().map(named).collect::<anyhow::Result<_>>()?;
    let mut wanted = Vec::new();
    for seq in &arguments.seqs {
        let stored = reader.entry(*seq)?;
        let entry = stored.entry()?;
        for (key, _) in entry.commitments().filter(|(key, _)| only.is_empty() || only.contains(key)) {
            match reader.text(&entry, key)? {
                Text::Kept(value) => wanted.push(Wanted { seq: *seq, field: key.into(), value }),
                Text::Damaged => wanted.push(Wanted { seq: *seq, field: key.into(), value: Vec::new() }),
                Text::NotStored | Text::Redacted | Text::Deleted => {}
            }
        }
    }
    Ok(wanted)
}

/// Whether they are gone from the table.
fn is_gone(arguments: &Arguments, wanted: &[Wanted]) -> anyhow::Result<bool> {
    let reader = Reader::open(&arguments.file)?;
    for text in wanted {
        let key = Key::from_number(text.field).context("a field")?;
        let stored = reader.entry(text.seq)?;
        if matches!(reader.text(&stored.entry()?, key)?, Text::Kept(_) | Text::Damaged) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a search through the files found of texts that should be gone.
#[derive(Default)]
struct Found {
    /// Files with a text that no other entry has.
    files: BTreeSet<PathBuf>,
    /// Entries that have the same words by right.
    others: BTreeSet<u64>,
}

/// Shorter texts are in too many places by chance.
const SHORTEST: usize = 16;

/// Looks into every file itself rather than believing that what was done has worked. Statements with the
/// same text may be on their way through the spool meanwhile, so it looks more than once.
fn search(arguments: &Arguments, wanted: &[Wanted]) -> anyhow::Result<Found> {
    let pieces: BTreeSet<&[u8]> = wanted.iter().flat_map(|text| pieces_of(&text.value)).collect();
    let spool = Settings::new(&arguments.file).spool_directory();
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let mut found = Found::default();
        for file in purge::files_of(&arguments.file, &spool) {
            // What was deleted meanwhile holds nothing.
            let Ok(pieces) = pieces_in(&file, &pieces) else { continue };
            for piece in pieces {
                let others = Reader::open(&arguments.file)?.holders_of(piece)?;
                if others.is_empty() {
                    found.files.insert(file.clone());
                }
                found.others.extend(others);
            }
        }
        if found.files.is_empty() || Instant::now() >= until {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// What to look for: a short text whole, of a long one parts, because SQLite keeps it in pieces.
fn pieces_of(value: &[u8]) -> Vec<&[u8]> {
    const WHOLE: usize = 2048;
    const PART: usize = 64;
    let is_telling = |part: &&[u8]| part.iter().collect::<BTreeSet<_>>().len() >= 8;
    if value.len() < SHORTEST {
        return Vec::new();
    }
    if value.len() <= WHOLE {
        return vec![value];
    }
    let parts = value.chunks(WHOLE / 2).filter_map(|chunk| chunk.get(..PART));
    parts.filter(is_telling).take(64).collect()
}

/// Which of the pieces are in a file.
fn pieces_in<'p>(file: &Path, pieces: &BTreeSet<&'p [u8]>) -> std::io::Result<Vec<&'p [u8]>> {
    const CHUNK: usize = 4 << 20;
    let mut file = std::fs::File::open(file)?;
    let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or_default();
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    loop {
        let before = buffer.len();
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut buffer)?;
        if read == 0 {
            return Ok(found);
        }
        for piece in pieces.iter().filter(|piece| buffer.len() >= piece.len()) {
            if !found.contains(piece) && memchr::memmem::find(&buffer, piece).is_some() {
                found.push(*piece);
            }
        }
        // A piece may lie across the border.
        let kept = buffer.len().min(longest.saturating_sub(1));
        buffer.drain(..buffer.len() - kept);
        debug_assert!(before <= buffer.len() + CHUNK, "the buffer does not grow");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_across_two_chunks_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("large");
        let mut bytes = vec![b'x'; (4 << 20) - 7];
        bytes.extend_from_slice(b"a text that lies across the border");
        std::fs::write(&file, &bytes).unwrap();
        let there: &[u8] = b"a text that lies across the border";
        let not_there: &[u8] = b"a text that lies somewhere else";

        let found = pieces_in(&file, &[there, not_there].into()).unwrap();

        assert_eq!(found, [there]);
    }

    #[test]
    fn a_long_text_is_looked_for_by_parts_that_tell() {
        let mut long = vec![b' '; 10_000];
        long.extend_from_slice(
            b"insert into t values (1, 'x'), (2, 'y'), (3, 'z') returning id, name;".repeat(40).as_slice(),
        );

        assert!(pieces_of(b"short").is_empty());
        assert_eq!(pieces_of(b"select * from customers"), [b"select * from customers"]);
        assert!(pieces_of(&long).iter().all(|part| part.len() == 64 && part.contains(&b'i')));
        assert!(!pieces_of(&long).is_empty());
    }
}
