//! Our parser and the servers' own: whether they read a text, and as how many statements.
//!
//! Statements of the corpora are torn apart and put together again, from a seed. Each is classified, and
//! sent as a `Parse` to a real server inside a transaction that has failed: there the server reads a text
//! with its grammar, and then refuses to look at it any further (`exec_parse_message`), so that nothing
//! ever runs. The answer says which it was: 42601 and its like from the grammar, 42601 for "multiple
//! commands", 25P02 for one statement, `ParseComplete` for none or for a COMMIT or ROLLBACK.
//!
//! A text that the server reads otherwise than we do could pass as something that it is not. What it rejects
//! and we accept cannot: it never runs.
//!
//! | variable | |
//! |---|---|
//! | `COUNTERSIGN_SOAK=1` | 300,000 texts on each version rather than a few thousand |
//! | `COUNTERSIGN_GRAMMAR_SEED=7` | begins at this seed rather than at 0 |
//! | `COUNTERSIGN_GRAMMAR_COUNT=1` | so many texts |
//! | `COUNTERSIGN_GRAMMAR_SHOW=1` | shows what is answered differently, and is no bug |
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
mod support;
#[path = "support/verdicts.rs"]
mod verdicts;

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign::classify::{Catalogue, Classification, Classifier, Context, Limits, SearchPath};
use countersign::cli::cluster::Cluster;
use countersign::statement::SqlText;
use support::random::Random;
use support::wire::{self, Wire};
use verdicts::{Verdict, ask, judge, our_verdict};

const PASSWORD: &str = "superuser-secret";

/// Texts that are on their way at the same time.
const BATCH: u64 = 100;

/// What lexers and grammars may differ about.
const ODD: &[&str] = &[
    "'",
    "''",
    "\"",
    "\"\"",
    "E'",
    "e'\\'",
    "U&'",
    "U&\"",
    "u&'\\0041'",
    "UESCAPE '!'",
    "B'1'",
    "x'1g'",
    "N'a'",
    "\\",
    "\\'",
    "$$",
    "$a$",
    "$1",
    "$1a",
    "$",
    "$é$",
    "--",
    "--\r",
    "/*",
    "*/",
    "/* */",
    "/*/**/",
    ";",
    ";;",
    "; SELECT 1;",
    "\n",
    "\r",
    "\t",
    "\x0b",
    "\x0c",
    "\u{a0}",
    "\u{feff}",
    "\u{2028}",
    "é",
    "日",
    "🙂",
    "\x01",
    "\x7f",
    "0x",
    "0x1F",
    "0b1",
    "0o7",
    "1_000",
    "1__0",
    "1a",
    "1e",
    "1e+",
    "1.",
    ".5",
    "1..2",
    "01",
    "99999999999",
    "::",
    ":",
    ":=",
    "=>",
    "<=",
    "<>",
    "!=",
    "..",
    ".",
    ",",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "<",
    ">",
    "=",
    "~",
    "!",
    "@",
    "#",
    "&",
    "|",
    "`",
    "?",
    "@-",
    "+-",
    "*/*",
    "-/*",
    "@--",
    "SELECT",
    "FROM",
    "WHERE",
    "AND",
    "NOT",
    "AS",
    "BEGIN",
    "BEGIN ATOMIC",
    "END",
    "COMMIT",
    "ROLLBACK",
    "CASE",
    "NULL",
    "TABLE",
    "DROP TABLE t",
    "VALUES (1)",
    "WITH x AS",
    "RETURNING",
    "ON CONFLICT",
    "INTO",
    "LATERAL",
    "OVER ()",
    "JSON",
    "json_array",
    "MERGE",
    "system_user",
    "merge_action()",
    "EXPLAIN ANALYZE",
    "PREPARE p AS",
    "COPY",
    "DO",
    "CALL",
    "OPERATOR(pg_catalog.+)",
    "COLLATE",
    "IS JSON",
    "NORMALIZED",
    "WITHIN GROUP",
    "FILTER",
    "GRAPH_TABLE",
    "PERIOD",
    "WITHOUT OVERLAPS",
    "old",
    "new",
    "VIRTUAL",
    "any_value",
];

/// Runs of letters, runs of white space, and everything else by itself: quotes, too, so that they get lost.
fn pieces(text: &str) -> Vec<String> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 1,
        c if c.is_whitespace() => 2,
        _ => 0,
    };
    let mut pieces: Vec<String> = Vec::new();
    let mut last = 0;
    for c in text.chars() {
        let now = kind(c);
        match pieces.last_mut() {
            Some(piece) if now == last && now > 0 => piece.push(c),
            _ => pieces.push(c.to_string()),
        }
        last = now;
    }
    pieces
}

/// A text that is nearly SQL, or is.
fn mutant(corpus: &[Vec<String>], random: &mut Random) -> Vec<u8> {
    let any = |random: &mut Random| &corpus[random.below(corpus.len())];
    let mut text = any(random).clone();
    for _ in 0..=random.below(3) {
        let place = random.below(text.len() + 1);
        let other = random.below(text.len() + 1);
        let has = place < text.len();
        match random.below(16) {
            0 if has => _ = text.remove(place),
            1 if has => text.insert(place, text[place].clone()),
            2 if has && other < text.len() => text.swap(place, other),
            3 | 4 => text.insert(place, ODD[random.below(ODD.len())].to_owned()),
            5 if has => text[place] = ODD[random.below(ODD.len())].to_owned(),
            6 if has => {
                let from = any(random);
                text[place].clone_from(&from[random.below(from.len())]);
            }
            7 => {
                let from = any(random);
                let (start, length) = (random.below(from.len()), random.below(12));
                let taken = from[start..(start + length).min(from.len())].to_vec();
                text.splice(place..place, taken);
            }
            8 => {
                let end = other.max(place).min(text.len());
                text.drain(place.min(end)..end.min(place + 6).max(place.min(end)));
            }
            9 => {
                let mut behind = any(random).clone();
                text.push([";", "; ", ";\n", "\n;--x\n", " "][random.below(5)].to_owned());
                text.append(&mut behind);
            }
            10 if has => {
                let mut letters: Vec<char> = text[place].chars().collect();
                letters.remove(random.below(letters.len()));
                text[place] = letters.into_iter().collect();
            }
            11 => text.truncate(place.max(1)),
            // As often as anything else: nothing, so that what is SQL is read as well.
            _ => {}
        }
        text.retain(|piece| !piece.is_empty());
        if text.is_empty() {
            text.push(" ".to_owned());
        }
    }
    let mut bytes = text.concat().into_bytes();
    bytes.truncate(4_000);
    if random.chance(1) {
        let place = random.below(bytes.len() + 1);
        bytes.insert(place, [0x80, 0xc0, 0xe9, 0xff][random.below(4)]);
    }
    bytes.retain(|byte| *byte != 0);
    bytes
}

fn compare(version: u32, few: u64, many: u64) {
    let soak = std::env::var_os("COUNTERSIGN_SOAK").is_some();
    let count = support::number_from("COUNTERSIGN_GRAMMAR_COUNT").unwrap_or(if soak { many } else { few });
    let first = support::number_from("COUNTERSIGN_GRAMMAR_SEED").unwrap_or(0);
    let cluster = Cluster::start(&support::server(version), PASSWORD, &[]).expect("a cluster");
    let parameters = [("user", "postgres"), ("database", "postgres")];
    let mut server = Wire::connect(cluster.port(), &parameters, PASSWORD);
    assert!(server.ask(&wire::query("BEGIN; SELECT 1/0")).ends_with("ZE"), "a failed transaction");

    let corpus = corpus();
    let catalogue = Catalogue::built_in(version);
    let classifier = Classifier::new(Limits::default());
    let context = Context {
        server_version: version,
        catalogue: &catalogue,
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    let mut only_the_server_rejects: BTreeMap<String, u64> = BTreeMap::new();
    let mut bugs = Vec::new();
    let show = std::env::var_os("COUNTERSIGN_GRAMMAR_SHOW").is_some();
    let mut seed = first;
    while seed < first + count {
        let end = (seed + BATCH).min(first + count);
        let texts: Vec<Vec<u8>> = (seed..end)
            .map(|seed| mutant(&corpus, &mut Random::new(seed)))
            // A debug build of libpg_query stops the process at `(.. OFFSET 1) LIMIT 1`.
            .map(|text| if cfg!(debug_assertions) { text.replace_word(b"offset", b"off_et") } else { text })
            .collect();
        let theirs = ask(&mut server, &texts);
        for ((text, theirs), seed) in texts.iter().zip(theirs).zip(seed..) {
            let found: Arc<Classification> = classifier.classify(&SqlText::new(text.clone()), &context);
            let ours = our_verdict(&found);
            let shown = String::from_utf8_lossy(text);
            let told = || {
                format!(
                    "seed {seed}: {shown:?}\n  {theirs:?} by Postgres {version}, {ours:?} ({}) by us",
                    found.class
                )
            };
            let (kind, is_bug) = judge(version, &shown, &found, &theirs);
            if let Verdict::Rejects(message) = &theirs
                && kind == "rejected by the server only"
            {
                let start: String = message.split(" at or near").next().unwrap_or("").into();
                *only_the_server_rejects.entry(start).or_default() += 1;
            }
            if is_bug {
                bugs.push(told());
            }
            if show && (kind.contains("another") || kind.contains("only")) {
                println!("{kind}: {}", told());
            }
            *tally.entry(kind).or_default() += 1;
        }
        seed = end;
    }
    println!(
        "{count} texts on Postgres {version}: {tally:?}; rejected by it only: {only_the_server_rejects:?}"
    );
    bugs.truncate(30);
    assert!(bugs.is_empty(), "{}", bugs.join("\n"));
    // As many are SQL as that the comparison is of something.
    if count > 1_000 {
        let several = tally["read by both, several statements"];
        assert!(several * 40 > count && (tally["read by both"] + several) * 4 > count, "{tally:?}");
    }
}

trait ReplaceWord {
    fn replace_word(self, word: &[u8], by: &[u8]) -> Self;
}

impl ReplaceWord for Vec<u8> {
    fn replace_word(mut self, word: &[u8], by: &[u8]) -> Self {
        for start in 0..self.len().saturating_sub(word.len() - 1) {
            let here = &mut self[start..start + word.len()];
            if here.eq_ignore_ascii_case(word) {
                here.copy_from_slice(by);
            }
        }
        self
    }
}

fn corpus() -> Vec<Vec<String>> {
    let folder = support::root().join("fixtures/statements");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut corpus = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(file).unwrap().lines().filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let pieces = pieces(line["sql"].as_str().unwrap());
            if !pieces.is_empty() {
                corpus.push(pieces);
            }
        }
    }
    assert!(corpus.len() > 1_000, "{}", corpus.len());
    corpus
}

#[test]
fn texts_are_read_as_postgres_14_reads_them() {
    compare(14, 4_000, 300_000);
}

#[test]
fn texts_are_read_as_postgres_15_reads_them() {
    compare(15, 8_000, 300_000);
}

#[test]
fn texts_are_read_as_postgres_16_reads_them() {
    compare(16, 4_000, 300_000);
}

#[test]
fn texts_are_read_as_postgres_17_reads_them() {
    compare(17, 4_000, 300_000);
}

#[test]
fn texts_are_read_as_postgres_18_reads_them() {
    compare(18, 8_000, 300_000);
}
