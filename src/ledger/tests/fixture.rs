//! A ledger that was written once and is kept: what was signed in the past must verify for ever, and
//! read the same.

use std::path::{Path, PathBuf};

use super::sample::Place;
use super::{Elsewhere, rich, second};
use crate::ledger::entry::Kind;
use crate::ledger::export;
use crate::ledger::read::Reader;
use crate::ledger::verify::{Options, Progress, verify};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ledger/good")
}

/// A copy that may be opened: SQLite leaves files beside what it opens.
fn copy() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures()).unwrap().flatten() {
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    directory
}

fn exported(ledger: &Path) -> String {
    let reader = Reader::open(ledger).unwrap();
    let mut lines = String::new();
    let last = reader.size().unwrap() - 1;
    reader
        .each::<crate::ledger::read::ReadError>(0, last, |stored| {
            lines.push_str(&export::to_json(&reader, &stored)?.to_string());
            lines.push('\n');
            Ok(())
        })
        .unwrap();
    lines
}

#[test]
fn a_ledger_of_the_past_still_verifies_and_reads_the_same() {
    let directory = copy();
    let (path, head) = (directory.path().join("ledger.db"), directory.path().join("head"));

    let elsewhere = Elsewhere::of(&path, std::slice::from_ref(&head));
    let (key, anchors) = (elsewhere.key.clone(), elsewhere.anchors.clone());
    let options = Options { path: path.clone(), key, anchors };
    let report = verify(&options, &Progress::default()).unwrap();

    assert_eq!((report.exit_code(), report.problem), (0, None));
    let expected = std::fs::read_to_string(fixtures().join("entries.jsonl")).unwrap();
    assert!(exported(&path) == expected, "the export of the fixture has changed");
    let mut second = second::Opinions::default();
    second.ask("the fixture", 0, &path, &[head], std::sync::Arc::new(directory));
    assert_eq!(second.disagreements(), Vec::<String>::new());
}

#[test]
fn the_fixture_has_nearly_every_kind_of_entry() {
    let directory = copy();
    let reader = Reader::open(&directory.path().join("ledger.db")).unwrap();
    let mut kinds: Vec<Kind> = Vec::new();
    reader
        .each::<crate::ledger::read::ReadError>(0, u64::MAX, |stored| {
            kinds.push(stored.entry().unwrap().kind());
            Ok(())
        })
        .unwrap();

    // These have tests of their own: they tell of a broken disk, or of a change of the root key.
    let elsewhere = [Kind::KeyRoot, Kind::Degraded, Kind::Resumed, Kind::Discarded];
    let missing: Vec<_> =
        Kind::ALL.iter().filter(|kind| !kinds.contains(kind) && !elsewhere.contains(kind)).collect();
    assert_eq!(missing, Vec::<&Kind>::new());
}

/// Writes the fixture anew: `COUNTERSIGN_WRITE_FIXTURES=1 cargo nextest run -E 'test(fixture)'`. Only a new
/// version of the format is a reason to.
#[test]
fn write_the_fixture_when_asked_to() {
    if std::env::var_os("COUNTERSIGN_WRITE_FIXTURES").is_none() {
        return;
    }
    let place = Place::new();
    rich::fill(&place);
    let to = fixtures();
    std::fs::create_dir_all(&to).unwrap();
    for name in ["ledger.db", "ledger.db.pub", "ledger.db.index.db", "head"] {
        std::fs::copy(place.path().with_file_name(name), to.join(name)).unwrap();
    }
    std::fs::write(to.join("entries.jsonl"), exported(&place.path())).unwrap();
}
