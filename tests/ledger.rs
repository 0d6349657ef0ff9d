//! The ledger's commands, as an auditor and an operator use them.
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

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use countersign::actor::{Agent, AgentIdentity, AuthenticationMethod, Claims};
use countersign::ledger::{Clearance, Ledger, SessionInfo, SessionLog, Settings, StatementRecord};
use countersign::statement::{Digest, Ending, Outcome, SessionId, SqlState, Statement, Target};
use serde_json::Value;

fn countersign(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The output, of a command that succeeds.
fn good(arguments: &[&str]) -> String {
    let output = countersign(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn code(arguments: &[&str]) -> i32 {
    countersign(arguments).status.code().unwrap()
}

/// A copy of the ledger in `fixtures/`.
struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ledger/good");
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

#[test]
fn verify_says_what_was_checked_and_ends_with_its_verdict() {
    let fixture = Fixture::new();
    let (ledger, key, head) =
        (fixture.path("ledger.db"), fixture.path("ledger.db.pub"), fixture.path("head"));

    let unanchored = countersign(&["ledger", "verify", &ledger]);
    assert_eq!(unanchored.status.code(), Some(1));
    assert!(said(&unanchored).contains("give --key with a copy that you trust"), "{}", said(&unanchored));
    assert!(said(&unanchored).contains("vouches for entry 0"), "{}", said(&unanchored));

    let anchored = good(&["ledger", "verify", &ledger, "--key", &key, "--anchor", &head]);
    assert!(anchored.ends_with("VERIFIED, and an anchor covers the last entry.\n"), "{anchored}");

    let json: Value =
        serde_json::from_str(&good(&["ledger", "verify", &ledger, "--anchor", &head, "--json"])).unwrap();
    assert_eq!((&json["verified"], &json["exit_code"]), (&true.into(), &0.into()));
    assert_eq!(json["anchored"], json["entries"]);

    assert_eq!(code(&["ledger", "verify", &fixture.path("nothing.db")]), 2);
    assert_eq!(code(&["ledger", "verify", &ledger, "--key", &fixture.path("nothing.pub")]), 2);
    assert_eq!(code(&["ledger", "verify", &ledger, "--anchor", &fixture.path("nothing")]), 2);
    assert_eq!(code(&["ledger", "verify"]), 2);
}

#[test]
fn verify_names_the_first_entry_that_is_wrong() {
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");
    let connection = rusqlite::Connection::open(&ledger).unwrap();
    connection.execute("DELETE FROM entry WHERE seq = 40", []).unwrap();
    drop(connection);

    let output = countersign(&["ledger", "verify", &ledger]);

    assert_eq!(output.status.code(), Some(12));
    assert!(
        said(&output).contains("NOT VERIFIED: order (exit code 12)\n  entry 40: it is missing"),
        "{}",
        said(&output)
    );
}

#[test]
fn one_entry_is_shown_whole_and_proved_alone() {
    let fixture = Fixture::new();
    let (ledger, key) = (fixture.path("ledger.db"), fixture.path("ledger.db.pub"));
    let json: Value = serde_json::from_str(&good(&["ledger", "show", &ledger, "9", "--json"])).unwrap();
    assert_eq!(json["kind"], "statement");
    assert!(json["texts"]["sql"].as_str().unwrap().starts_with("select"), "{json}");
    let shown = good(&["ledger", "show", &ledger, "9"]);
    assert!(shown.contains("its signature holds; it is in the tree"), "{shown}");

    let proof = fixture.path("9.tlog-proof");
    good(&["ledger", "prove", &ledger, "9", "-o", &proof]);
    let checked = good(&["ledger", "prove", &proof, "--check", "--key", &key]);
    assert!(checked.starts_with("PROVED: entry 9 (statement)"), "{checked}");

    let text = std::fs::read_to_string(&proof).unwrap();
    std::fs::write(&proof, text.replace("index 9", "index 8")).unwrap();
    assert_eq!(code(&["ledger", "prove", &proof, "--check", "--key", &key]), 15);
    std::fs::write(&proof, text.replace("example.com/ledger\n1", "example.com/ledger\n2")).unwrap();
    assert_eq!(code(&["ledger", "prove", &proof, "--check", "--key", &key]), 14);
    assert_eq!(code(&["ledger", "show", &ledger, "99999"]), 2);
}

#[test]
fn an_anchor_from_the_command_line_is_one_to_verify() {
    let fixture = Fixture::new();
    let (ledger, anchor) = (fixture.path("ledger.db"), fixture.path("anchor.txt"));

    good(&["ledger", "anchor", &ledger, "-o", &anchor]);

    assert_eq!(code(&["ledger", "verify", &ledger, "--anchor", &anchor]), 0);
    assert_eq!(code(&["ledger", "anchor", &ledger, "-o", &anchor]), 2, "nothing is overwritten");
}

#[test]
fn statements_are_found_by_what_people_ask_for() {
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");
    let found = |arguments: &[&str]| {
        let all = [&["ledger", "query", &ledger, "--json"], arguments].concat();
        let rows: Value = serde_json::from_str(&good(&all)).unwrap();
        rows.as_array().unwrap().len()
    };

    assert_eq!(found(&["--class", "export"]), 1);
    assert_eq!(found(&["--agent", "etl-bot", "--class", "ddl"]), 2);
    assert_eq!(found(&["--decision", "granted"]), 4);
    assert_eq!(found(&["--decision", "refused"]), 3);
    assert_eq!(found(&["--decision", "denied_by_policy"]), 1);
    assert_eq!(found(&["--reviewer", "carol@example.com"]), 2);
    assert_eq!(found(&["--contains", "CUSTOMERS to stdout"]), 1);
    assert_eq!(found(&["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T00:00:00.010Z"]), 1);
    assert_eq!(found(&["--since", "2027-01-01"]), 0);
    assert_eq!(found(&["--limit", "7"]), 7);
    let table = good(&["ledger", "query", &ledger, "--class", "export"]);
    assert!(
        table.contains("bob@example.com, carol@example.com") && table.ends_with("1 statement\n"),
        "{table}"
    );
    assert_eq!(code(&["ledger", "query", &ledger, "--since", "whenever"]), 2);
}

#[test]
fn exports_have_every_entry_and_the_bytes_that_were_signed() {
    use base64::Engine as _;
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");

    let lines = good(&["ledger", "export", &ledger]);

    for (seq, line) in lines.lines().enumerate() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["seq"], seq);
        let body = base64::engine::general_purpose::STANDARD.decode(entry["cbor"].as_str().unwrap()).unwrap();
        let leaf = Digest::of(&[&[0][..], &body].concat());
        assert_eq!(entry["leaf"], leaf.to_string());
    }
    let csv = good(&["ledger", "export", &ledger, "--format", "csv", "--from", "10", "--to", "19"]);
    assert_eq!(csv::Reader::from_reader(csv.as_bytes()).records().count(), 10);
}

#[test]
fn the_newest_entries_are_shown_in_lines() {
    let fixture = Fixture::new();

    let tail = good(&["ledger", "tail", &fixture.path("ledger.db"), "-n", "5"]);

    assert_eq!(tail.lines().count(), 5);
    assert!(tail.lines().last().unwrap().contains("session_closed"), "{tail}");
}

/// A ledger with a key made by the command line, and a few statements.
struct Running {
    directory: tempfile::TempDir,
    ledger: PathBuf,
}

impl Running {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.db");
        let key = directory.path().join("ledger.db.key");
        good(&["key", "init", key.to_str().unwrap(), "--origin", "example.com/cli"]);
        Self { directory, ledger }
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.ledger);
        settings.key = Some(self.directory.path().join("ledger.db.key"));
        settings
    }

    fn open(&self) -> (Ledger, SessionLog) {
        let ledger = Ledger::open(&self.settings()).unwrap();
        let log = ledger.session_opened(&session()).unwrap();
        (ledger, log)
    }

    fn path(&self) -> &str {
        self.ledger.to_str().unwrap()
    }
}

fn session() -> SessionInfo {
    SessionInfo {
        session: SessionId(uuid::Uuid::now_v7()),
        identity: Arc::new(AgentIdentity {
            agent: Arc::new(Agent {
                name: "bot".into(),
                owners: vec!["alice".into()],
                upstreams: Vec::new(),
            }),
            method: AuthenticationMethod::Certificate,
            client_address: "[unix]".into(),
            certificate_fingerprint: Some([1; 32]),
            verified: Claims::default(),
        }),
        target: Target { upstream: "app".into(), database: "app".into(), role: "app".into() },
        claimed: Claims::default(),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// A statement that upstream refuses, so that no rule and no grant is needed.
fn run(log: &SessionLog, sql: &str) {
    let statement = Statement::query(sql.into());
    let classifier = countersign::classify::Classifier::new(countersign::classify::Limits::default());
    let catalogue = countersign::classify::Catalogue::built_in(15);
    let context = countersign::classify::Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &countersign::classify::SearchPath::Unknown,
        database: "app",
        role: "app",
        strings_standard: true,
    };
    let classification = classifier.classify(&statement.sql, &context);
    let record = StatementRecord {
        statement: &statement,
        digest: statement.digest(),
        classification: &classification,
        in_transaction: true,
        request: None,
        policy: Digest::of(b""),
        rules: &[],
        wall: jiff::Timestamp::UNIX_EPOCH,
    };
    let receipt = log.forward(&record, Clearance::Doomed).unwrap();
    let outcome = Outcome {
        ending: Ending::Failed { sqlstate: SqlState::new("25P02").unwrap() },
        rows: 0,
        bytes: 0,
        transaction: None,
        result_digest: None,
    };
    log.outcome(receipt.intent(), &outcome, 1);
}

fn count(ledger: &str, words: &str) -> usize {
    good(&["ledger", "query", ledger, "--contains", words, "--json"]).matches("\"seq\"").count()
}

#[test]
fn a_live_ledger_verifies_and_reading_it_leaves_a_trace() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 'live'");
    assert!(ledger.flush(Duration::from_secs(10)));

    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    good(&["ledger", "show", running.path(), "2"]);
    std::thread::sleep(Duration::from_millis(1200));
    assert!(ledger.flush(Duration::from_secs(10)));

    let exported = good(&["ledger", "export", running.path()]);
    let reading = exported.lines().find(|line| line.contains("\"kind\":\"export\"")).expect("a trace");
    assert!(reading.contains("ledger show") && reading.contains("\"by\":\"uid "), "{reading}");
    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    drop(log);
    ledger.close();
}

#[test]
fn texts_are_redacted_with_and_without_a_running_proxy() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 'first secret'");
    run(&log, "select 'second secret'");
    assert!(ledger.flush(Duration::from_secs(10)));
    assert_eq!(count(running.path(), "secret"), 2);

    let seq = |words: &str| {
        let rows: Value =
            serde_json::from_str(&good(&["ledger", "query", running.path(), "--contains", words, "--json"]))
                .unwrap();
        rows[0]["seq"].to_string()
    };
    let live = good(&["ledger", "redact", running.path(), &seq("first"), "--reason", "asked to"]);
    assert_eq!(live, "redacted 1 texts\n");
    drop(log);
    ledger.close();
    good(&["ledger", "redact", running.path(), &seq("second"), "--reason", "asked to, too"]);

    assert_eq!(count(running.path(), "secret"), 0);
    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    for name in ["ledger.db", "ledger.db.index.db", "ledger.db-wal", "ledger.db.index.db-wal"] {
        let bytes = std::fs::read(running.ledger.with_file_name(name)).unwrap_or_default();
        assert!(!bytes.windows(6).any(|word| word == b"secret"), "{name}");
    }
    let again = good(&["ledger", "redact", running.path(), "5", "--reason", "twice"]);
    assert!(again.starts_with("nothing to redact"), "{again}");
}

#[test]
fn a_root_key_is_handed_over_and_either_key_verifies_the_whole() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 1");
    let key = running.directory.path().join("ledger.db.key");
    let rotate = ["key", "rotate", key.to_str().unwrap(), "--ledger", running.path()];
    assert_eq!(code(&rotate), 2, "not while the proxy runs");
    drop(log);
    ledger.close();

    let shown = good(&["key", "show", key.to_str().unwrap()]);
    assert!(shown.starts_with("example.com/cli+"), "{shown}");
    good(&rotate);
    assert_ne!(good(&["key", "show", key.to_str().unwrap()]), shown);
    let (ledger, log) = running.open();
    run(&log, "select 2");
    drop(log);
    ledger.close();

    let old = running.directory.path().join("ledger.db.pub.old");
    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    assert_eq!(code(&["ledger", "verify", running.path(), "--key", old.to_str().unwrap()]), 1);
    assert_eq!(code(&["key", "init", key.to_str().unwrap(), "--origin", "x"]), 2, "no key is overwritten");
}
